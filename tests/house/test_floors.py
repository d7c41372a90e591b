"""Imports go down the stairs, and every floor is entered by its front door."""

from __future__ import annotations

import subprocess
import sys

from tests.house.source import ROOT


def test_floors_rooms_and_doors_are_kept() -> None:
    """The contracts are in ``.importlinter``."""
    checked = subprocess.run(
        [
            *(
                sys.executable,
                "-c",
                "from importlinter.cli import lint_imports_command as run; run()",
            ),
            *("--no-logo", "--no-cache"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Contracts: " in checked.stdout
