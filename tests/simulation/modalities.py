"""The modalities of a day: they send, again, twice, under a wrong name, slowly, or hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pacsteward.archive import Origin, StoreResult
from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.part10 import FileMeta
from tests.simulation import door
from tests.simulation.hospital import Examination, cut_off, with_other_pixels
from tests.simulation.model import Content, store
from tests.simulation.process import Process
from tests.simulation.scene import Scene
from tests.simulation.trouble import Trouble
from tests.simulation.world import Broken, CutShort, Refusal

_SHARE_OF_THE_DOOR: Final = 0.15


@dataclass(frozen=True, slots=True)
class _Slow:
    """An object of which only the beginning was sent."""

    examination: Examination
    content: Content
    process: Process
    incoming: Any
    trouble: Trouble | None
    """What was armed meanwhile: a disk that failed then is told of at the end."""


class Modalities:
    """All that send, one act after the other."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._world = scene.world
        self._chance = scene.chance
        self._slow: _Slow | None = None
        self._variants = 0

    def send_what_waits(self) -> None:
        """Send some of what a running examination has made."""
        waiting = [one for one in self._scene.begun() if one.unsent]
        if not waiting:
            return
        examination = self._chance.choice(waiting)
        if self._chance.random() < 0.3:
            batch = list(examination.unsent)[: self._chance.randint(2, 4)]
            self._send_together(examination, batch)
            return
        for content in list(examination.unsent)[: self._chance.randint(1, 4)]:
            if not self.send(examination, content):
                return

    def send_again(self) -> None:
        """Send something that was acknowledged before."""
        if chosen := self._scene.any_sent():
            self.send(*chosen)

    def send_in_implicit_vr(self) -> None:
        """Send it again in another transfer syntax."""
        if chosen := self._scene.any_sent():
            examination, content = chosen
            self.send(examination, examination.in_implicit_vr(content))

    def reuse_a_uid(self) -> None:
        """Send other content under a UID that is taken."""
        if chosen := self._scene.any_sent():
            examination, content = chosen
            # Now and then the same second content comes again.
            self._variants += self._chance.choice((0, 1, 1))
            self.send(examination, with_other_pixels(content, self._variants))

    def be_cut_off(self) -> None:
        """Send an object that ends too early."""
        examination, content = self._scene.any()
        spoiled = cut_off(content, self._chance)
        self._send_what_is_refused(examination, spoiled, _meta(spoiled))

    def lie(self) -> None:
        """Announce an object under another UID than its own."""
        examination, content = self._scene.any()
        meta = replace(_meta(content), media_storage_sop_instance_uid="1.2.3.4")
        content = replace(content, label=f"{content.label} under a wrong name")
        self._send_what_is_refused(examination, content, meta)

    def _send_what_is_refused(
        self, examination: Examination, content: Content, meta: FileMeta
    ) -> None:
        archive = self._world.process.archive
        said = self._world.attempt(
            examination.actor,
            f"sends {content.label}",
            lambda: archive.store(_origin(examination), meta, content.data),
            words=_outcome,
        )
        if isinstance(said, CutShort):
            return
        if not isinstance(said, Refusal):
            raise Broken(f"{content.label} was taken.")
        if not isinstance(said.error, Invalid):
            self._world.must_have_reason(said)

    def give_up(self) -> None:
        """Begin an object and hang up."""
        examination, content = self._scene.any()

        def begin_and_abandon() -> None:
            incoming = self._world.process.archive.receive(_origin(examination), _meta(content))
            incoming.write(memoryview(content.data)[: len(content.data) // 2])
            incoming.abandon()

        self._world.attempt(
            examination.actor, f"begins {content.label} and hangs up", begin_and_abandon
        )

    def be_slow(self) -> None:
        """Begin an object now and end it later: others come in between."""
        if self._slow is not None:
            self._end_slow()
            return
        examination, content = self._scene.any()
        archive = self._world.process.archive

        def begin() -> Any:
            incoming = archive.receive(_origin(examination), _meta(content))
            incoming.write(memoryview(content.data)[: len(content.data) // 3])
            return incoming

        said = self._world.attempt(
            examination.actor,
            f"begins {content.label}, slowly",
            begin,
            words=lambda _incoming: "",
        )
        if not isinstance(said, CutShort | Refusal):
            world = self._world
            self._slow = _Slow(examination, content, world.process, said, world.last_trouble)

    def _end_slow(self) -> None:
        assert self._slow is not None
        slow, self._slow = self._slow, None
        who, what = slow.examination.actor, slow.content.label
        if slow.process is not self._world.process:
            self._world.tell(who, f"finds the connection of {what} gone")
            return

        def end() -> StoreResult:
            data = memoryview(slow.content.data)
            slow.incoming.write(data[len(data) // 3 :])
            result: StoreResult = slow.incoming.finish_in_thread()
            return result

        self._store(slow.examination, slow.content, f"ends {what}", end, earlier=slow.trouble)

    def let_slow_go(self) -> None:
        """Hang up before the archive is closed, as the door does."""
        slow, self._slow = self._slow, None
        if slow is not None and slow.process is self._world.process:
            slow.process.act(slow.incoming.abandon)
            self._world.tell(slow.examination.actor, f"is cut off from {slow.content.label}")

    def send(self, examination: Examination, content: Content) -> bool:
        """Send one object; true when it is acknowledged."""
        process = self._world.process
        archive = process.archive
        if self._chance.random() < _SHARE_OF_THE_DOOR:
            return self._store(
                examination,
                content,
                f"C-STOREs {content.label}",
                lambda: process.run(door.send(archive, content, examination.actor)),
            )
        return self._store(
            examination,
            content,
            f"sends {content.label}",
            lambda: archive.store(_origin(examination), _meta(content), content.data),
        )

    def _store(
        self,
        examination: Examination,
        content: Content,
        what: str,
        deed: Callable[[], StoreResult | door.Said],
        *,
        earlier: Trouble | None = None,
    ) -> bool:
        change = store(content, examination.actor)
        said = self._world.attempt(
            examination.actor, what, deed, changes=[change], may_last=True, words=_outcome
        )
        if isinstance(said, CutShort):
            return False
        if isinstance(said, Refusal) and earlier is not None and earlier.struck_at:
            said = replace(said, trouble=earlier)
        return self._answered(examination, content, said)

    def _answered(
        self, examination: Examination, content: Content, said: StoreResult | door.Said | Refusal
    ) -> bool:
        world, change = self._world, store(content, examination.actor)
        if isinstance(said, Refusal):
            world.must_have_reason(said)
            if said.trouble is not None and said.trouble.struck_at:
                world.beliefs.may_happen_at_a_start(change, "landing")
            return False
        outcome = str(said.outcome)
        # By now it is clear what became of an earlier decision: what is here stays.
        world.beliefs.may_have_come_to_light("ledger")
        heard = ("stored", "already_here") if outcome == "success" else (outcome,)
        if not world.beliefs.keep(lambda picture: picture.expects(content) in heard):
            raise Broken(
                f"The archive answered {outcome} to {content.label}, and should have answered "
                f"{world.beliefs.picture.expects(content)}."
            )
        if outcome == "stored":
            world.beliefs.settled("landing")
        world.beliefs.happened(change)
        if content in examination.unsent:
            examination.unsent.remove(content)
        return True

    def _send_together(self, examination: Examination, batch: Sequence[Content]) -> None:
        """Send several objects over as many associations, in one moment."""
        world = self._world
        process = world.process
        lost = process.database.answers_lost

        async def send(content: Content) -> StoreResult:
            incoming = process.archive.receive(_origin(examination), _meta(content))
            incoming.write(memoryview(content.data))
            return await incoming.finish()

        async def send_all() -> list[Any]:
            tasks = [asyncio.ensure_future(send(content)) for content in batch]
            with process.together():
                # Each task runs to the point where it has handed its object in.
                for _ in range(3):
                    await asyncio.sleep(0)
                while process.threads_are_busy():
                    await asyncio.sleep(0.001)
            return await asyncio.gather(*tasks, return_exceptions=True)

        said = world.attempt(
            examination.actor,
            f"sends {len(batch)} objects at once, the first {batch[0].label}",
            lambda: process.run(send_all()),
            changes=[store(content, examination.actor) for content in batch],
            words=lambda answers: ", ".join(_outcome(one) for one in answers),
        )
        if isinstance(said, CutShort):
            return
        trouble = said.trouble if isinstance(said, Refusal) else world.last_trouble
        answers = [said.error] * len(batch) if isinstance(said, Refusal) else said
        for content, one in zip(batch, answers, strict=True):
            if isinstance(one, PacstewardError):
                one = Refusal(one, trouble, process.database.answers_lost > lost)
            elif isinstance(one, BaseException):
                raise one
            self._answered(examination, content, one)


def _outcome(result: object) -> str:
    if isinstance(result, StoreResult | door.Said):
        return str(result.outcome)
    return f"refused: {result.kind}" if isinstance(result, PacstewardError) else str(result)


def _origin(examination: Examination) -> Origin:
    return Origin("dimse", examination.actor, "192.0.2.7", f"a-{examination.actor}")


def _meta(content: Content) -> FileMeta:
    return FileMeta(content.sop_class_uid, content.uid, content.syntax)
