"""``make bench``: one table, ours beside Orthanc's; raw figures as JSON lines in build/bench."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

from bench import kinds, report
from bench.figure import Figure
from bench.scale import FULL, QUICK, Scale


def main() -> None:
    """Run the chosen kinds of work against all servers and print the table."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer objects and rounds")
    parser.add_argument(
        "--only", default="", help=f"kinds of work, with commas: {', '.join(kinds.KINDS)}"
    )
    parser.add_argument("--server", choices=kinds.SERVERS, help="one server alone")
    parser.add_argument("--work", default="", help="only works whose name contains this")
    chosen = parser.parse_args()
    wanted = [name for name in chosen.only.split(",") if name] or list(kinds.KINDS)
    if unknown := set(wanted) - set(kinds.KINDS):
        parser.error(f"There is no kind {', '.join(sorted(unknown))}; {', '.join(kinds.KINDS)}.")
    began = time.monotonic()
    figures = list(_measure(wanted, chosen.server, QUICK if chosen.quick else FULL, chosen.work))
    report.keep(figures)
    report.show(figures)
    print(f"It took {(time.monotonic() - began) / 60:.1f} minutes.")
    if any(figure.errors for figure in figures):
        raise SystemExit("There were errors: these figures do not count.")


def _measure(wanted: Sequence[str], only: str | None, scale: Scale, work: str) -> Iterator[Figure]:
    """Run kind after kind, and within a kind one server after the other.

    The machine's speed drifts, so what is compared is measured close together.
    """
    for kind in wanted:
        for name, measure in kinds.KINDS[kind]:
            if only not in (None, name):
                continue
            print(f"{kind}, {name}:", flush=True)
            for figure in measure(kinds.SERVERS[name], scale, work):
                print(f"  {report.line(figure)}", flush=True)
                yield figure


if __name__ == "__main__":
    main()
