"""Search for longer: ``python -m tests.fuzz --minutes 10 header multipart``, or all readers.

Each fault is kept as a file in ``--faults`` (``fuzz-faults`` by default) beside the trace of its
error, once for each place in the code. With ``--atheris`` coverage leads the search; install it
first (``pip install atheris``).

A minimal case for `test_found.py` comes from ``--shrink FILE``.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import sys
import time
import traceback
import warnings
from pathlib import Path

from tests.fuzz.damage import damaged, random_edits
from tests.fuzz.targets import ALL, BY_NAME, Target
from tests.fuzz.watch import TookTooLong, watched

TURN_S = 20.0
"""How long one reader is fed before it is the turn of the next."""


def main() -> int:
    """Search, and return how many faults were found."""
    asked = _arguments()
    # What libraries think of each damage would bury what is found.
    logging.disable()
    warnings.simplefilter("ignore")
    targets = [BY_NAME[name] for name in asked.targets] or list(ALL)
    if asked.shrink:
        return _shrink(targets[0], asked.shrink)
    if asked.atheris:
        from tests.fuzz.led import search

        search(targets[0], asked.minutes * 60, asked.seed)
        return 0
    dice = random.Random(asked.seed)
    end = time.monotonic() + asked.minutes * 60
    counts = dict.fromkeys((target.name for target in targets), 0)
    found: set[str] = set()
    while time.monotonic() < end:
        for target in targets:
            counts[target.name] += _turn(
                target, dice, min(end, time.monotonic() + TURN_S), asked.faults, found
            )
    for name, count in counts.items():
        print(f"{name}: {count} inputs")
    print(f"{len(found)} faults")
    return len(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="reader", help=", ".join(BY_NAME))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=Path, default=Path("fuzz-faults"))
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--shrink", type=Path)
    return parser.parse_args()


def _turn(target: Target, dice: random.Random, end: float, folder: Path, found: set[str]) -> int:
    seeds = target.seeds()
    count = 0
    while time.monotonic() < end:
        data = damaged(dice.choice(seeds), random_edits(dice))
        count += 1
        fault = fault_of(target, data)
        if fault and fault not in found:
            found.add(fault)
            _keep(target, data, fault, folder)
    return count


def fault_of(target: Target, data: bytes) -> str:
    """Return where a reader fails with what it may not; "" when it does not.

    The place is the innermost line of ours, so that one fault is told once.
    """
    try:
        watched(target, data)
    except (Exception, TookTooLong) as error:  # noqa: BLE001 - any is what we look for
        ours = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "pacsteward" in frame.filename or "/fuzz/targets" in frame.filename
        ]
        place = ours[-1] if ours else None
        if isinstance(error, TookTooLong):
            # Where the clock struck says little; which reader it was says enough.
            return f"{target.name} TookTooLong"
        where = f"{Path(place.filename).name}:{place.lineno}" if place else "?"
        return f"{target.name} {type(error).__name__} {where}"
    return ""


def _keep(target: Target, data: bytes, fault: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
    (folder / f"{name}.bin").write_bytes(data)
    try:
        watched(target, data)
    except (Exception, TookTooLong):  # noqa: BLE001
        (folder / f"{name}.txt").write_text(fault + "\n" + traceback.format_exc()[-6000:])
    print(fault, name, flush=True)


def _shrink(target: Target, path: Path) -> int:
    """Take bytes away as long as the same fault remains; print what is left."""
    data = path.read_bytes()
    fault = fault_of(target, data)
    print(fault or "no fault")
    size = len(data) // 2
    while fault and size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if fault_of(target, shorter) == fault:
                data = shorter
            else:
                at += size
        size //= 2
    print(len(data), data)
    return 0 if fault else 1


if __name__ == "__main__":
    sys.exit(main())
