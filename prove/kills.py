"""R1 and R2: the product is killed in mid-ingest, at random moments and at every named place.

The whole process group gets SIGKILL while four DIMSE senders and one STOW-RS sender send without a
break, also through the restart. After each kill what was sent lately is read back; at the end
everything is, by QIDO-RS, WADO-RS and C-FIND at three levels.
"""

from __future__ import annotations

import random
import statistics
import time

from tests.support.survey import Findings

from pacsteward.base.faults import POINTS, VARIABLE
from prove.promise import Outcome, Promise, Scale
from prove.sites import KINDS, Site, beneath, database, sending, site

KILLS = 200
ACKNOWLEDGED = 20_000
RESTART_LIMIT_S = 20.0
WHILE_STARTING = 10
"""Every tenth kill comes while it starts."""

TURNS = 20
START_TIMEOUT_S = 60.0
REACH_TIMEOUT_S = 10.0
"""So long it may send, once it is ready, without the place being reached so often."""
RARE = ("after-open", "after-rename", "after-dirsync")
"""Places that are reached with a new segment or a big object only."""


def kill_at_random(scale: Scale) -> Outcome:
    """R1."""
    kills = 5 if scale.is_quick else KILLS
    wanted = 400 if scale.is_quick else ACKNOWLEDGED
    figures, details, is_kept = [], {}, True
    for kind in KINDS:
        say = beneath(scale.say, kind)
        with database(kind) as url, site(scale.folder / kind, url) as place, sending(place.load):
            restarts = random_kills(place, kills, wanted, random.Random(scale.seed), say)
            place.load.pause()
            last = place.survey_all()
            found, load = place.findings, place.load
            is_kept &= (
                found.is_clean
                and max(restarts) <= RESTART_LIMIT_S
                and len(load.acknowledged) >= wanted
                and not load.surprises
            )
            figures.append(
                f"{kind}: {kills} kills, {len(load.acknowledged)} acknowledged, {found.words()}, "
                f"restart median {statistics.median(restarts):.1f} s, longest {max(restarts):.1f} s"
            )
            details[kind] = _details(place, last) | {"kills": kills, "restarts_s": restarts}
    return Outcome(is_kept, "; ".join(figures), details)


def random_kills(place: Site, kills: int, wanted: int, chance: random.Random, say) -> list[float]:  # type: ignore[no-untyped-def]
    """Kill and restart so often, and survey each time; return how long the restarts took."""
    restarts = []
    product, load = place.product, place.load
    for kill in range(1, kills + 1):
        share = max(20, (wanted - len(load.acknowledged)) // (kills - kill + 1))
        load.await_acknowledged(share)
        time.sleep(chance.uniform(0, 0.3))
        product.kill()
        if kill % WHILE_STARTING == 0:
            product.launch()
            time.sleep(chance.uniform(0, 2.0))
            product.kill()
        product.start()
        restarts.append(round(product.started_in_s, 2))
        load.pause()
        found = place.survey_recent()
        load.resume()
        if kill % 10 == 0 or not found.is_clean:
            say(
                f"{kill} of {kills} kills, {len(load.acknowledged)} acknowledged, "
                f"{place.findings.words()}, restart {restarts[-1]:.1f} s"
            )
    return restarts


def kill_at_fault_points(scale: Scale) -> Outcome:
    """R2."""
    turns = 1 if scale.is_quick else TURNS
    figures, details, is_kept = [], {}, True
    for kind in KINDS:
        say = beneath(scale.say, kind)
        with database(kind) as url, site(scale.folder / kind, url) as place, sending(place.load):
            hits: dict[str, int] = {}
            starting = 0
            chance = random.Random(scale.seed)
            for point in POINTS:
                for turn in range(turns):
                    # Every fourth turn is aimed at the start, where few calls are made.
                    most = 3 if turn % 4 == 3 else 8 if point in RARE else 60
                    number = chance.randint(1, most)
                    was_hit, was_ready = kill_at(place, point, number)
                    hits[point] = hits.get(point, 0) + was_hit
                    starting += was_hit and not was_ready
                say(f"{point}: hit {hits[point]} of {turns}, {place.findings.words()}")
            place.load.pause()
            last = place.survey_all()
            is_kept &= place.findings.is_clean and not place.load.surprises
            is_kept &= all(hits[point] for point in POINTS)
            figures.append(
                f"{kind}: {len(POINTS)} points x {turns}, killed there {sum(hits.values())} times "
                f"({starting} while starting), {len(place.load.acknowledged)} acknowledged, "
                f"{place.findings.words()}"
            )
            details[kind] = _details(place, last) | {"hits": hits, "while_starting": starting}
    return Outcome(is_kept, "; ".join(figures), details)


def kill_at(place: Site, point: str, number: int) -> tuple[bool, bool]:
    """Have the product kill itself the `number`-th time that it reaches `point`; survey after.

    Returns
    -------
    bool, bool
        Whether it got there in time, and whether it had been ready by then.
    """
    product = place.product
    product.kill()
    product.launch(**{VARIABLE: f"{point}:kill@{number}"})
    was_hit, was_ready = _await_death(place)
    product.kill()
    product.start()
    place.load.pause()
    place.survey_recent()
    place.load.resume()
    return was_hit, was_ready


def _await_death(place: Site) -> tuple[bool, bool]:
    """Wait until the supervisor says that a process of it was killed."""
    product = place.product
    assert product.process is not None
    seen = product.log_file.stat().st_size
    was_ready = False
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with product.log_file.open("rb") as log:
            log.seek(seen)
            said = log.read()
        if not was_ready and b"is ready after" in said:
            was_ready, deadline = True, time.monotonic() + REACH_TIMEOUT_S
        if b"process ended; it is started again" in said:
            return True, was_ready
        if product.process.poll() is not None:
            return True, was_ready
        time.sleep(0.02)
    return False, was_ready


def _details(place: Site, last: Findings) -> dict[str, object]:
    return {
        "acknowledged": len(place.load.acknowledged),
        "tried": len(place.load.tried),
        "read_back": place.findings.checked,
        "read_back_at_the_end": last.checked,
        "found": place.findings.counts(),
        "examples": place.findings.examples(),
        "answers": dict(place.load.statuses()),
        "surprises": dict(place.load.surprises),
    }


PROMISES = (
    Promise("R1", "SIGKILL at random moments, 4 DIMSE + 1 STOW-RS senders", kill_at_random),
    Promise("R2", "SIGKILL at every fault point, and while starting", kill_at_fault_points),
)
