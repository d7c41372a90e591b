"""What an event loop may ask: the same answers, and never a wait."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from pacsteward.archive import at_once, blocks, prompt, read
from pacsteward.archive.at_once import Enclosed
from pacsteward.archive.containers import container_path
from pacsteward.archive.model import Instance
from pacsteward.archive.prompt import PromptArchive
from pacsteward.archive.read import Reader
from pacsteward.archive.recent import Recent
from pacsteward.archive.watermark import Watermark
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, WouldWait
from pacsteward.dicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other work on the machine decide which way a question goes."""
    monkeypatch.setattr("pacsteward.base.db.look.PATIENCE_S", 10.0)


@pytest.fixture
def ct() -> Dataset:
    return dcmread(str(get_testdata_file("CT_small.dcm", download=False)))


@pytest.fixture
def reader(vault: Any) -> Reader:
    return Reader(vault.database, vault.data_folder)


@pytest.fixture
def watermark(vault: Any) -> Watermark:
    return Watermark(vault.data_folder / "run")


@pytest.fixture
def archive(reader: Reader, watermark: Watermark) -> PromptArchive:
    return PromptArchive(reader, watermark, Recent(1 << 20, lambda _: 1))


@pytest.fixture
def instance(vault: Any, reader: Reader, ct: Dataset) -> Instance:
    return reader.instance("", "", vault.keep(ct))


def test_it_answers_as_the_archive_does(
    archive: PromptArchive, reader: Reader, instance: Instance
) -> None:
    uids = instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid
    assert archive.instance(*uids) == instance
    with reader.open(instance) as slow, archive.open(instance) as stored:
        whole = slow.data_set()
        assert stored.head() == slow.head()
        assert stored.data_set() == whole
        assert stored.read(100, 50) == bytes(stored.view(100, 50)) == whole[100:150]
        assert stored.view(stored.size - 3, 50) == whole[-3:]
        assert stored.view(stored.size, 1) == b""
        assert b"".join(stored.chunks(1000)) == whole
    assert archive.wholes([instance])[0] == whole
    assert archive.view(instance, 100, 50) == whole[100:150]
    assert archive.view(instance, len(whole) - 3, 50) == whole[-3:]
    frame = archive.frames(instance)
    assert (frame.number_of_frames, frame.rows) == (1, 128)


def test_what_is_not_in_the_index_is_looked_for_in_a_thread(archive: PromptArchive) -> None:
    with pytest.raises(WouldWait):
        archive.instance("", "", "1.2.3")


def test_it_waits_for_nothing_that_is_acknowledged_and_not_indexed(
    archive: PromptArchive, watermark: Watermark, instance: Instance
) -> None:
    watermark.landed = watermark.indexed + 1
    with pytest.raises(WouldWait):
        archive.instance("", "", instance.sop_instance_uid)


