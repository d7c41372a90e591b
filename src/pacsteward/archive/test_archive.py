"""The vault as a whole, on both databases: stored, found, read, hidden, shown, removed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import generate_uid
from sqlalchemy import func, select

from pacsteward.archive import Archive, ArchiveSettings, Origin, Outcome, Selection
from pacsteward.archive.completeness import CompletenessWatch
from pacsteward.archive.tables import INSTANCE, PATIENT, SERIES, STUDY
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Conflict, Invalid, NotFound, Unavailable
from pacsteward.base.events import FactLog
from pacsteward.base.events.log import Position
from pacsteward.dicom.attributes import Level, tag_of
from pacsteward.dicom.dicomjson import to_json
from pacsteward.dicom.matching import Query, Single
from pacsteward.dicom.part10 import FileMeta
from pacsteward.security.actor import Actor
from pacsteward.security.audit import AuditBook
from pacsteward.security.audit_rows import AuditFilter

ORIGIN = Origin("import", "CT1", address="192.0.2.1")
ANNE = Actor("person", "anne", frozenset({"*"}))
EXPLICIT = "1.2.840.10008.1.2.1"


class House:
    """An archive with its keeper on a loop of its own, and a reader beside it."""

    def __init__(self, folder: Path, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.clock = clock
        self.facts = FactLog(clock)
        self.audit = AuditBook(database, clock)
        settings = ArchiveSettings(
            segment_bytes=8 << 20, prepared_segments=0, reserve_bytes=0, study_quiet_s=60
        )
        parts = (folder, database, settings, clock, self.facts, self.audit)
        self.keeper = Archive.as_keeper(*parts)
        self.reader = Archive.as_reader(*parts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self.reader.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def names_of_facts(self) -> list[str]:
        with self.database.read() as connection:
            return [entry.name for entry in self.facts.after(connection, Position())]

    def rows(self) -> list[int]:
        self.reader.set_aside()  # waits for the index
        with self.database.read() as connection:
            return [
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (PATIENT, STUDY, SERIES, INSTANCE)
            ]


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path / "data", database, ManualClock())
    opened.run(opened.keeper.start())
    yield opened
    opened.run(opened.keeper.stop())
    opened.close()


@pytest.fixture
def ct() -> Dataset:
    return dcmread(get_testdata_file("CT_small.dcm"))


def encoded(dataset: Dataset) -> tuple[FileMeta, bytes]:
    buffer = BytesIO()
    writer = DicomIO(buffer)
    writer.is_little_endian, writer.is_implicit_VR = True, False
    write_dataset(writer, dataset)
    return FileMeta(dataset.SOPClassUID, dataset.SOPInstanceUID, EXPLICIT), buffer.getvalue()


def send(archive: Archive, dataset: Dataset, **changes: Any) -> str:
    for keyword, value in {"SOPInstanceUID": generate_uid(), **changes}.items():
        setattr(dataset, keyword, value)
    result = archive.store(ORIGIN, *encoded(dataset))
    assert result.outcome is Outcome.STORED
    return result.sop_instance_uid


def study_query(uid: str, *returns: str) -> Query:
    return Query(
        Level.STUDY,
        {tag_of("StudyInstanceUID"): Single(uid)},
        returns=tuple(map(tag_of, returns)),
    )


def test_c68_what_was_acknowledged_is_found_at_once(house: House, ct: Dataset) -> None:
    for number in range(1, 21):
        uid = send(house.reader, ct, InstanceNumber=number)
        (match,) = house.reader.find(
            study_query(ct.StudyInstanceUID, "NumberOfStudyRelatedInstances", "PatientName")
        )
        assert match.values[tag_of("NumberOfStudyRelatedInstances")] == str(number)
        assert match.values[tag_of("PatientName")] == "CompressedSamples^CT1"
        assert house.reader.instance("", "", uid).instance_number == str(number)
        assert len(house.reader.instances(Selection((), (ct.StudyInstanceUID,)))) == number


def test_a_study_without_a_patient_id_is_kept_and_marked(house: House, ct: Dataset) -> None:
    send(house.reader, ct)
    assert house.reader.doubtful_patients() == []
    send(house.reader, ct, PatientID="", StudyInstanceUID=generate_uid())
    (marked,) = house.reader.doubtful_patients()
    assert (marked.study_instance_uid, marked.identity_doubt) == (ct.StudyInstanceUID, "missing")


def test_what_was_stored_is_read_back_byte_for_byte(house: House, ct: Dataset) -> None:
    uid = send(house.keeper, ct)
    _meta, data = encoded(ct)
    with house.reader.open(house.reader.instance("", "", uid)) as stored:
        assert stored.data_set() == data
        assert dcmread(BytesIO(stored.head() + stored.data_set())) == ct


def test_frames_metadata_and_bulk_data_of_a_stored_image(house: House, ct: Dataset) -> None:
    uid = send(house.reader, ct)
    instance = house.reader.instance("", "", uid)
    table = house.reader.frames(instance)
    assert (table.rows, table.columns, table.number_of_frames) == (128, 128, 1)
    assert house.reader.frames(instance) is table
    etag, pieces = house.reader.metadata(ct.StudyInstanceUID, base_url="https://x/dicom-web")
    (one,) = json.loads(b"".join(pieces))
    path = one["7FE00010"]["BulkDataURI"].partition("/bulkdata/")[2]
    assert house.reader.bulk_data(instance, path) == (
        ct.PixelData,
        "application/octet-stream",
    )
    assert house.reader.etag(ct.StudyInstanceUID) == etag
    send(house.reader, ct, InstanceNumber=2)
    assert house.reader.etag(ct.StudyInstanceUID) != etag


def test_c27_c79_attributes_outside_the_index_come_from_an_object(
    house: House, ct: Dataset
) -> None:
    item = Dataset()
    item.CodeMeaning = "Chest"
    send(house.reader, ct, ProcedureCodeSequence=[item])
    private = 0x00091027
    asked = Query(
        Level.STUDY,
        {tag_of("StudyInstanceUID"): Single(ct.StudyInstanceUID)},
        returns=(tag_of("ProcedureCodeSequence"), private, tag_of("StudyDate"), 0x00E11010),
    )
    (match,) = house.reader.find(asked)
    assert match.more is not None
    assert match.more.ProcedureCodeSequence[0].CodeMeaning == "Chest"
    assert match.more[private].value == 862399669
    assert match.more[0x00090010].value == "GEMS_IDEN_01"
    assert 0x00E11010 not in match.more
    assert match.values[tag_of("StudyDate")] == ct.StudyDate
    (plain,) = house.reader.find(study_query(ct.StudyInstanceUID, "StudyDate"))
    assert plain.more is None


def test_c28_texts_outside_the_index_are_read_in_their_own_character_set(
    house: House, ct: Dataset
) -> None:
    item = Dataset()
    item.CodeMeaning = "Череп"
    ct.SpecificCharacterSet = "ISO_IR 144"
    ct.PatientName = "Люкceмбypг"
    ct.DerivationDescription = "Резкость"
    ct.ProcedureCodeSequence = [item]
    ct.add_new(0x00189073, "LO", "half")
    meta, data = encoded(ct)
    # Half a number: the device's fault, and no reason to hide the rest.
    assert b"LO\x04\x00half" in data
    data = data.replace(b"LO\x04\x00half", b"FD\x04\x00half")
    house.reader.store(ORIGIN, meta, data)
    tags = tuple(map(tag_of, ("DerivationDescription", "ProcedureCodeSequence")))
    asked = Query(
        Level.STUDY,
        {tag_of("StudyInstanceUID"): Single(ct.StudyInstanceUID)},
        returns=(*tags, 0x00189073, tag_of("PatientName")),
    )
    (match,) = house.reader.find(asked)
    assert match.values[tag_of("PatientName")] == "Люкceмбypг"
    assert match.more is not None
    assert 0x00189073 not in match.more
    model = to_json(match.more, bulk_data_uri=lambda _path: None)
    assert model["00082111"]["Value"] == ["Резкость"]
    assert model["00081032"]["Value"][0]["00080104"]["Value"] == ["Череп"]
    assert match.more.DerivationDescription == "Резкость"
    assert match.more.ProcedureCodeSequence[0].CodeMeaning == "Череп"


def test_rejected_instances_are_hidden_until_they_are_restored(house: House, ct: Dataset) -> None:
    first, second = send(house.reader, ct), send(house.reader, ct)
    only = Selection(sop_instance_uids=(first,))
    etag = house.reader.etag(ct.StudyInstanceUID)
    assert house.reader.reject(only, code="113001^DCM", actor=ANNE) == 1
    assert house.reader.reject(only, code="113001^DCM", actor=ANNE) == 0
    with pytest.raises(NotFound):
        house.reader.instance("", "", first)
    shown = house.reader.instances(Selection(study_instance_uids=(ct.StudyInstanceUID,)))
    assert [one.sop_instance_uid for one in shown] == [second]
    every = house.reader.instances(Selection((), (ct.StudyInstanceUID,)), with_rejected=True)
    assert {one.sop_instance_uid: one.rejected_for for one in every} == {
        first: "113001^DCM",
        second: "",
    }
    assert house.reader.etag(ct.StudyInstanceUID) != etag
    _etag, pieces = house.reader.metadata(ct.StudyInstanceUID, base_url="")
    assert len(json.loads(b"".join(pieces))) == 1
    house.reader.reject(Selection((), (ct.StudyInstanceUID,)), code="113037^DCM", actor=ANNE)
    assert list(house.reader.find(study_query(ct.StudyInstanceUID))) == []
    assert house.reader.restore(Selection((), (ct.StudyInstanceUID,)), actor=ANNE) == 2
    (match,) = house.reader.find(study_query(ct.StudyInstanceUID, "NumberOfStudyRelatedInstances"))
    assert match.values[tag_of("NumberOfStudyRelatedInstances")] == "2"
    assert house.names_of_facts()[-3:] == [
        "instances_rejected",
        "instances_rejected",
        "instances_restored",
    ]
    said = [entry.what for entry in house.audit.entries(AuditFilter(actor="anne"))]
    assert "anne: 1 instance(s) were rejected for 113001^DCM." in said
    assert "anne: 2 instance(s) were restored." in said


def test_deleting_takes_empty_series_studies_and_patients_along(house: House, ct: Dataset) -> None:
    one = send(house.reader, ct)
    send(house.reader, ct, SeriesInstanceUID=generate_uid())
    assert house.rows() == [1, 1, 2, 2]
    assert house.reader.delete(Selection(sop_instance_uids=(one,)), actor=ANNE) == 1
    assert house.rows() == [1, 1, 1, 1]
    assert house.keeper.delete(Selection((), (ct.StudyInstanceUID,)), actor=ANNE) == 1
    assert house.rows() == [0, 0, 0, 0]
    assert house.names_of_facts()[-2:] == ["instances_deleted", "instances_deleted"]
    assert "study_arrived" in house.names_of_facts()


def test_a_change_that_names_nothing_is_refused(house: House, ct: Dataset) -> None:
    send(house.reader, ct)
    for selection in (Selection(), Selection(patient_ids=(ct.PatientID,))):
        with pytest.raises(Invalid, match="Nothing was changed"):
            house.reader.delete(selection, actor=ANNE)
    with pytest.raises(Invalid, match="Nothing was rejected"):
        house.reader.reject(Selection((), (ct.StudyInstanceUID,)), code=" ", actor=ANNE)
    assert house.rows() == [1, 1, 1, 1]


def test_a_command_deletes_while_the_house_is_closed(
    database: Database, tmp_path: Path, ct: Dataset
) -> None:
    house = House(tmp_path / "data", database, ManualClock())
    house.run(house.keeper.start())
    send(house.reader, ct)
    house.run(house.keeper.stop())
    assert house.reader.delete(Selection((), (ct.StudyInstanceUID,)), actor=ANNE) == 1
    assert house.rows() == [0, 0, 0, 0]
    house.close()


def test_a_second_keeper_is_refused(house: House, tmp_path: Path) -> None:
    other = Archive.as_keeper(
        tmp_path / "data",
        house.database,
        ArchiveSettings(),
        house.clock,
        house.facts,
        house.audit,
    )
    with pytest.raises(Conflict):
        house.run(other.start())


def test_storing_without_a_keeper_is_said_to_be_temporary(
    database: Database, tmp_path: Path, ct: Dataset
) -> None:
    house = House(tmp_path / "data", database, ManualClock())
    with pytest.raises(Unavailable):
        house.reader.store(ORIGIN, *encoded(ct))
    house.close()


def test_a_quiet_study_is_complete_once_and_again_after_a_late_arrival(
    house: House, ct: Dataset
) -> None:
    watch = CompletenessWatch(house.database, house.facts, house.clock)
    send(house.reader, ct)
    list(house.reader.find(study_query(ct.StudyInstanceUID)))
    house.clock.advance(59)
    assert watch.look() == 0
    house.clock.advance(2)
    # The archive's own watch may be first; announced it is once.
    watch.look()
    assert house.names_of_facts().count("study_completed") == 1
    house.clock.advance(1000)
    assert watch.look() == 0
    send(house.reader, ct, InstanceNumber=2)
    list(house.reader.find(study_query(ct.StudyInstanceUID)))
    house.clock.advance(61)
    watch.look()
    assert house.names_of_facts().count("study_completed") == 2
