"""What the retrieve room does when something happens elsewhere."""

from __future__ import annotations

from pacsteward.archive import StudyCompleted
from pacsteward.base.events import Fact
from pacsteward.feature import House, Subscription


def prepare_metadata(house: House, fact: Fact) -> None:
    """Have the metadata of a complete study ready before the first reader asks for it."""
    assert isinstance(fact, StudyCompleted)
    house.archive.prepare_metadata(fact.study_instance_uid)


LISTENS = (Subscription("prepare_metadata", (StudyCompleted,), prepare_metadata),)
