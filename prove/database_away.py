"""R6: PostgreSQL goes away under load and comes back, in good order and by a crash.

It is stopped for a minute, then restarted ten times, every other time as if it had crashed: then
it forgets the transactions of the index that did not wait for its disk, while the archive lives on
and has told the senders Success. What it forgot has to be written again from the landing log.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

import httpx
from tests.support.load import Answer
from tests.support.postgres import Cluster, running_cluster

from prove.promise import Outcome, Promise, Scale
from prove.sites import Site, sending, site

AWAY_S = 60.0
RESTARTS = 10
ANSWER_LIMIT_S = 10.0
RECOVERY_LIMIT_S = 10.0
BETWEEN = 60
"""Acknowledged between two restarts."""

DURABLE = "synchronous_commit = on\n"
"""As PostgreSQL comes; the tests' own server waits for nothing."""


@dataclass(frozen=True)
class Outage:
    """One time without the database."""

    how: str
    away_s: float
    recovered_s: float
    """From its return until an object was acknowledged and a query answered."""


def stop_database(scale: Scale) -> Outcome:
    """R6."""
    away_s, restarts = (5.0, 1) if scale.is_quick else (AWAY_S, RESTARTS)
    with running_cluster(DURABLE) as cluster:
        url = cluster.new_database()
        with site(scale.folder / "site", url) as place, sending(place.load):
            outages = [suffer_outage(place, cluster, signal.SIGINT, away_s)]
            scale.say(f"away for {away_s:.0f} s, back {outages[0].recovered_s:.1f} s after it")
            for number in range(restarts):
                how = signal.SIGINT if number % 2 else signal.SIGQUIT
                outages.append(suffer_outage(place, cluster, how, 0.0))
                scale.say(f"restart {number + 1} of {restarts}: {outages[-1]}")
                place.load.pause()
                place.survey_recent()
                place.load.resume()
            place.load.pause()
            place.survey_all()
            return outcome_of(place, outages)


def suffer_outage(place: Site, cluster: Cluster, how: signal.Signals, away_s: float) -> Outage:
    """Stop the database under load, and wait until all is as before."""
    load = place.load
    load.await_acknowledged(BETWEEN)
    cluster.stop(how)
    stopped_at = time.monotonic()
    time.sleep(away_s)
    cluster.start()
    back_at = time.monotonic()
    load.await_acknowledged(1)
    _await_query(place)
    words = "crash" if how == signal.SIGQUIT else "stop"
    return Outage(words, back_at - stopped_at, time.monotonic() - back_at)


def _await_query(place: Site, timeout_s: float = 60) -> None:
    headers = {"Authorization": f"Bearer {place.token}"}
    deadline = time.monotonic() + timeout_s
    while True:
        with httpx.Client(base_url=place.product.url, headers=headers, timeout=60) as client:
            answer = client.get("/dicom-web/studies", params={"limit": 1})
        if answer.status_code == 200:
            return
        assert time.monotonic() < deadline, f"Queries end in {answer.status_code}: {answer.text}"
        time.sleep(0.05)


def outcome_of(
    place: Site, outages: list[Outage], *, recovery_limit_s: float = RECOVERY_LIMIT_S
) -> Outcome:
    """Say what came of all outages."""
    load, found = place.load, place.findings
    stores = [one for one in load.answers if one.door == "dimse"]
    slow = [one for one in stores if one.seconds > ANSWER_LIMIT_S and one.status != 0]
    wrong = [one for one in stores if one.status not in (0x0000, 0xA700)]
    refused = [one for one in stores if one.status == 0xA700]
    restarted = "process ended" in place.product.output()
    recovered = max(outage.recovered_s for outage in outages)
    crashes = sum(outage.how == "crash" for outage in outages)
    return Outcome(
        found.is_clean
        and not (slow or wrong or restarted or load.surprises)
        and recovered <= recovery_limit_s,
        f"away {outages[0].away_s:.0f} s, {len(outages) - 1} restarts ({crashes} by crash), "
        f"{len(load.acknowledged)} acknowledged, {len(refused)} times A700, longest after "
        f"{_longest(refused):.1f} s, {len(slow) + len(wrong)} wrong or late answers; "
        f"{found.words()}; recovered in {recovered:.1f} s at most, "
        f"{'with' if restarted else 'without'} a restart",
        {
            "outages": [vars(outage) for outage in outages],
            "answers": dict(load.statuses()),
            "surprises": dict(load.surprises),
            "slow": [one.seconds for one in slow][:20],
            "found": found.counts(),
            "examples": found.examples(),
        },
    )


def _longest(answers: list[Answer]) -> float:
    return max((one.seconds for one in answers), default=0.0)


PROMISES = (Promise("R6", "PostgreSQL stopped, and restarted under load", stop_database),)
