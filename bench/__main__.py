"""``make bench``: one table, ours beside Orthanc's; raw figures as JSON lines in build/bench."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
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
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write the latest figures to {report.DOCUMENT}"
    )
    chosen = parser.parse_args()
    if chosen.write_docs:
        report.write_documentation()
        return
    wanted = [name for name in chosen.only.split(",") if name] or list(kinds.KINDS)
    if unknown := set(wanted) - set(kinds.KINDS):
        parser.error(f"There is no kind {', '.join(sorted(unknown))}; {', '.join(kinds.KINDS)}.")
    # So that whoever ends it also ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    scale = QUICK if chosen.quick else FULL
    broken: list[str] = []
    figures = list(_measure(wanted, chosen.server, scale, chosen.work, broken))
    report.keep(figures)
    report.show(figures)
    print(f"It took {(time.monotonic() - began) / 60:.1f} minutes.")
    if broken or any(figure.errors for figure in figures):
        words = "".join(f"\n{what} could not be measured to the end." for what in broken)
        raise SystemExit(f"There were errors: these figures do not count.{words}")


def _measure(
    wanted: Sequence[str], only: str | None, scale: Scale, work: str, broken: list[str]
) -> Iterator[Figure]:
    """Run kind after kind, and within a kind one server after the other.

    The machine's speed drifts, so what is compared is measured close together. What cannot be
    measured is added to `broken`, and does not keep the rest.
    """
    steps = [
        (kind, name, measure)
        for kind in wanted
        for name, measure in kinds.KINDS[kind]
        if only in (None, name) and not (scale.is_quick and (kind, name) in kinds.NOT_IN_QUICK)
    ]
    ends_at = time.monotonic() + scale.budget_s
    left = sum(kinds.WEIGHTS[kind] for kind, _, _ in steps)
    for kind, name, measure in steps:
        print(f"{kind}, {name}:", flush=True)
        share = (ends_at - time.monotonic()) * kinds.WEIGHTS[kind] / left
        left -= kinds.WEIGHTS[kind]
        figures = measure(kinds.SERVERS[name], scale, work)
        try:
            yield from _until(time.monotonic() + share, figures)
        except Exception as error:  # noqa: BLE001 - an unattended run goes on
            traceback.print_exception(error)
            broken.append(f"{kind}, {name}")


def _until(deadline: float, figures: Iterator[Figure]) -> Iterator[Figure]:
    """Give figures until the time is over; at least one."""
    for figure in figures:
        print(f"  {report.line(figure)}", flush=True)
        yield figure
        if time.monotonic() > deadline:
            print("  The time for this is over; what comes after it is left out.", flush=True)
            break


if __name__ == "__main__":
    main()
