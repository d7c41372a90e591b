"""The people of a day: radiologists who look, and the administrator who decides."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Final

from pacsteward.archive import Selection
from pacsteward.base.errors import NotFound
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query, Single
from pacsteward.security.actor import Actor
from tests.simulation import survey
from tests.simulation.model import Content, concerned, decide
from tests.simulation.scene import Scene
from tests.simulation.world import SEAL_KEY, Broken, CutShort, Refusal

_ADMINISTRATOR: Final = Actor("person", "administrator", frozenset({"*"}))
_CODES: Final = ("113001^DCM", "113037^DCM", "113038^DCM")
_PATIENT_ID: Final = 0x00100020
_STUDY_UID: Final = 0x0020000D


class Radiologist:
    """Sees all that was acknowledged, and nothing else."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._world = scene.world
        self._chance = scene.chance

    def look(self) -> None:
        """Ask for the studies of a patient: nobody sees less than was acknowledged."""
        world = self._world
        examination = self._chance.choice(self._scene.begun())
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
            for one in self._scene.examinations
            if one.order.patient.patient_id == patient_id
        }
        if not world.beliefs.keep(
            lambda picture: said == sorted(uid for uid in mine if picture.shown(uid))
        ):
            raise Broken(f"The studies of {patient_id} are {said}.")

    def open_a_study(self) -> None:
        """Open a study: metadata and every image; the same ETag is the same metadata."""
        world = self._world
        if not world.settle():
            return
        if (study := self._scene.any_study()) is None:
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
            f"opens {self._scene.label(study)}",
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
            raise Broken(f"{self._scene.label(study)} shows {sorted(found)}.")
        if etag and world.etags.setdefault(etag, text) != text:
            raise Broken(f"The ETag {etag} of {self._scene.label(study)} stands for two metadata.")


class Administrator:
    """Hides, shows again and removes, and looks whether all is well."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._world = scene.world
        self._chance = scene.chance

    def reject(self) -> None:
        """Hide what is shown."""
        code = self._chance.choice(_CODES)
        self._decide("rejected", code)

    def restore(self) -> None:
        """Show again what is hidden."""
        self._decide("restored")

    def delete(self) -> None:
        """Remove for good."""
        self._decide("deleted")

    def _decide(self, verb: str, code: str = "") -> None:
        world = self._world
        if not world.settle():
            return
        # What an earlier decision left undone is done with this one.
        world.beliefs.may_have_come_to_light("ledger")
        if (study := self._scene.any_study()) is None:
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
            f"has {what} of {self._scene.label(study)} {verb}",
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
            raise Broken(f"{said} instances of {self._scene.label(study)} were {verb}.")
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

    def verify(self) -> None:
        """Have every byte compared with its checksum."""
        if self._world.settle():
            self._world.verify()

    def seal(self) -> None:
        """Seal the audit book."""
        audit = self._world.process.audit
        self._world.attempt(
            "administrator",
            "seals the audit book",
            lambda: audit.seal(SEAL_KEY),
            words=lambda _: "",
        )
