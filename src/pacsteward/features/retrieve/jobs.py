"""Work of the retrieve room: sending studies to peers, fetching studies from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from pacsteward.base.errors import Kind
from pacsteward.base.jobs import JobKind, Retry
from pacsteward.feature import House, Job
from pacsteward.features.retrieve.elsewhere import fetch_study, send_study
from pacsteward.security import HOUSE, Actor

PATIENCE = Retry(
    max_attempts=6,
    first_delay_s=5.0,
    factor=3.0,
    max_delay_s=900.0,
    # A study or peer that is not there does not come back by waiting.
    hopeless=frozenset({Kind.INVALID, Kind.UNSUPPORTED, Kind.NOT_FOUND}),
)


def ordered_by(actor: Actor) -> tuple[str, str, str]:
    """Return who ordered a job, as its argument."""
    return actor.kind, actor.name, actor.address


def _send(
    house: House,
    *,
    study_instance_uid: str,
    destination: str,
    ordered_by: Sequence[Any] = ordered_by(HOUSE),
) -> dict[str, Any]:
    by = _actor(ordered_by)
    return asdict(send_study(house, study_instance_uid, destination, by=by))


def _fetch(
    house: House,
    *,
    study_instance_uid: str,
    source: str,
    how: Literal["move", "get"] = "move",
    ordered_by: Sequence[Any] = ordered_by(HOUSE),
) -> dict[str, Any]:
    return asdict(fetch_study(house, study_instance_uid, source, how, by=_actor(ordered_by)))


def _actor(ordered_by: Sequence[Any]) -> Actor:
    kind, name, address = ordered_by
    return Actor(kind, name, frozenset(), address)


SEND_STUDY = Job(
    JobKind("send_study", "Send a study to a peer", retry=PATIENCE, concurrency=2), _send
)
FETCH_STUDY = Job(
    JobKind("fetch_study", "Fetch a study from a peer", retry=PATIENCE, concurrency=2), _fetch
)
