"""Storing: nothing is acknowledged before it is safe, and everything that was is found again."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pacsteward.archive.containers import stored_data
from pacsteward.archive.fixtures.sender import (
    CT,
    IMPLICIT,
    MIB,
    ORIGIN,
    SMALL,
    data_set,
    meta,
    running,
)
from pacsteward.archive.model import Outcome
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.archive.tables import INSTANCE, PATIENT, SET_ASIDE
from pacsteward.base import faults
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, Invalid, Unavailable


def stored_bytes(house: Any, uid: str) -> bytes:
    with stored_data(house.folder, house.location(uid)) as view:
        return view.read(0, view.size)


def test_success_is_sent_after_write_and_sync_and_in_that_order(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        events: list[str] = []
        monkeypatch.setattr(faults, "reach", events.append)
        house.store(data_set("1.2"), "1.2")
        events.append("answered")
        answered = events[: events.index("answered")]
    before = [event for event in answered if "commit" not in event]
    assert before == ["after-write", "before-fsync", "after-fsync", "before-answer"]


def test_no_success_while_the_sync_hangs(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        reach = faults.reach

        def hang(point: str) -> None:
            if point == "before-fsync":
                gate.wait(10)
            reach(point)

        monkeypatch.setattr(faults, "reach", hang)
        results: list[object] = []
        sender = threading.Thread(
            target=lambda: results.append(house.store(data_set("1.2"), "1.2"))
        )
        sender.start()
        time.sleep(0.2)
        assert results == []
        house.wait()
        assert house.uids() == ["1.1"]
        gate.set()
        sender.join(10)
        assert len(results) == 1


def test_what_was_acknowledged_is_indexed_with_its_bytes(
    tmp_path: Path, database: Database
) -> None:
    data = data_set("1.1", t00081030=("LO", "Skull"))
    with running(tmp_path, database) as house:
        result = house.store(data, "1.1")
        house.wait()
        assert (result.outcome, result.sop_class_uid) == (Outcome.STORED, CT)
        assert (result.study_instance_uid, result.series_instance_uid) == ("1.2.1", "1.2.1.1")
        assert stored_bytes(house, "1.1") == data
        (instance,) = house.rows(INSTANCE)
        assert (instance["instance_number"], instance["instance_order"]) == ("1", 1)
        assert (instance["rows"], instance["columns"], instance["bits_allocated"]) == (
            "16",
            "8",
            "16",
        )
        assert instance["has_pixel_data"]
        assert instance["source_name"] == "CT1"
        study = house.study()
        assert study["patient_name_words"] == "doe^jane"
        assert study["study_description_words"] == "skull"
        assert study["modalities_in_study"] == "\\CT\\"
        assert study["sop_classes_in_study"] == f"\\{CT}\\"
        assert study["number_of_study_related_instances"] == 1
        assert house.facts() == ["study_arrived", "instances_stored"]
        (entry,) = house.audited
        assert entry.objects[0].number_of_instances == 1
        assert "Jane" not in repr(house.audited)


def test_several_senders_of_one_study_give_exact_counts(tmp_path: Path, database: Database) -> None:
    objects = [
        (data_set(f"1.{number}", series=f"1.2.1.{number % 3}", number=number), f"1.{number}")
        for number in range(60)
    ]
    with running(tmp_path, database) as house:
        results = house.store_all(objects)
        assert {result.outcome for result in results} == {Outcome.STORED}  # type: ignore[union-attr]
        house.wait()
        study = house.study()
        assert study["number_of_study_related_instances"] == 60
        assert study["number_of_study_related_series"] == 3
        assert [row["number_of_series_related_instances"] for row in house.series()] == [20] * 3
        assert study["size_bytes"] == sum(len(data) for data, _ in objects)
        assert house.facts().count("study_arrived") == 1


def test_a_later_instance_fills_what_the_first_left_empty_and_changes_nothing_else(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        more = {"t00081030": ("LO", "Skull"), "t00080050": ("SH", "OTHER")}
        house.store(data_set("1.2", **more), "1.2")
        house.wait()
        study = house.study()
        assert (study["study_description"], study["accession_number"]) == ("Skull", "A1")
        assert study["study_description_words"] == "skull"


def test_a_patient_without_an_id_is_kept_and_never_mixed_with_another(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        first = house.store(data_set("1.1", study="1.5", patient_id=""), "1.1")
        house.store(data_set("1.2", study="1.6", patient_id=" "), "1.2")
        house.store(data_set("1.3", study="1.6", patient_id=""), "1.3")
        house.wait()
        assert first.outcome is Outcome.STORED
        assert any("Patient ID" in warning for warning in first.warnings)
        patients = house.rows(PATIENT)
        assert [row["identity_doubt"] for row in patients] == ["missing", "missing"]
        assert sorted(row["only_study_instance_uid"] for row in patients) == ["1.5", "1.6"]


def test_an_illegal_patient_id_is_kept_with_a_warning(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        result = house.store(data_set("1.1", patient_id="A\\B"), "1.1")
        house.wait()
        assert result.warnings
        assert house.study()["identity_doubt"] == "illegal"


def test_the_issuer_of_a_peer_is_taken_for_ids_that_come_without_one(
    tmp_path: Path, database: Database
) -> None:
    from dataclasses import replace

    with running(tmp_path, database) as house:
        origin = replace(ORIGIN, default_issuer_of_patient_id="HOSPITAL")
        house.keeper.store(origin, meta("1.1"), data_set("1.1"))
        own = data_set("1.2", study="1.9", t00100021=("LO", "CLINIC"))
        house.keeper.store(origin, meta("1.2"), own)
        house.wait()
        issuers = sorted(row["issuer_of_patient_id"] for row in house.rows(PATIENT))
        assert issuers == ["CLINIC", "HOSPITAL"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"t00080018": ("", b"")}, "SOP Instance UID"),
        ({"t00080018": ("UI", "1.1 OR 1=1")}, "SOP Instance UID"),
        ({"t00080018": ("UI", "1.9")}, "announced"),
        ({"t00080016": ("UI", "1.2.840.10008.5.1.4.1.1.4")}, "announced"),
        ({"t0020000D": ("", b"")}, "Study Instance UID"),
        ({"t0020000E": ("", b"")}, "Series Instance UID"),
        ({"t0020000E": ("UI", "../../etc")}, "Series Instance UID"),
    ],
)
def test_an_object_that_does_not_say_which_it_is_is_refused(
    tmp_path: Path, database: Database, change: dict[str, Any], word: str
) -> None:
    with running(tmp_path, database) as house:
        with pytest.raises(Invalid) as caught:
            house.store(data_set("1.1", **change), "1.1")
        assert word in caught.value.why
        house.wait()
        assert house.uids() == []


@pytest.mark.parametrize("missing", [1, 9, 100, 255])
def test_an_object_that_was_cut_short_is_never_stored(
    tmp_path: Path, database: Database, missing: int
) -> None:
    with running(tmp_path, database) as house:
        with pytest.raises(Invalid):
            house.store(data_set("1.1")[:-missing], "1.1")
        house.wait()
        assert house.uids() == []


def test_an_abandoned_instance_leaves_nothing_behind(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        for size in (100, 3 * MIB):
            incoming = house.keeper.receive(ORIGIN, meta("1.1"))
            incoming.write(data_set("1.1", pixels=bytes(size)))
            incoming.abandon()
        house.store(data_set("1.2"), "1.2")
        house.wait()
        assert house.uids() == ["1.2"]
    assert list((tmp_path / "objects" / "incoming").iterdir()) == []


@pytest.mark.parametrize("size", [100_000, 300_000])
def test_tiny_fragments_are_copied_together_and_hold_no_buffer(
    tmp_path: Path, database: Database, size: int
) -> None:
    """A sender may cut its object into single bytes; as slices each would take two hundred.

    The second size is that of a big object, which goes to a file of its own.
    """
    settings = ArchiveSettings(segment_bytes=4 * MIB, big_object_bytes=256 * 1024)
    data = data_set("1.1", pixels=bytes(range(250)) * (size // 250))
    with running(tmp_path, database, settings) as house:
        incoming = house.keeper.receive(ORIGIN, meta("1.1"))
        chunk = bytearray(data)
        with memoryview(chunk) as view:
            for place in range(0, len(data) - 5000):
                incoming.write(view[place : place + 1])
        chunk.append(0)  # BufferError as long as anybody holds a slice
        incoming.write(memoryview(data)[-5000:-3])
        incoming.write(memoryview(data)[-3:])
        assert incoming.finish_in_thread().outcome is Outcome.STORED
        house.wait()
        assert stored_bytes(house, "1.1") == data


def test_a_mislabelled_encoding_is_kept_under_its_real_name(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", is_implicit=True), "1.1")
        house.wait()
        (instance,) = house.rows(INSTANCE)
        assert instance["transfer_syntax_uid"] == IMPLICIT


def test_an_aborted_association_waits_until_nobody_uses_its_buffers(
    tmp_path: Path, database: Database
) -> None:
    """The receiver takes its buffers back when `finish` ends, also when it was cancelled."""

    async def abort() -> bool:
        incoming = house.keeper.receive(ORIGIN, meta("1.1"))
        incoming.write(memoryview(data_set("1.1")))
        with faults.armed("before-answer:eio@2"):
            task = asyncio.get_running_loop().create_task(incoming.finish())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return True

    with running(tmp_path, database) as house:
        assert asyncio.run(abort())
        house.wait()
        assert house.uids() == ["1.1"]


def test_success_can_wait_for_the_index(tmp_path: Path, database: Database) -> None:
    settings = SMALL.model_copy(update={"acknowledge": "indexed"})
    with running(tmp_path, database, settings) as house:
        for number in range(5):
            house.store(data_set(f"1.{number}"), f"1.{number}")
            assert len(house.uids()) == number + 1


def test_who_waits_for_an_index_that_is_away_is_answered_when_the_archive_stops(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL.model_copy(update={"acknowledge": "indexed"})
    answers: list[object] = []

    def send() -> None:
        try:
            answers.append(house.store(data_set("1.1"), "1.1"))
        except Unavailable as error:
            answers.append(error)

    def away(*_args: object, **_more: object) -> object:
        raise Unavailable("The database did not answer.")

    with running(tmp_path, database, settings) as house:
        monkeypatch.setattr(database, "write", away)
        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.3)
        assert answers == []
    sender.join(10)
    assert isinstance(answers[0], Unavailable)
    monkeypatch.undo()
    with running(tmp_path, database, settings) as house:
        assert house.uids() == ["1.1"]


def test_instances_are_refused_when_the_disk_is_at_its_reserve(
    tmp_path: Path, database: Database
) -> None:
    settings = ArchiveSettings(reserve_bytes=1 << 60, prepared_segments=0)
    with running(tmp_path, database, settings) as house:
        with pytest.raises(Exhausted) as caught:
            house.store(data_set("1.1"), "1.1")
        assert "reserve" in caught.value.why
        assert house.keeper.watermark.landed == 0


def test_a_record_that_cannot_be_digested_stops_nothing(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacsteward.archive import digest

    real = digest.instance_row

    def fail(landed: Any, header: Any) -> Any:
        if landed.description.sop_instance_uid == "1.2":
            raise ZeroDivisionError("Doe^Jane")
        return real(landed, header)

    monkeypatch.setattr(digest, "instance_row", fail)
    with running(tmp_path, database) as house:
        house.store_all([(data_set(f"1.{number}"), f"1.{number}") for number in (1, 2, 3)])
        house.wait()
        assert house.uids() == ["1.1", "1.3"]
        (row,) = house.rows(SET_ASIDE)
        assert row["sop_instance_uid"] == "1.2"
        assert "Jane" not in row["why"]
        assert "record_set_aside" in house.facts()
        assert house.study()["number_of_study_related_instances"] == 2


def test_text_that_no_database_takes_is_still_indexed(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", t00081030=("LO", b"A\0B\xff\xfe")), "1.1")
        house.wait()
        assert house.uids() == ["1.1"]


def test_a_query_waits_for_what_was_acknowledged_and_no_longer_than_it_may(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacsteward.archive.indexer import Indexer

    gate = threading.Event()
    real = Indexer.index

    def slow(self: Indexer, batch: Any) -> None:
        gate.wait(10)
        real(self, batch)

    monkeypatch.setattr(Indexer, "index", slow)
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        with pytest.raises(Unavailable):
            house.keeper.watermark.wait_until_indexed(0.1)
        gate.set()
        house.wait()
        assert house.uids() == ["1.1"]


def test_a_waiting_reader_makes_the_index_hurry(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacsteward.archive import indexer

    # Longer than anybody waits here.
    monkeypatch.setattr(indexer, "LINGER_S", 3600.0)
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        assert house.uids() == ["1.1"]
