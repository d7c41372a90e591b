"""What follows from what happened: facts are told, jobs run, a slow peer gets its studies.

Subscribers and jobs are told at least once, so again after a crash. What must not happen twice is
what somebody outside could see: `Outside` stands for everybody outside, and outlives each process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from pacsteward.archive import (
    ContentConflicted,
    InstancesDeleted,
    InstancesRejected,
    InstancesRestored,
    InstancesStored,
    Selection,
    StudyArrived,
    StudyCompleted,
)
from pacsteward.base.errors import NotFound, Unavailable
from pacsteward.base.events import Dispatcher, Fact, Subscriber, cursors
from pacsteward.base.jobs import JobEngine, JobKind, JobQueue, Retry, Work
from pacsteward.features.retrieve.listen import LISTENS
from tests.simulation import survey
from tests.simulation.model import digest_of

if TYPE_CHECKING:
    from tests.simulation.world import World

ALL_FACTS: Final = (
    ContentConflicted,
    InstancesDeleted,
    InstancesRejected,
    InstancesRestored,
    InstancesStored,
    StudyArrived,
    StudyCompleted,
)
_FORWARD: Final = JobKind(
    "forward_study", "Forward a study", retry=Retry(max_attempts=50, first_delay_s=60.0, factor=1.0)
)


@dataclass(slots=True)
class Outside:
    """Who hears of the archive.

    Attributes
    ----------
    told
        How often each thing was told, by fact and UID.
    peer
        What the slow peer has: digest by study and UID.
    disturbances
        How often a process ended, or a commit failed, on the way from a fact to the note that it
        was told: so often it may be told again.
    """

    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    peer: dict[tuple[str, str], str] = field(default_factory=dict)
    disturbances: int = 0

    def disturbed(self) -> None:
        """Count."""
        self.disturbances += 1


class Afterwards:
    """Dispatcher, queue and engine of one process."""

    def __init__(self, world: World) -> None:
        process = world.process
        self._world = world
        self._archive = process.archive
        self._queue = JobQueue(process.database, world.clock)
        house: Any = SimpleNamespace(archive=process.archive)
        self._subscribers = [
            Subscriber("register", ALL_FACTS, self._register),
            Subscriber("forward", (StudyCompleted, InstancesRestored), self._forward),
            *(Subscriber(one.name, one.facts, partial(one.handler, house)) for one in LISTENS),
        ]
        self._dispatcher = Dispatcher(process.database, self._subscribers, clock=world.clock)
        self._database = process.database
        self._engine = JobEngine(process.database, [Work(_FORWARD, self._send)], world.clock)

    def go_on(self) -> None:
        """Announce complete studies, tell facts, run jobs."""
        self._archive._watch.look()
        self._dispatcher.drain()
        self._engine.drain()

    def behind(self) -> list[str]:
        """Return the subscribers that have not been told everything."""
        views = cursors(self._database, self._subscribers)
        return [f"{view.subscriber}: {view.last_error}" for view in views if view.behind]

    def _register(self, fact: Fact) -> None:
        self._world.outside.told.update(
            (fact.name, uid) for uid in survey.subjects(fact.name, asdict(fact))
        )

    def _forward(self, fact: Fact) -> None:
        assert isinstance(fact, StudyCompleted | InstancesRestored)
        uid = fact.study_instance_uid
        self._queue.enqueue(_FORWARD.name, key=uid, study=uid)

    def _send(self, *, study: str) -> int:
        """Send what is shown of a study to the slow peer; it fails in the middle now and then."""
        sent = 0
        for instance in self._archive.instances(Selection(study_instance_uids=(study,))):
            if not self._world.is_calm and self._world.chance.random() < 0.1:
                raise Unavailable("The peer did not answer.")
            try:
                with self._archive.open(instance) as stored:
                    content = digest_of(stored.data_set())
            except NotFound:
                continue
            self._world.outside.peer[study, instance.sop_instance_uid] = content
            sent += 1
        return sent
