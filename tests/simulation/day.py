"""A day: who does what, one act after the other, as chance will have it."""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from pacsteward.archive import Origin, Selection, StoreResult
from pacsteward.base.errors import Invalid, NotFound, PacstewardError
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query, Single
from pacsteward.dicom.part10 import FileMeta
from pacsteward.security.actor import Actor
from tests.simulation import door, survey
from tests.simulation.hospital import (
    Examination,
    all_sent,
    cut_off,
    examinations,
    with_other_pixels,
)
from tests.simulation.model import Content, concerned, decide, store
from tests.simulation.process import Hangs
from tests.simulation.story import Story
from tests.simulation.world import DAY, SEAL_KEY, Broken, CutShort, Refusal, World

STEPS: Final = 130
_SHARE_OF_THE_DOOR: Final = 0.15
_ADMINISTRATOR: Final = Actor("person", "administrator", frozenset({"*"}))
_CODES: Final = ("113001^DCM", "113037^DCM", "113038^DCM")
_PATIENT_ID: Final = 0x00100020
_STUDY_UID: Final = 0x0020000D


@dataclass(frozen=True, slots=True)
class Result:
    """How a day went.

    Parameters
    ----------
    broken
        What must always be true and was not; empty when all was well.
    """

    seed: int
    broken: str
    lines: tuple[str, ...]
    acts: int = 0
    ends: int = 0


