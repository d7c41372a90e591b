"""R10: one UID, different content: never a plain Success for what is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pacsteward.archive.fixtures.sender import (
    EXPLICIT,
    IMPLICIT,
    MIB,
    ORIGIN,
    SMALL,
    House,
    data_set,
    meta,
    running,
)
from pacsteward.archive.model import Outcome, StoreResult
from pacsteward.archive.tables import CONFLICT, INSTANCE
from pacsteward.base.db import Database


def outcomes(results: list[StoreResult | Exception]) -> list[Outcome]:
    assert all(isinstance(result, StoreResult) for result in results), results
    return sorted(result.outcome for result in results)  # type: ignore[union-attr]


def test_the_same_content_again_is_success_without_a_second_copy(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        # Before and after it is indexed.
        for _ in range(2):
            landed = house.keeper.watermark.landed
            assert house.store(data_set("1.1"), "1.1").outcome is Outcome.ALREADY_HERE
            assert house.keeper.watermark.landed == landed
            house.wait()
        assert len(house.rows(INSTANCE)) == 1
        assert house.rows(CONFLICT) == []


def test_other_content_is_kept_beside_and_a_human_sees_it(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", number=1), "1.1")
        for _ in range(2):
            # The same second content is not kept a third time.
            result = house.store(data_set("1.1", number=2), "1.1")
            assert result.outcome is Outcome.CONFLICT
            house.wait()
        (conflict,) = house.rows(CONFLICT)
        assert conflict["sop_instance_uid"] == "1.1"
        assert conflict["source_name"] == "CT1"
        assert conflict["settled_as"] == ""
        (instance,) = house.rows(INSTANCE)
        assert instance["instance_number"] == "1"
        assert house.facts().count("content_conflicted") == 1
        assert house.store(data_set("1.1", number=1), "1.1").outcome is Outcome.ALREADY_HERE


def test_content_of_the_same_size_and_checksum_is_still_compared(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacsteward.archive import incoming

    monkeypatch.setattr(incoming, "checksum_of", lambda _data, _seed=0: 4711)
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", number=1), "1.1")
        assert house.store(data_set("1.1", number=2), "1.1").outcome is Outcome.CONFLICT


def test_two_senders_at_once_store_one_copy(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        results = house.store_all([(data_set("1.1"), "1.1")] * 8)
        assert outcomes(results) == [Outcome.ALREADY_HERE] * 7 + [Outcome.STORED]
        house.wait()
        assert len(house.rows(INSTANCE)) == 1


def test_different_contents_at_once_are_all_kept_and_none_is_plain_success(
    tmp_path: Path, database: Database
) -> None:
    objects = [(data_set("1.1", number=number), "1.1") for number in (1, 2, 3, 1, 2, 3)]
    with running(tmp_path, database) as house:
        results = outcomes(house.store_all(objects))
        house.wait()
        assert results.count(Outcome.STORED) == 1
        assert results.count(Outcome.ALREADY_HERE) == 1
        assert results.count(Outcome.CONFLICT) == 4
        assert len(house.rows(CONFLICT)) == 2


def test_the_same_object_in_implicit_vr_is_the_same(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        same = data_set("1.1", is_implicit=True)
        assert house.store(same, "1.1", IMPLICIT).outcome is Outcome.ALREADY_HERE
        other = data_set("1.1", is_implicit=True, number=5)
        assert house.store(other, "1.1", IMPLICIT).outcome is Outcome.CONFLICT


def test_group_lengths_make_no_difference(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        padded = data_set("1.1", t00080000=("UL", b"\0\1\0\0"))
        assert house.store(padded, "1.1").outcome is Outcome.ALREADY_HERE


def encoded(dataset: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = syntax == IMPLICIT
    dataset.file_meta.TransferSyntaxUID = syntax
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def test_a_compressed_object_is_compared_by_its_pixels(tmp_path: Path, database: Database) -> None:
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    uid = dataset.SOPInstanceUID
    plain = encoded(dataset, ExplicitVRLittleEndian)
    dataset.compress(RLELossless, generate_instance_uid=False)
    compressed = encoded(dataset, RLELossless)
    changed = bytearray(plain)
    changed[-200] ^= 1

    with running(tmp_path, database) as house:
        store = house.keeper.store
        assert store(ORIGIN, meta(uid, EXPLICIT), plain).outcome is Outcome.STORED
        assert store(ORIGIN, meta(uid, RLELossless), compressed).outcome is Outcome.ALREADY_HERE
        assert store(ORIGIN, meta(uid, EXPLICIT), bytes(changed)).outcome is Outcome.CONFLICT


def test_a_big_object_again_leaves_one_file(tmp_path: Path, database: Database) -> None:
    data = data_set("1.1", pixels=bytes(3 * MIB))
    with running(tmp_path, database) as house:
        house.store(data, "1.1")
        assert house.store(data, "1.1").outcome is Outcome.ALREADY_HERE
        other = data_set("1.1", pixels=b"\1" * (3 * MIB))
        assert house.store(other, "1.1").outcome is Outcome.CONFLICT
    assert list((tmp_path / "objects" / "incoming").iterdir()) == []
    assert len(list((tmp_path / "objects").glob("??/*.dcm"))) == 2


def test_damaged_stored_bytes_never_make_a_whole_copy_be_refused(
    tmp_path: Path, database: Database
) -> None:
    data = data_set("1.1", pixels=bytes(3 * MIB))
    with running(tmp_path, database) as house:
        house.store(data, "1.1")
        house.wait()
        for path in (tmp_path / "objects").glob("??/*.dcm"):
            path.unlink()
        assert house.store(data, "1.1").outcome is Outcome.CONFLICT
        house.wait()
        assert len(house.rows(CONFLICT)) == 1


def test_a_deleted_instance_is_stored_anew_and_a_rejected_one_stays_hidden(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.store(data_set("1.2"), "1.2")
        change(house, "deleted", "1.1")
        change(house, "rejected", "1.2", code="113001^DCM")
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
        again = house.store(data_set("1.2"), "1.2")
        assert again.outcome is Outcome.ALREADY_HERE
        assert "113001^DCM" in again.warnings[0]
        house.wait()
        rejected = {row["sop_instance_uid"]: row["rejected_for"] for row in house.rows(INSTANCE)}
        assert rejected == {"1.1": "", "1.2": "113001^DCM"}


def change(house: House, kind: str, *uids: str, **details: str) -> None:
    house.keeper.change(kind, actor="admin", choose=lambda _connection: uids, details=details)


def test_what_another_node_stored_meanwhile_is_found_when_it_is_indexed(
    tmp_path: Path, database: Database
) -> None:
    """Two nodes, one index: the unique key decides, and Success waits for it."""
    settings = SMALL.model_copy(update={"acknowledge": "indexed"})
    with (
        running(tmp_path / "a", database, settings) as first,
        running(tmp_path / "b", database, settings) as second,
    ):
        # The second node's arbiter looks before the first node's instance is in the index.
        second.keeper._arbiter.screen = lambda tickets: list(tickets)  # type: ignore[method-assign]
        assert first.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
        assert second.store(data_set("1.1", number=2), "1.1").outcome is Outcome.CONFLICT
        assert len(first.rows(INSTANCE)) == 1
        assert len(first.rows(CONFLICT)) == 1
