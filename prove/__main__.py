"""``make prove``: a line for each promise, what was counted, and whether it was kept.

Raw results go to build/prove/results.jsonl. The exit code is 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import platform
import re
import subprocess
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

import prove
from prove.promise import Outcome, Promise, Scale

OUTPUT = Path("build/prove")


def main(arguments: Sequence[str] | None = None) -> None:
    """Put the chosen promises to the proof, one after the other, and print the table."""
    promises = all_promises()
    parser = argparse.ArgumentParser(prog="prove", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the short form of each")
    parser.add_argument("--only", default="", metavar="R1,R2", help="these alone")
    parser.add_argument("--seed", type=int, default=1, help="where all chance comes from")
    chosen = parser.parse_args(arguments)
    wanted = _wanted(promises, chosen.only, parser)
    rows = []
    for promise in wanted:
        began = time.monotonic()
        outcome = _outcome(promise, is_quick=chosen.quick, seed=chosen.seed)
        rows.append((promise, outcome, time.monotonic() - began))
        _keep(*rows[-1], is_quick=chosen.quick, seed=chosen.seed)
    _show(rows, is_quick=chosen.quick)
    raise SystemExit(0 if all(outcome.passed for _, outcome, _ in rows) else 1)


def all_promises() -> list[Promise]:
    """Collect the promises of all modules of this package, in the order of their names."""
    found: list[Promise] = []
    for module in pkgutil.iter_modules(prove.__path__):
        if module.name != "__main__":
            found += getattr(importlib.import_module(f"prove.{module.name}"), "PROMISES", ())
    return sorted(found, key=lambda promise: _in_order(promise.name))


def _in_order(name: str) -> tuple[bool, str, int, str]:
    """R2 stands before R10, and what has no number comes last."""
    parts = re.fullmatch(r"(\D+)(\d+)(.*)", name)
    return (False, parts[1], int(parts[2]), parts[3]) if parts else (True, name, 0, "")


def _wanted(
    promises: Sequence[Promise], only: str, parser: argparse.ArgumentParser
) -> list[Promise]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {promise.name for promise in promises}
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(
            f"There is no promise called {', '.join(unknown)}. There are "
            f"{', '.join(promise.name for promise in promises)}."
        )
    return [promise for promise in promises if not names or promise.name in names]


def _outcome(promise: Promise, *, is_quick: bool, seed: int) -> Outcome:
    """Prove one promise in a folder of its own; whatever is raised is a promise not kept."""
    print(f"==> {promise.name}  {promise.title}", flush=True)
    with tempfile.TemporaryDirectory(prefix="prove-", ignore_cleanup_errors=True) as folder:
        scale = Scale(is_quick, Path(folder), seed, lambda line: print(f"    {line}", flush=True))
        try:
            return promise.prove(scale)
        except Exception as error:  # noqa: BLE001 - one that fails does not keep back the others
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".strip()
            return Outcome(False, reason.splitlines()[0][:200], {"reason": reason})


def _keep(promise: Promise, outcome: Outcome, seconds: float, *, is_quick: bool, seed: int) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    row = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "quick": is_quick,
        "seed": seed,
        "promise": promise.name,
        "title": promise.title,
        "passed": outcome.passed,
        "figure": outcome.figure,
        "seconds": round(seconds, 1),
        "details": outcome.details,
    }
    with (OUTPUT / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, default=str) + "\n")


def _commit() -> str:
    asked = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def _show(rows: Sequence[tuple[Promise, Outcome, float]], *, is_quick: bool) -> None:
    table = Table(
        title="Promises, the short form" if is_quick else "Promises",
        box=None,
        header_style="bold",
    )
    for column in ("promise", "", "figure", "took", "pass"):
        table.add_column(column, overflow="fold")
    for promise, outcome, seconds in rows:
        table.add_row(
            promise.name,
            promise.title,
            outcome.figure,
            f"{seconds:.0f} s",
            "[green]yes[/]" if outcome.passed else "[red]NO[/]",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
