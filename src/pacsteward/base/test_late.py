"""A late module is imported when something of it is used; one that is left away is not."""

from __future__ import annotations

import subprocess
import sys


def _run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_late_module_is_imported_by_its_first_use() -> None:
    _run(
        "import sys\n"
        "from pacsteward.base.late import late\n"
        "colorsys = late('colorsys')\n"
        "assert 'colorsys' not in sys.modules\n"
        "assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)\n"
        "assert 'colorsys' in sys.modules\n"
        "assert 'rgb_to_hsv' in vars(colorsys)\n"
    )


def test_module_that_is_left_away_cannot_be_imported_and_later_can() -> None:
    _run(
        "import sys\n"
        "from pacsteward.base.late import without\n"
        "with without('colorsys', 'sys'):\n"
        "    import sys as known\n"
        "    try:\n"
        "        import colorsys\n"
        "    except ImportError:\n"
        "        colorsys = None\n"
        "assert known is sys and colorsys is None\n"
        "import colorsys\n"
        "assert 'sys' in sys.modules\n"
    )


def test_module_is_no_longer_left_away_after_an_error() -> None:
    _run(
        "from pacsteward.base.late import without\n"
        "try:\n"
        "    with without('colorsys'):\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    import colorsys\n"
    )
