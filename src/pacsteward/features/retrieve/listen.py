"""What the retrieve room does when something happens elsewhere."""

from __future__ import annotations

from contextlib import suppress

from pacsteward.archive import StudyCompleted
from pacsteward.base.errors import NotFound
from pacsteward.base.events import Fact
from pacsteward.feature import House, Subscription


def prepare_metadata(house: House, fact: Fact) -> None:
    """Have the metadata of a complete study ready before the first reader asks for it."""
    assert isinstance(fact, StudyCompleted)
    # One that was rejected or deleted meanwhile has no readers, and must not hold up the others.
    with suppress(NotFound):
        house.archive.prepare_metadata(fact.study_instance_uid)


LISTENS = (Subscription("prepare_metadata", (StudyCompleted,), prepare_metadata),)
