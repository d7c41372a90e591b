"""R3 in short: the power goes while the archive works, and what was not synced is lost."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prove.promise import Scale

from prove import power_cut

CUTS = 30


def test_r3_a_power_cut_at_any_step_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power_cut, "QUICK_CUTS", CUTS)
    recording, story = power_cut.record(tmp_path / "recorded")
    chosen = power_cut.cuts(recording, Scale(True, tmp_path, 3, lambda _line: None))
    logging.disable(logging.CRITICAL)
    try:
        wrong = {
            cut: found
            for number, cut in enumerate(chosen)
            if (found := power_cut.try_cut(recording, story, cut, tmp_path / str(number)))
        }
    finally:
        logging.disable(logging.NOTSET)
    assert wrong == {}
