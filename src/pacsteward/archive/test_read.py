"""Reading what is stored: whole, in ranges, in chunks, and never damaged."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from sqlalchemy import update

from pacsteward.archive import blocks, read
from pacsteward.archive.containers import container_path
from pacsteward.archive.model import Selection
from pacsteward.archive.read import Reader
from pacsteward.archive.segment import IN_USE, encode_head
from pacsteward.archive.tables import LOCATION
from pacsteward.base.errors import Broken, NotFound


@pytest.fixture
def ct() -> Dataset:
    return dcmread(get_testdata_file("CT_small.dcm"))


@pytest.fixture
def reader(vault: Any) -> Reader:
    return Reader(vault.database, vault.data_folder)


def one_of_many(ct: Dataset, number: int | None) -> Dataset:
    ct.SOPInstanceUID = generate_uid()
    ct.InstanceNumber = number
    return ct


def damage(vault: Any, instance: Any, offset: int = 1000) -> None:
    path = container_path(vault.data_folder, instance.location)
    with open(path, "r+b") as file:
        file.seek(instance.location.offset + offset)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_an_instance_is_read_byte_for_byte_as_a_part_10_file(
    vault: Any, reader: Reader, ct: Dataset
) -> None:
    uid = vault.keep(ct)
    instance = reader.instance("", "", uid)
    with reader.open(instance) as stored:
        whole = stored.head() + stored.data_set()
        assert stored.size == len(stored.data_set())
        assert stored.file_meta.media_storage_sop_instance_uid == uid
        assert b"".join(stored.chunks(1000)) == stored.data_set()
        assert stored.read(100, 50) == stored.data_set()[100:150]
        assert stored.read(stored.size - 3, 50) == stored.data_set()[-3:]
        assert stored.read(stored.size, 1) == b""
    again = dcmread(BytesIO(whole))
    assert again == ct
    assert again.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_instances_come_in_viewing_order(vault: Any, reader: Reader, ct: Dataset) -> None:
    uids = {n: vault.keep(one_of_many(ct, n)) for n in (10, 2, None, 1)}
    found = reader.instances(Selection(series_instance_uids=(ct.SeriesInstanceUID,)))
    assert [one.sop_instance_uid for one in found] == [uids[n] for n in (1, 2, 10, None)]
    assert {one.study_instance_uid for one in found} == {ct.StudyInstanceUID}


def test_a_selection_names_what_bears_every_uid(vault: Any, reader: Reader, ct: Dataset) -> None:
    uid = vault.keep(ct)
    ours = Selection(patient_ids=(ct.PatientID,), sop_instance_uids=(uid, "1.2"))
    assert [one.sop_instance_uid for one in reader.instances(ours)] == [uid]
    others = Selection(study_instance_uids=("1.2.3",), sop_instance_uids=(uid,))
    assert reader.instances(others) == []


def test_an_instance_is_found_only_where_it_is(vault: Any, reader: Reader, ct: Dataset) -> None:
    uid = vault.keep(ct)
    assert reader.instance(ct.StudyInstanceUID, ct.SeriesInstanceUID, uid).sop_instance_uid == uid
    with pytest.raises(NotFound, match="was not found"):
        reader.instance("1.2.3", "", uid)
    with pytest.raises(NotFound, match="was not found"):
        reader.instance("", "", "1.2.3")


@pytest.mark.parametrize("kept_whole_bytes", [read.KEPT_WHOLE_BYTES, 0])
def test_r11_a_flipped_bit_is_never_delivered(
    vault: Any,
    reader: Reader,
    ct: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    kept_whole_bytes: int,
) -> None:
    monkeypatch.setattr(read, "KEPT_WHOLE_BYTES", kept_whole_bytes)
    instance = reader.instance("", "", vault.keep(ct))
    damage(vault, instance)
    with reader.open(instance) as stored:
        for deliver in (
            lambda: stored.data_set(),
            lambda: next(stored.chunks(100)),
            lambda: stored.check(),
            lambda: stored.read(1000, 1),
            lambda: stored.read(10, 1),
        ):
            with pytest.raises(Broken, match="is damaged"):
                deliver()


def test_r11_a_bit_that_flips_between_two_frames_is_noticed_at_the_second(
    vault: Any, reader: Reader, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "KEPT_WHOLE_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4096)
    instance = reader.instance("", "", vault.keep(ct))
    with reader.open(instance) as stored:
        data = stored.data_set()
        assert stored.read(4000, 9000) == data[4000:13000]
        damage(vault, instance, 12_500)
        assert stored.read(4000, 4000) == data[4000:8000]
        for offset, length in ((4000, 9000), (12_400, 1), (12_500, 1)):
            with pytest.raises(Broken, match="is damaged"):
                stored.read(offset, length)
        # A whole object is looked at as a whole before its first piece.
        monkeypatch.setattr(read, "CHUNK_BYTES", 4096)
        with pytest.raises(Broken, match="is damaged"):
            next(stored.chunks(4096))


def test_parts_are_read_with_little_more_than_themselves_once_the_whole_was(
    vault: Any, reader: Reader, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "KEPT_WHOLE_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1024)
    instance = reader.instance("", "", vault.keep(ct))
    read_bytes = []
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        read_bytes.append(length)
        return real(descriptor, length, offset)

    with reader.open(instance) as stored:
        stored.read(5000, 100)
    with reader.open(instance) as stored:
        monkeypatch.setattr(os, "pread", pread)
        stored.read(5000, 500)
        assert sum(read_bytes) == 2048


def test_a_segment_that_was_used_anew_is_not_believed(
    vault: Any, reader: Reader, ct: Dataset
) -> None:
    instance = reader.instance("", "", vault.keep(ct))
    path = container_path(vault.data_folder, instance.location)
    head, _ = encode_head(IN_USE, instance.location.generation + 1, 1)
    path.write_bytes(head + path.read_bytes()[len(head) :])
    with pytest.raises(NotFound, match="gone"), reader.open(instance):
        pass


def test_an_instance_that_moved_meanwhile_is_found_where_it_is(
    vault: Any, reader: Reader, ct: Dataset
) -> None:
    instance = reader.instance("", "", vault.keep(ct))
    data = b""
    with reader.open(instance) as stored:
        data = stored.data_set()
    container = "0" * 31 + "1"
    target = Path(vault.data_folder) / "objects" / "00" / f"{container}.dcm"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"head" + data)
    container_path(vault.data_folder, instance.location).unlink()
    with vault.database.write() as connection:
        connection.execute(
            update(LOCATION).values(
                container_kind="object", container=container, generation=0, offset=4
            )
        )
    with reader.open(instance) as stored:
        assert stored.data_set() == data


def test_a_file_that_is_cut_short_is_damaged(vault: Any, reader: Reader, ct: Dataset) -> None:
    instance = reader.instance("", "", vault.keep(ct))
    path = container_path(vault.data_folder, instance.location)
    os.truncate(path, instance.location.offset + 5000)
    with reader.open(instance) as stored:
        for deliver in (lambda: stored.read(0, 100), stored.data_set):
            with pytest.raises(Broken, match="is damaged"):
                deliver()
