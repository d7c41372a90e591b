"""``make bench``: one table, ours beside Orthanc's; raw figures as JSON lines in build/bench."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import objects
from bench.load import Load, store
from bench.servers import Server, orthanc, pacsteward

OUTPUT = Path("build/bench")


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of load."""

    name: str
    make: Callable[[int, int], list[objects.Encoded]]
    count: int
    quick_count: int
    associations: int


@dataclass(frozen=True, slots=True)
class Figure:
    """What one server did in one kind of load; medians over the rounds."""

    work: str
    server: str
    safe: str
    rate: float
    rates: tuple[float, ...]
    mb_per_s: float
    cpu_ms_each: float
    latency_p50_ms: float
    latency_p99_ms: float
    memory_mb: float
    errors: int


WORKS = (
    Work("C-STORE W1 (525 KB) x1", objects.w1, 400, 150, 1),
    Work("C-STORE W1 (525 KB) x4", objects.w1, 800, 300, 4),
    Work("C-STORE W2 (10-26 KB) x4", objects.w2, 4000, 1500, 4),
)


def main() -> None:
    """Run all loads against all servers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer objects and rounds")
    parser.add_argument("--only", choices=("pacsteward", "orthanc"), help="one server alone")
    chosen = parser.parse_args()
    rounds = 2 if chosen.quick else 3
    figures = []
    for name, start in (("pacsteward", pacsteward), ("orthanc", orthanc)):
        if chosen.only not in (None, name):
            continue
        with (
            tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder,
            start(Path(folder)) as server,
        ):
            for work in WORKS:
                count = work.quick_count if chosen.quick else work.count
                figures.append(_measure(server, work, count, rounds))
    _keep(figures)
    _show(figures)
    if any(figure.errors for figure in figures):
        raise SystemExit("There were errors: these figures do not count.")


def _measure(server: Server, work: Work, count: int, rounds: int) -> Figure:
    """Warm up, then measure `rounds` times with new UIDs each."""
    store(server.port, server.ae_title, work.make(900 + work.associations, 40), work.associations)
    loads: list[Load] = []
    cpu: list[float] = []
    for number in range(rounds):
        batch = work.make(100 * work.associations + number, count)
        before = server.cpu_seconds()
        loads.append(store(server.port, server.ae_title, batch, work.associations))
        cpu.append((server.cpu_seconds() - before) / count * 1000)
        print(f"  {server.name}: {work.name}: {loads[-1].rate:.0f}/s", flush=True)
    rates = tuple(round(load.rate, 1) for load in loads)
    return Figure(
        work=work.name,
        server=server.name,
        safe=server.safe,
        rate=statistics.median(rates),
        rates=rates,
        mb_per_s=statistics.median(load.size_bytes / load.seconds / 1e6 for load in loads),
        cpu_ms_each=statistics.median(cpu),
        latency_p50_ms=statistics.median(load.latency_p50_ms for load in loads),
        latency_p99_ms=statistics.median(load.latency_p99_ms for load in loads),
        memory_mb=server.memory_bytes() / 1e6,
        errors=sum(load.errors for load in loads),
    )


def _keep(figures: list[Figure]) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    where = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    with (OUTPUT / "figures.jsonl").open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps(where | asdict(figure)) + "\n")


def _show(figures: list[Figure]) -> None:
    table = Table(title="C-STORE, safe before Success", box=None, header_style="bold")
    for column in (
        "work",
        "server",
        "/s",
        "MB/s",
        "CPU ms each",
        "p50 ms",
        "p99 ms",
        "MB",
        "errors",
    ):
        table.add_column(column, justify="left" if column in ("work", "server") else "right")
    table.add_column("ratio", justify="right")
    peers = {figure.work: figure.rate for figure in figures if figure.server == "Orthanc"}
    for figure in sorted(figures, key=lambda one: [work.name for work in WORKS].index(one.work)):
        peer = peers.get(figure.work)
        ratio = f"{figure.rate / peer:.1f} x" if peer and figure.server != "Orthanc" else ""
        table.add_row(
            figure.work,
            figure.server,
            f"{figure.rate:.0f}",
            f"{figure.mb_per_s:.0f}",
            f"{figure.cpu_ms_each:.2f}",
            f"{figure.latency_p50_ms:.1f}",
            f"{figure.latency_p99_ms:.1f}",
            f"{figure.memory_mb:.0f}",
            str(figure.errors),
            ratio,
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
