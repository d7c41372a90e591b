"""The frame of ``make prove``: what is run, and what its exit code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prove.promise import Outcome, Promise, Scale

from prove import __main__ as frame


def kept(scale: Scale) -> Outcome:
    assert scale.is_quick
    assert list(scale.folder.iterdir()) == []
    return Outcome(True, "3 of 3", {"count": 3})


def broken(_scale: Scale) -> Outcome:
    raise RuntimeError("the plug was not found")


@pytest.fixture(autouse=True)
def _promises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    promises = [Promise("R1", "Kept", kept), Promise("R2", "Broken", broken)]
    monkeypatch.setattr(frame, "all_promises", lambda: promises)
    monkeypatch.setattr(frame, "OUTPUT", tmp_path / "out")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        frame.main(["--quick", *arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_one_promise_that_raises_fails_the_run_and_keeps_back_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 1
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").open()]
    assert [(row["promise"], row["passed"]) for row in rows] == [("R1", True), ("R2", False)]
    assert rows[0]["details"] == {"count": 3}
    assert "the plug was not found" in rows[1]["details"]["reason"]
    printed = capsys.readouterr().out
    assert "3 of 3" in printed
    assert "NO" in printed


def test_only_the_chosen_ones_are_run() -> None:
    assert run("--only", "R1") == 0
    assert run("--only", "R2") == 1


def test_a_promise_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only", "R99") == 2
    assert "R1, R2" in capsys.readouterr().err


def test_promises_are_found_by_their_module_and_stand_in_the_order_of_their_numbers() -> None:
    names = [promise.name for promise in frame_promises()]
    assert len(names) == len(set(names))
    assert {"R1", "R2", "R3", "R4", "R6", "rebuild"} <= set(names)
    numbers = [int(name[1:]) for name in names if name[0] == "R" and name[1:].isdigit()]
    assert numbers == sorted(numbers)


frame_promises = frame.all_promises
