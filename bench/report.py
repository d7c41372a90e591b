"""What was measured: as JSON lines, one table, pictures, and text for the documentation."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.figure import Figure, Goal, ratio_of
from bench.kinds import GOALS, TITLES
from bench.plot import picture

OUTPUT: Final = Path("build/bench")
DOCUMENT: Final = Path("docs/understand/performance.md")
PICTURES: Final = Path("docs/understand/performance")
BEGIN: Final = "<!-- Written by `python -m bench --write-docs`: -->"
END: Final = "<!-- until here. -->"
FIGURES: Final = OUTPUT / "figures.jsonl"
PEER: Final = "Orthanc"
STRANGERS: Final = frozenset({PEER, "dcmtk storescp"})
"""Whose figures have no goal."""

COLUMNS: Final = (
    "work",
    "server",
    "figure",
    "Orthanc",
    "ratio",
    "goal",
    "met",
    "CPU ms",
    "Orthanc's",
    "p50 ms",
    "p95 ms",
    "MB",
    "Orthanc's",
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

    @property
    def goal(self) -> Goal | None:
        """Return what our figure is to reach."""
        return GOALS.get(self.ours.work) if self.ours.server not in STRANGERS else None

    @property
    def is_met(self) -> bool | None:
        """Say whether it does; None where there is no goal, or nothing to compare with."""
        if self.goal is None:
            return None
        return self.goal.is_met(self.ours, ratio_of(self.ours, self.peer), self.beside)

    def shortfall(self) -> str:
        """Say what was to be reached, and what was."""
        ours, goal = self.ours, self.goal
        reached = [_value(ours)]
        if goal is not None and goal.times is not None:
            reached.append(f"{ratio_of(ours, self.peer) or 0:.2f} ×")
        if goal is not None and goal.share is not None:
            beside = ratio_of(ours, self.beside)
            reached.append(f"{beside:.2f} × {goal.beside}" if beside is not None else "")
        if goal is not None and goal.cpu_ms is not None:
            reached.append(f"{_number(ours.cpu_ms)} ms CPU")
        if goal is not None and goal.p95_ms is not None:
            reached.append(f"p95 {_number(ours.p95_ms)} ms")
        wanted = goal.text(ours.unit) if goal else ""
        known = ", ".join(filter(None, reached))
        return f"{ours.work} ({ours.server}): {known}; the goal is {wanted}."

    def cells(self) -> tuple[str, ...]:
        """Return the row's text, in the order of `COLUMNS`."""
        ours, peer = self.ours, self.peer
        ratio, goal, is_met = ratio_of(ours, peer), self.goal, self.is_met
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


def rows(figures: Sequence[Figure], among: Sequence[Figure] = ()) -> Iterator[Row]:
    """Give a row for each of our figures, and for what the peer alone did.

    Parameters
    ----------
    among
        Further figures of ours that goals may compare with.
    """
    peers = {figure.work: figure for figure in figures if figure.server == PEER}
    ours = [figure for figure in figures if figure.server != PEER]
    order = list(dict.fromkeys(figure.work for figure in figures))
    for figure in sorted(ours, key=lambda one: order.index(one.work)):
        goal = GOALS.get(figure.work)
        other = next(
            (
                one
                for one in (*ours, *among)
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
    """Append the figures to the file of raw figures, and draw each kind of work."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    where = circumstances()
    with FIGURES.open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps(where | asdict(figure) | {"value": figure.value}) + "\n")
    for kind in dict.fromkeys(figure.kind for figure in figures):
        of_kind = [figure for figure in figures if figure.kind == kind]
        (OUTPUT / f"{kind}.svg").write_text(picture(TITLES[kind], of_kind), encoding="utf-8")


# --- the documentation ---------------------------------------------------------------------------


def write_documentation() -> None:
    """Put the latest figures of each kind between the marks of the document, with its picture."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    latest = _latest()
    every = [figure for _, figures in latest.values() for figure in figures]
    parts = "\n".join(_section(kind, *found, every) for kind, found in latest.items())
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{parts}\n{END}{after}", encoding="utf-8")


def _latest() -> dict[str, tuple[dict[str, str], list[Figure]]]:
    """Return, of each kind, the figures of its last run and the circumstances of that."""
    names = {field.name for field in fields(Figure)}
    found: dict[str, tuple[dict[str, str], list[Figure]]] = {}
    for text in FIGURES.read_text(encoding="utf-8").splitlines():
        said = json.loads(text)
        where = {name: said[name] for name in ("at", "commit", "machine", "python")}
        figure = Figure(
            **{name: said[name] for name in names if name != "rounds"}, rounds=tuple(said["rounds"])
        )
        if figure.kind not in found or found[figure.kind][0]["at"] != where["at"]:
            found[figure.kind] = where, []
        found[figure.kind][1].append(figure)
    return {kind: found[kind] for kind in TITLES if kind in found}


def _section(
    kind: str, where: Mapping[str, str], figures: Sequence[Figure], every: Sequence[Figure]
) -> str:
    PICTURES.mkdir(exist_ok=True)
    drawing = PICTURES / f"{kind}.svg"
    drawing.write_text(picture(TITLES[kind], figures), encoding="utf-8")
    lines = [
        f"### {TITLES[kind]}",
        "",
        f"{where['at'][:16].replace('T', ' ')} UTC, commit {where['commit']}, {where['machine']}, "
        f"Python {where['python']}.",
        "",
        f"![{TITLES[kind]}]({PICTURES.name}/{drawing.name})",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    known = list(rows(figures, every))
    lines += [f"| {' | '.join(row.cells())} |" for row in known]
    missed = [row for row in known if row.is_met is False]
    if missed:
        lines += ["", "Missed:", ""]
        lines += [f"- {row.shortfall()}" for row in missed]
    return "\n".join(lines) + "\n"


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
