"""The same readers, led by coverage: what reaches new lines is damaged further (atheris)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.damage import SIZE_MAX
from tests.fuzz.targets import Target
from tests.fuzz.watch import watched


def search(target: Target, seconds: float, seed: int) -> None:
    """Search until the time is over, or until the first fault, which ends the process."""
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(target.seeds()):
            (Path(folder) / str(number)).write_bytes(data)
        options = [
            f"-max_total_time={int(seconds)}",
            f"-seed={seed}",
            f"-max_len={SIZE_MAX}",
            "-timeout=0",
            "-rss_limit_mb=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, folder], lambda data: watched(target, data))
        atheris.Fuzz()
