"""Faults: every named place of the write path fails, or is slow, while the archive is at work.

Four DIMSE senders and one STOW-RS sender send without a break. At each place (`base/faults.py`)
something goes wrong twenty times in one run of the product: an input/output error, a full disk, or
half a second in which nothing happens. R2 kills there instead.

A failure may cost a sender a refusal that tells it to try again, and nothing else: no process
ends, nobody hears a wrong answer, and when the faults have passed all that was acknowledged is
there. What is slow costs nobody anything but time.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tests.support.load import Load

from pacsteward.base.faults import POINTS, STRIKES, VARIABLE
from prove.kills import RARE
from prove.promise import Outcome, Promise, Scale
from prove.sites import PROCESS_ENDED, Say, Site, on_each_database

DEEDS = ("eio", "enospc", "wait")
TIMES = 20
COMMITS = ("before-commit", "after-commit")
"""Places that are reached a few times a second: the index is written in batches."""
STRIKE_TIMEOUT_S = 120.0
ANSWERS = frozenset(
    {"dimse 0000", "dimse A700", "stow 200", "stow 202", "stow 409", "stow 503", "stow 507"}
)
"""What may be heard. 202 and 409 are those of a request whose instances were refused in part, or
all; the reason of each stands in it."""


@dataclass(frozen=True)
class Struck:
    """What came of one place and deed."""

    strikes: int
    processes_ended: int


def harm_every_place(scale: Scale) -> Outcome:
    """Faults."""
    times = 3 if scale.is_quick else TIMES

    def harm(place: Site, say: Say) -> Outcome:
        found: dict[str, Struck] = {}
        chance = random.Random(scale.seed)
        for point in POINTS:
            for deed in DEEDS:
                found[f"{point} {deed}"] = strike(place, point, deed, times, chance)
            say(f"{point}: {_strikes(found, point)} faults, {place.findings.words()}")
        place.load.pause()
        wrong = wrong_answers(place.load)
        ended = sum(one.processes_ended for one in found.values())
        return Outcome(
            all(one.strikes >= times for one in found.values()) and not ended and not wrong,
            f"{len(POINTS)} places x {len(DEEDS)} x {times}, {_strikes(found)} faults, "
            f"{ended} processes ended, {len(wrong)} wrong answers",
            {
                "strikes": {name: one.strikes for name, one in found.items()},
                "ended": {name: one.processes_ended for name, one in found.items()},
            },
        )

    return on_each_database(scale, harm)


def strike(place: Site, point: str, deed: str, times: int, chance: random.Random) -> Struck:
    """Have `deed` happen so often at `point` under load, then see what is there."""
    product = place.product
    product.kill()
    seen = product.log_file.stat().st_size
    product.start(**{VARIABLE: _armed(point, deed, times, chance)})
    said = b""
    deadline = time.monotonic() + STRIKE_TIMEOUT_S
    while time.monotonic() < deadline:
        said = place.log_from(seen)
        if said.count(STRIKES.encode()) >= times:
            break
        time.sleep(0.02)
    place.load.await_acknowledged(20)
    place.pause_and_survey()
    return Struck(said.count(STRIKES.encode()), said.count(PROCESS_ENDED))


def _armed(point: str, deed: str, times: int, chance: random.Random) -> str:
    """Choose when: after the start, and with something that goes well in between.

    A start reaches no place so often. One that fails in it ends, and says why.
    """
    number, faults = 30 if point in COMMITS else 100, []
    for _ in range(times):
        number += chance.randint(2, 4 if point in (*RARE, *COMMITS) else 20)
        faults.append(f"{point}:{deed}@{number}")
    return ",".join(faults)


def wrong_answers(load: Load) -> set[str]:
    """Give the answers that were heard and should not have been; to hear none is not wrong."""
    return {answer for answer in load.statuses() if "no answer" not in answer} - ANSWERS


def _strikes(found: dict[str, Struck], point: str = "") -> int:
    return sum(one.strikes for name, one in found.items() if name.startswith(point))


PROMISES = (Promise("Faults", "Failures and delays at every named place", harm_every_place),)
