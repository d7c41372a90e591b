"""What was measured, as JSON lines, as one table, and as text for the documentation."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.figure import Figure, ratio_of
from bench.kinds import GOALS

OUTPUT: Final = Path("build/bench")
FIGURES: Final = OUTPUT / "figures.jsonl"
PEER: Final = "Orthanc"

COLUMNS: Final = (
    "work",
    "server",
    "ours",
    "Orthanc",
    "ratio",
    "goal",
    "met",
    "CPU ms",
    "of Orthanc",
    "p50 ms",
    "p95 ms",
    "MB",
    "of Orthanc",
    "errors",
    "compared",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One work of ours, with the peer's figure beside it where there is one."""

    ours: Figure
    peer: Figure | None
    beside: Figure | None = None
    """What the goal compares with, of ours."""

    def cells(self) -> tuple[str, ...]:
        """Return the row's text, in the order of `COLUMNS`."""
        ours, peer = self.ours, self.peer
        ratio = ratio_of(ours, peer)
        goal = GOALS.get(ours.work) if ours.server != PEER else None
        is_met = goal.is_met(ours, ratio, self.beside) if goal else None
        return (
            ours.work,
            ours.server,
            _value(ours),
            _value(peer) if peer else "",
            f"{ratio:.2f} ×" if ratio is not None else "",
            goal.text(ours.unit) if goal else "",
            {True: "yes", False: "no", None: ""}[is_met],
            _number(ours.cpu_ms),
            _number(peer.cpu_ms) if peer else "",
            _number(ours.p50_ms),
            _number(ours.p95_ms),
            _number(ours.memory_mb),
            _number(peer.memory_mb) if peer else "",
            str(ours.errors + (peer.errors if peer else 0)),
            str(ours.compared + (peer.compared if peer else 0)),
        )


def rows(figures: Sequence[Figure]) -> Iterator[Row]:
    """Give a row for each of our figures, and for what the peer alone did."""
    peers = {figure.work: figure for figure in figures if figure.server == PEER}
    ours = [figure for figure in figures if figure.server != PEER]
    order = list(dict.fromkeys(figure.work for figure in figures))
    for figure in sorted(ours, key=lambda one: order.index(one.work)):
        goal = GOALS.get(figure.work)
        other = next(
            (
                one
                for one in ours
                if goal and one.work == goal.beside and one.server == figure.server
            ),
            None,
        )
        yield Row(figure, peers.get(figure.work), other)
    done = {figure.work for figure in ours}
    yield from (Row(figure, None) for figure in peers.values() if figure.work not in done)


def line(figure: Figure) -> str:
    """Say a figure in one line."""
    said = f"{figure.work}: {_value(figure)} {list(figure.rounds)}"
    if figure.cpu_ms is not None:
        said += f", {_number(figure.cpu_ms)} ms CPU each"
    if figure.memory_mb is not None:
        said += f", {figure.memory_mb:.0f} MB"
    return said + (f", {figure.errors} ERRORS" if figure.errors else "")


def keep(figures: Sequence[Figure]) -> None:
    """Append the figures to the file of raw figures."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    where = circumstances()
    with FIGURES.open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps(where | asdict(figure) | {"value": figure.value}) + "\n")


def circumstances() -> dict[str, str]:
    """Return what a figure means nothing without: when, which commit, which machine."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {_file_system()}",
        "python": platform.python_version(),
    }


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table(box=None, header_style="bold")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index < 2 else "right")
    for row in rows(figures):
        table.add_row(*row.cells())
    Console(width=190).print(table)
    for server in dict.fromkeys(figure.server for figure in figures if figure.safe):
        safe = next(figure.safe for figure in figures if figure.server == server and figure.safe)
        print(f"Safe when {server} says Success: {safe}.")


def _value(figure: Figure) -> str:
    return f"{_number(figure.value)} {figure.unit}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"


def _file_system() -> str:
    told = subprocess.run(
        ["stat", "--file-system", "--format=%T", "/tmp"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip()