def test_it_asks_no_database_that_is_far_away(
    archive: PromptArchive, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert archive.instance("", "", instance.sop_instance_uid) == instance
    monkeypatch.setattr(Database, "is_near", False)
    with pytest.raises(WouldWait):
        archive.instance("", "", instance.sop_instance_uid)


def test_it_waits_for_no_recycler(vault: Any, archive: PromptArchive, instance: Instance) -> None:
    with open(container_path(vault.data_folder, instance.location), "rb") as segment:
        fcntl.flock(segment, fcntl.LOCK_EX)
        with pytest.raises(WouldWait), archive.open(instance):
            pass
        with pytest.raises(WouldWait):
            archive.wholes([instance])


READS: list[Callable[[Any], object]] = [
    lambda stored: stored.data_set(),
    lambda stored: stored.view(1000, 10),
    lambda stored: stored.read(1000, 10),
    lambda stored: next(stored.chunks()),
]
AT_ONCE: list[Callable[[PromptArchive, Instance], object]] = [
    lambda archive, instance: archive.wholes([instance]),
    lambda archive, instance: archive.view(instance, 1000, 10),
    lambda archive, instance: archive.joined((Enclosed(b"a", instance, b"b"),) * 2),
]


@pytest.mark.parametrize("deliver", READS)
def test_it_waits_for_no_disk(
    archive: PromptArchive,
    instance: Instance,
    deliver: Callable[[Any], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel says EAGAIN of what is not in its memory."""

    def not_there(_descriptor: int, _buffers: object, _offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        raise BlockingIOError

    with archive.open(instance) as stored:
        monkeypatch.setattr(os, "preadv", not_there)
        with pytest.raises(WouldWait):
            deliver(stored)
        # Part of it is there, the rest is not.
        monkeypatch.setattr(os, "preadv", lambda *_: 10)
        with pytest.raises(WouldWait):
            deliver(stored)


@pytest.mark.parametrize("deliver", AT_ONCE)
def test_what_is_opened_for_one_read_waits_for_no_disk_either(
    archive: PromptArchive,
    instance: Instance,
    deliver: Callable[[PromptArchive, Instance], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    really = os.preadv

    def not_there(descriptor: int, buffers: list[Any], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if offset == instance.location.offset:
            raise BlockingIOError
        return really(descriptor, buffers, offset, flags)

    deliver(archive, instance)
    monkeypatch.setattr(os, "preadv", not_there)
    with pytest.raises(WouldWait):
        deliver(archive, instance)
    # Part of it is there, the rest is not.
    monkeypatch.setattr(os, "preadv", lambda *given: min(really(*given), 10))
    with pytest.raises(WouldWait):
        deliver(archive, instance)


@pytest.mark.parametrize("deliver", READS)
def test_r11_no_flipped_bit_leaves_at_once(
    vault: Any, archive: PromptArchive, instance: Instance, deliver: Callable[[Any], object]
) -> None:
    flip_a_bit(vault, instance)
    with archive.open(instance) as stored, pytest.raises(Broken, match="is damaged"):
        deliver(stored)


@pytest.mark.parametrize("deliver", AT_ONCE)
def test_r11_what_is_damaged_is_left_to_a_thread_which_says_so(
    vault: Any,
    archive: PromptArchive,
    reader: Reader,
    instance: Instance,
    deliver: Callable[[PromptArchive, Instance], object],
) -> None:
    deliver(archive, instance)
    flip_a_bit(vault, instance)
    with pytest.raises(WouldWait):
        deliver(archive, instance)
    with reader.open(instance) as stored, pytest.raises(Broken, match="is damaged"):
        stored.data_set()


def flip_a_bit(vault: Any, instance: Instance) -> None:
    with open(container_path(vault.data_folder, instance.location), "r+b") as file:
        file.seek(instance.location.offset + 20_000)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_objects_of_one_container_are_joined_each_between_its_own_texts(
    vault: Any, archive: PromptArchive, reader: Reader, ct: Dataset, instance: Instance
) -> None:
    ct.SOPInstanceUID = "1.2.3.4"
    other = reader.instance("", "", vault.keep(ct))
    assert other.location.container == instance.location.container
    parts = [
        Enclosed(b"first", other, b"-"),
        Enclosed(b"", instance, b""),
        Enclosed(b"3", other, b""),
    ]
    whole = [bytes(archive.wholes([one])[0]) for one in (other, instance)]
    expected = b"first" + whole[0] + b"-" + whole[1] + b"3" + whole[0]
    assert whole[0] != whole[1]
    assert archive.joined(parts) == expected
    assert archive.wholes([other, instance]) == whole


def test_what_was_read_before_is_not_touched_by_what_is_read_next(
    vault: Any, archive: PromptArchive, reader: Reader, ct: Dataset, instance: Instance
) -> None:
    """Its memory is lent anew only when nobody looks into it any more."""
    ct.SOPInstanceUID = "1.2.3.4"
    other = reader.instance("", "", vault.keep(ct))
    expected = [bytes(archive.wholes([one])[0]) for one in (instance, other)]
    held = [archive.wholes([(instance, other)[number % 2]])[0] for number in range(12)]
    assert [bytes(one) for one in held] == expected * 6


def test_a_segment_that_was_used_anew_is_not_read(
    archive: PromptArchive, instance: Instance
) -> None:
    location = replace(instance.location, generation=instance.location.generation + 1)
    for gone in (location, replace(location, container="999999999999")):
        with pytest.raises(WouldWait):
            archive.wholes([replace(instance, location=gone)])


def test_long_reads_are_left_to_threads(
    archive: PromptArchive, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "AT_ONCE_BYTES", instance.size_bytes - 1)
    monkeypatch.setattr(at_once, "AT_ONCE_BYTES", instance.size_bytes - 1)
    with archive.open(instance) as stored, pytest.raises(WouldWait):
        stored.data_set()
    with pytest.raises(WouldWait):
        archive.wholes([instance])


def test_a_part_of_a_large_object_is_read_once_somebody_went_through_it(
    archive: PromptArchive, reader: Reader, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "KEPT_WHOLE_BYTES", 1000)
    monkeypatch.setattr(prompt, "KEPT_WHOLE_BYTES", 1000)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4096)
    with pytest.raises(WouldWait):
        archive.frames(instance)
    with archive.open(instance) as stored, pytest.raises(WouldWait):
        stored.view(5000, 100)
    with reader.open(instance) as stored:
        part = stored.read(5000, 100)
    with archive.open(instance) as stored:
        assert stored.view(5000, 100) == part


def test_what_has_to_be_inflated_is_left_to_threads(
    vault: Any, archive: PromptArchive, reader: Reader, ct: Dataset
) -> None:
    uid = vault.keep_bytes(ct, b"deflated", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(WouldWait):
        archive.frames(reader.instance("", "", uid))
