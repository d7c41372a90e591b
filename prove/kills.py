"""R1 and R2: the product is killed in mid-ingest, at random moments and at every named place.

The whole process group gets SIGKILL while four DIMSE senders and one STOW-RS sender send without a
break, also through the restart. After each kill what was sent lately is read back; at the end
everything is, by QIDO-RS, WADO-RS and C-FIND at three levels.
"""

from __future__ import annotations

import random
import statistics
import time

from pacsteward.base.faults import POINTS, VARIABLE
from prove.promise import Outcome, Promise, Scale
from prove.sites import PROCESS_ENDED, Say, Site, on_each_database

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

    def harm(place: Site, say: Say) -> Outcome:
        restarts = random_kills(place, kills, wanted, random.Random(scale.seed), say)
        return Outcome(
            max(restarts) <= RESTART_LIMIT_S and len(place.load.acknowledged) >= wanted,
            f"{kills} kills, restart median {statistics.median(restarts):.1f} s, "
            f"longest {max(restarts):.1f} s",
            {"kills": kills, "restarts_s": restarts},
        )

    return on_each_database(scale, harm)


def random_kills(
    place: Site, kills: int, wanted: int, chance: random.Random, say: Say
) -> list[float]:
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
        found = place.pause_and_survey()
        if kill % 10 == 0 or not found.is_clean:
            say(
                f"{kill} of {kills} kills, {len(load.acknowledged)} acknowledged, "
                f"{place.findings.words()}, restart {restarts[-1]:.1f} s"
            )
    return restarts


def kill_at_fault_points(scale: Scale) -> Outcome:
    """R2."""
    turns = 1 if scale.is_quick else TURNS

    def harm(place: Site, say: Say) -> Outcome:
        hits = dict.fromkeys(POINTS, 0)
        starting = 0
        chance = random.Random(scale.seed)
        for point in POINTS:
            for turn in range(turns):
                # Every fourth turn is aimed at the start, where few calls are made.
                most = 3 if turn % 4 == 3 else 8 if point in RARE else 60
                was_hit, was_ready = kill_at(place, point, chance.randint(1, most))
                hits[point] += was_hit
                starting += was_hit and not was_ready
            say(f"{point}: hit {hits[point]} of {turns}, {place.findings.words()}")
        return Outcome(
            all(hits.values()),
            f"{len(POINTS)} points x {turns}, killed there {sum(hits.values())} times "
            f"({starting} while starting)",
            {"hits": hits, "while_starting": starting},
        )

    return on_each_database(scale, harm)


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
    place.pause_and_survey()
    return was_hit, was_ready


def _await_death(place: Site) -> tuple[bool, bool]:
    """Wait until the supervisor says that a process of it was killed."""
    product = place.product
    assert product.process is not None
    seen = product.log_file.stat().st_size
    was_ready = False
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        said = place.log_from(seen)
        if not was_ready and b"is ready after" in said:
            was_ready, deadline = True, time.monotonic() + REACH_TIMEOUT_S
        if PROCESS_ENDED in said:
            return True, was_ready
        if product.process.poll() is not None:
            return True, was_ready
        time.sleep(0.02)
    return False, was_ready


PROMISES = (
    Promise("R1", "SIGKILL at random moments, 4 DIMSE + 1 STOW-RS senders", kill_at_random),
    Promise("R2", "SIGKILL at every fault point, and while starting", kill_at_fault_points),
)
