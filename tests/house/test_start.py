"""What a start imports: whatever is imported before the processes begin delays all of them."""

from __future__ import annotations

import subprocess
import sys

SLOW = {
    "alembic": "only a migration needs it",
    "fastapi": "only the JSON API needs it; web/operations.py",
    "numpy": "only pixels need it; base/late.py",
    "PIL": "only pictures need it",
    "pydicom": "only whole data sets need it; dicom/pydicom_parts.py",
    "rich": "only what is printed as a table needs it; base/log.py keeps structlog from it",
    "sqlalchemy.dialects.postgresql": "only a PostgreSQL needs it; base/db/insert_new.py",
}


def _imported_by(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


def test_start_imports_nothing_slow_that_it_does_not_need() -> None:
    imported = _imported_by(
        "import pacsteward.cli, pacsteward.application\n"
        "pacsteward.cli.build(pacsteward.cli.find_all_rooms())"
    )
    assert "pacsteward.features.storage.dimse" in imported
    assert {name: why for name, why in SLOW.items() if name in imported} == {}


def test_data_sets_are_read_without_the_decoders_of_pydicom() -> None:
    imported = _imported_by("import pacsteward.dicom.pydicom_parts")
    assert "pydicom.pixels" in imported
    assert imported.isdisjoint({"gdcm", "requests"})