class Day:
    """The people of a world and what they do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self._examinations = examinations(world.seed, DAY)
        self._slow: tuple[Examination, Content, Any] | None = None
        self._variants = 0
        self._trouble_ends_at = 0.0

    def run(self) -> None:
        """Have the day pass, hour by hour, and its evening."""
        self._world.begin()
        for step in range(STEPS):
            self._world.clock.advance(self._chance.choice((5, 20, 60, 300, 600)))
            self._pass_trouble()
            self._choose()()
            if step % 25 == 24:
                self._world.check("now and then")
        self._evening()

    def _choose(self) -> Callable[[], None]:
        acts: Sequence[tuple[float, Callable[[], None]]] = (
            (26, self._modality_sends),
            (7, self._modality_sends_again),
            (3, self._modality_sends_in_implicit_vr),
            (5, self._modality_reuses_a_uid),
            (3, self._modality_is_cut_off),
            (2, self._modality_lies),
            (2, self._modality_gives_up),
            (5, self._slow_modality),
            (8, self._reader_looks),
            (4, self._reader_opens),
            (5, self._administrator_rejects),
            (4, self._administrator_restores),
            (5, self._administrator_deletes),
            (1.5, self._administrator_verifies),
            (1, self._administrator_rebuilds),
            (1.5, self._administrator_seals),
            (2, self._house_reopens),
            (8, self._house_goes_on),
            (6, self._indexer_catches_up),
            (5, self._porter_tidies),
            (2, self._clock_jumps),
            (2, self._trouble_comes),
        )
        (act,) = self._chance.choices([act for _, act in acts], [weight for weight, _ in acts])
        return act

    # --- modalities -------------------------------------------------------------------------

    def _modality_sends(self) -> None:
        waiting = [one for one in self._examinations[: self._begun()] if one.unsent]
        if not waiting:
            return
        examination = self._chance.choice(waiting)
        if self._chance.random() < 0.3:
            batch = list(examination.unsent)[: self._chance.randint(2, 4)]
            self._send_together(examination, batch)
            return
        for content in list(examination.unsent)[: self._chance.randint(1, 4)]:
            if not self._send(examination, content):
                return

    def _begun(self) -> int:
        passed = self._world.clock.monotonic() / 3600 * 1.6
        return 2 + int(passed)

    def _modality_sends_again(self) -> None:
        if chosen := self._any_sent():
            self._send(*chosen)

    def _modality_sends_in_implicit_vr(self) -> None:
        if chosen := self._any_sent():
            examination, content = chosen
            self._send(examination, examination.in_implicit_vr(content))

    def _modality_reuses_a_uid(self) -> None:
        if chosen := self._any_sent():
            examination, content = chosen
            # Now and then the same second content comes again.
            self._variants += self._chance.choice((0, 1, 1))
            self._send(examination, with_other_pixels(content, self._variants))

    def _modality_is_cut_off(self) -> None:
        if chosen := self._any():
            examination, content = chosen
            spoiled = cut_off(content, self._chance)
            self._send_what_is_refused(examination, spoiled, _meta(spoiled))

    def _modality_lies(self) -> None:
        if chosen := self._any():
            examination, content = chosen
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

    def _modality_gives_up(self) -> None:
        if chosen := self._any():
            examination, content = chosen

            def begin_and_abandon() -> None:
                incoming = self._world.process.archive.receive(_origin(examination), _meta(content))
                incoming.write(memoryview(content.data)[: len(content.data) // 2])
                incoming.abandon()

            self._world.attempt(
                examination.actor, f"begins {content.label} and hangs up", begin_and_abandon
            )

    def _slow_modality(self) -> None:
        """Begin an object now and end it later: others come in between."""
        if self._slow is not None:
            self._end_slow()
        elif chosen := self._any():
            examination, content = chosen
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
                self._slow = (examination, content, (self._world.process, said))

    def _end_slow(self) -> None:
        assert self._slow is not None
        examination, content, (process, incoming) = self._slow
        self._slow = None
        if process is not self._world.process:
            self._world.tell(examination.actor, f"finds the connection of {content.label} gone")
            return

        def end() -> StoreResult:
            incoming.write(memoryview(content.data)[len(content.data) // 3 :])
            result: StoreResult = incoming.finish_in_thread()
            return result

        self._store(examination, content, f"ends {content.label}", end)

    def _let_slow_go(self) -> None:
        """Hang up before the archive is closed, as the door does."""
        if self._slow is not None:
            examination, content, (process, incoming) = self._slow
            self._slow = None
            if process is self._world.process:
                process.act(incoming.abandon)
                self._world.tell(examination.actor, f"is cut off from {content.label}")

    def _send(self, examination: Examination, content: Content) -> bool:
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
    ) -> bool:
        change = store(content, examination.actor)
        said = self._world.attempt(
            examination.actor, what, deed, changes=[change], may_last=True, words=_outcome
        )
        if isinstance(said, CutShort):
            return False
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
                one = Refusal(one, trouble)
            elif isinstance(one, BaseException):
                raise one
            self._answered(examination, content, one)

    # --- readers ----------------------------------------------------------------------------

    def _reader_looks(self) -> None:
        """Ask for the studies of a patient: nobody sees less than was acknowledged."""
        world = self._world
        examination = self._chance.choice(self._examinations[: self._begun()])
        patient_id = examination.order.patient.patient_id
        if not world.settle():
            return
        query = Query(
            Level.STUDY, criteria={_PATIENT_ID: Single(patient_id)}, returns=(_STUDY_UID,)
        )
        archive = world.process.archive
        said = world.attempt(
            "radiologist",
            f"looks for the studies of {examination.label}'s patient",
            lambda: sorted(match.values[_STUDY_UID] for match in archive.find(query)),
            words=lambda uids: f"{len(uids)} studies",
        )
        if isinstance(said, CutShort):
            return
        if isinstance(said, Refusal):
            world.must_have_reason(said)
            return
        mine = {
            one.order.study_instance_uid
            for one in self._examinations
            if one.order.patient.patient_id == patient_id
        }
        if not world.beliefs.keep(
            lambda picture: said == sorted(uid for uid in mine if picture.shown(uid))
        ):
            raise Broken(f"The studies of {patient_id} are {said}.")

    def _reader_opens(self) -> None:
        """Open a study: metadata and every image; the same ETag is the same metadata."""
        world = self._world
        if not world.settle():
            return
        if (study := self._any_study()) is None:
            return
        process = world.process

        def open_it() -> tuple[str, str, dict[str, str]]:
            try:
                etag, pieces = process.archive.metadata(study, base_url="https://h/")
            except NotFound:
                return "", "", {}
            text = b"".join(pieces)
            process.audit.record_access(Actor("person", "radiologist", frozenset()), [study])
            found = {}
            for instance in process.archive.instances(Selection(study_instance_uids=(study,))):
                with process.archive.open(instance) as stored:
                    found[instance.sop_instance_uid] = survey.digest_of(stored.data_set())
            return etag, hashlib.sha256(text).hexdigest(), found

        said = world.attempt(
            "radiologist",
            f"opens {self._label(study)}",
            open_it,
            words=lambda answer: f"{len(answer[2])} images",
        )
        if isinstance(said, CutShort):
            return
        if isinstance(said, Refusal):
            world.must_have_reason(said)
            return
        etag, text, found = said
        if not world.beliefs.keep(
            lambda picture: (
                found == {uid: content.digest for uid, content in picture.shown(study).items()}
            )
        ):
            raise Broken(f"{self._label(study)} shows {sorted(found)}.")
        if etag and world.etags.setdefault(etag, text) != text:
            raise Broken(f"The ETag {etag} of {self._label(study)} stands for two metadata.")

    # --- the administrator ------------------------------------------------------------------

    def _administrator_rejects(self) -> None:
        code = self._chance.choice(_CODES)
        self._decide("rejected", code)

    def _administrator_restores(self) -> None:
        self._decide("restored")

    def _administrator_deletes(self) -> None:
        self._decide("deleted")

    def _decide(self, verb: str, code: str = "") -> None:
        world = self._world
        if not world.settle():
            return
        # What an earlier decision left undone is done with this one.
        world.beliefs.may_have_come_to_light("ledger")
        if (study := self._any_study()) is None:
            return
        of_study = {
            uid: one.content
            for uid, one in world.beliefs.picture.kept.items()
            if one.content.study == study
        }
        selection, what = self._selection(study, of_study)
        uids = [
            uid
            for uid, content in of_study.items()
            if uid in selection.sop_instance_uids
            or content.series in selection.series_instance_uids
            or content.study in selection.study_instance_uids
        ]
        archive = world.process.archive
        deed = {
            "rejected": partial(archive.reject, code=code),
            "restored": archive.restore,
            "deleted": archive.delete,
        }[verb]
        change = decide(verb, uids, "administrator", code)
        said = world.attempt(
            "administrator",
            f"has {what} of {self._label(study)} {verb}",
            lambda: deed(selection, actor=_ADMINISTRATOR),
            changes=[change],
            words=lambda count: f"{count} instances",
        )
        if isinstance(said, CutShort):
            return
        if isinstance(said, Refusal):
            world.must_have_reason(said)
            world.beliefs.may_have_happened([change])
            world.beliefs.may_happen_at_a_start(change, "ledger")
            return
        if not world.beliefs.keep(lambda picture: len(concerned(picture, verb, uids)) == said):
            raise Broken(f"{said} instances of {self._label(study)} were {verb}.")
        if said:
            world.beliefs.settled("ledger")
        world.beliefs.happened(change)
        if not world.beliefs.is_certain:
            world.check("after a decision that was in doubt")

    def _selection(self, study: str, of_study: dict[str, Content]) -> tuple[Selection, str]:
        uids = sorted(of_study)
        which = self._chance.random()
        if which < 0.25 or not uids:
            return Selection(study_instance_uids=(study,)), "all"
        if which < 0.45:
            series = self._chance.choice(sorted({one.series for one in of_study.values()}))
            return Selection(series_instance_uids=(series,)), "a series"
        chosen = self._chance.sample(uids, self._chance.randint(1, min(3, len(uids))))
        return Selection(sop_instance_uids=tuple(chosen)), f"{len(chosen)} images"

    def _administrator_verifies(self) -> None:
        if self._world.settle():
            self._world.verify()

    def _administrator_rebuilds(self) -> None:
        if not self._world.process.database.is_away:
            self._let_slow_go()
            self._world.rebuild()

    def _administrator_seals(self) -> None:
        audit = self._world.process.audit
        self._world.attempt(
            "administrator",
            "seals the audit book",
            lambda: audit.seal(SEAL_KEY),
            words=lambda _: "",
        )

    # --- the house --------------------------------------------------------------------------

    def _house_reopens(self) -> None:
        if not self._world.process.database.is_away:
            self._let_slow_go()
            self._world.reopen()

    def _house_goes_on(self) -> None:
        if not self._world.settle():
            return
        said = self._world.attempt(
            "the house", "tells facts and runs jobs", self._world.afterwards.go_on
        )
        if isinstance(said, Refusal):
            self._world.outside.disturbed()
            self._world.must_have_reason(said)

    def _indexer_catches_up(self) -> None:
        self._world.settle()

    def _porter_tidies(self) -> None:
        if not self._world.settle():
            return
        spares = self._world.process.keeper._spares

        def tidy() -> None:
            spares._is_busy = lambda: False
            try:
                spares._reclaim_all()
                if spares._is_short():
                    spares._prepare()
            except (OSError, PacstewardError):
                # As its own thread does: it is for comfort only.
                return

        self._world.attempt("the porter", "uses segments anew", tidy)

    def _clock_jumps(self) -> None:
        hours = self._chance.choice((-3600, -600, -1, 1, 600, 3600))
        self._world.clock.jump(hours)
        self._world.tell("the clock", f"jumps by {hours} s")

    # --- trouble that lasts ------------------------------------------------------------------

    def _trouble_comes(self) -> None:
        world = self._world
        self._trouble_ends_at = world.clock.monotonic() + self._chance.choice((60, 600, 1800))
        kind = self._chance.choice(("away", "away", "full", "answer"))
        if kind == "away":
            world.process.database.is_away = True
            world.tell("the database", "does not answer any more")
        elif kind == "full":
            world.process.free_bytes = 0
            world.tell("the disk", "has reached its reserve")
        else:
            world.process.database.loses_answers = 1
            world.tell("the database", "will not confirm its next commit")

    def _pass_trouble(self) -> None:
        process = self._world.process
        is_over = self._world.clock.monotonic() >= self._trouble_ends_at
        if is_over and process.database.is_away:
            process.database.is_away = False
            self._world.tell("the database", "is back")
        if is_over and not process.free_bytes:
            process.free_bytes = 1 << 40
            self._world.tell("the disk", "has room again")

    # --- the evening -------------------------------------------------------------------------

    def _evening(self) -> None:
        """Have everything come to its end, and look at all of it once more."""
        world = self._world
        world.is_calm = True
        self._trouble_ends_at = 0.0
        world.process.database.loses_answers = 0
        self._pass_trouble()
        self._let_slow_go()
        world.tell("the world", "is calm from now on")
        while not all_sent(self._examinations):
            for examination in self._examinations:
                for content in list(examination.unsent):
                    if not self._send(examination, content):
                        raise Broken(f"{content.label} was refused without a reason.")
        world.check("in the evening")
        world.reopen()
        for _ in range(8):
            world.clock.advance(600)
            self._house_goes_on()
        self._everything_followed()
        world.verify()
        world.rebuild()
        world.verify()

    def _everything_followed(self) -> None:
        world = self._world
        database = world.process.database
        if waiting := survey.unfinished(database):
            raise Broken(f"Something never ends: {waiting[:5]}")
        if behind := world.afterwards.behind():
            raise Broken(f"Facts were not told: {behind}")
        versions = [
            (fact["study_instance_uid"], fact["version"])
            for fact in survey.facts(database, "study_completed")
        ]
        if len(set(versions)) != len(versions):
            raise Broken("A study was announced as complete twice in the same version.")
        outside = world.outside
        for key, count in world.beliefs.picture.announced.items():
            told = outside.told[key]
            if not count <= told <= count + outside.disturbances:
                raise Broken(f"{key} was announced {count} times and told {told} times.")
        for study in world.beliefs.picture.studies():
            for uid, content in world.beliefs.picture.shown(study).items():
                if outside.peer.get((study, uid)) != content.digest:
                    raise Broken(f"The slow peer has not got {content.label}.")

    # --- choosing ---------------------------------------------------------------------------

    def _any(self) -> tuple[Examination, Content] | None:
        examination = self._chance.choice(self._examinations[: self._begun()])
        return examination, self._chance.choice(examination.contents)

    def _any_sent(self) -> tuple[Examination, Content] | None:
        """Return something that was acknowledged once; it may have been deleted since."""
        sent = [
            (one, content)
            for one in self._examinations[: self._begun()]
            for content in one.contents
            if content not in one.unsent
        ]
        return self._chance.choice(sent) if sent else None

    def _any_study(self) -> str | None:
        studies = sorted(self._world.beliefs.picture.studies())
        return self._chance.choice(studies) if studies else None

    def _label(self, study: str) -> str:
        return next(
            one.label for one in self._examinations if one.order.study_instance_uid == study
        )


def live(
    seed: int,
    folder: Path,
    template: Path,
    *,
    database_url: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Result:
    """Live the day of a seed.

    Parameters
    ----------
    folder
        Empty.
    template
        An embedded database with all tables.
    database_url
        PostgreSQL with all tables, to be used instead.
    say
        Given each line of the story.
    """
    story = Story(say)
    world = World(seed, folder, database_url, template, story)
    broken = ""
    try:
        Day(world).run()
    except (Broken, Hangs) as error:
        broken = str(error)
    except Exception:  # noqa: BLE001 — whatever it is, the story ends with it, and is told
        broken = f"Nobody expected this:\n{traceback.format_exc()}"
    try:
        world.leave()
    except Hangs as error:
        broken = broken or str(error)
    return Result(seed, broken, tuple(story.lines), len(story.lines), sum(world.ends.values()))


def _outcome(result: object) -> str:
    if isinstance(result, StoreResult | door.Said):
        return str(result.outcome)
    return f"refused: {result.kind}" if isinstance(result, PacstewardError) else str(result)


def _origin(examination: Examination) -> Origin:
    return Origin("dimse", examination.actor, "192.0.2.7", f"a-{examination.actor}")


def _meta(content: Content) -> FileMeta:
    return FileMeta(content.sop_class_uid, content.uid, content.syntax)
