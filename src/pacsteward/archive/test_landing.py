"""The landing log: records, where it ends, what failures and recycling leave behind."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacsteward.archive import disk, record
from pacsteward.archive import landing as landing_module
from pacsteward.archive.disk import BLOCK_BYTES
from pacsteward.archive.landing import Landed, Landing
from pacsteward.archive.model import Origin
from pacsteward.archive.record import Description, aligned, checksum_of
from pacsteward.archive.segment import (
    HEAD_BYTES,
    IN_USE,
    encode_head,
    find_segments,
    read_generation,
    reading,
    segment_path,
    walk,
)
from pacsteward.base import faults
from pacsteward.base.errors import Exhausted, Unavailable, Unsupported

SEGMENT_BYTES = 64 << 10
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def description(uid: str, **more: object) -> Description:
    origin = Origin("dimse", "CT1", "192.0.2.1", "a1", "PACS", "HOSPITAL", actor_kind="peer")
    return Description(WHEN, origin, "1.2", uid, "1.3", "1.4", "1.2.840.10008.1.2", **more)  # type: ignore[arg-type]


def append(landing: Landing, uid: str, data: bytes = b"x" * 1001) -> Landed:
    return landing.append(
        description(uid), b"meta", [data], size_bytes=len(data), checksum=checksum_of(data)
    )


def opened(folder: Path, indexed: int = 0) -> Landing:
    landing = Landing(folder, segment_bytes=SEGMENT_BYTES)
    landing.open(indexed)
    return landing


def uids(folder: Path, after: int = 0) -> list[str]:
    return [one.description.sop_instance_uid for one in opened(folder).replay(after)]


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def last_segment(folder: Path) -> Path:
    return find_segments(folder)[0][-1].path


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    pieces = [b"abc", memoryview(b"defg"), b"", b"h" * 5000]
    data = b"".join(pieces)
    written = landing.append(
        description("1.2.3"), b"\2\0meta", pieces, size_bytes=len(data), checksum=checksum_of(data)
    )
    big = landing.append(
        description("1.2.4", object_container="ab" * 16, object_offset=300, is_conflict=True),
        b"",
        [],
        size_bytes=1 << 30,
        checksum=7,
    )
    landing.sync()
    found = list(opened(tmp_path).replay(0))
    assert found == [written, big]
    with segment_path(tmp_path, written.location.container).open("rb") as file:
        file.seek(written.location.offset)
        assert file.read(written.location.length) == data
    assert big.location.container_kind == "object"
    assert found[0].description.received_at == WHEN


def test_pieces_beyond_what_one_call_takes_are_all_written(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    pieces = [bytes([number % 251]) * 3 for number in range(5000)]
    data = b"".join(pieces)
    one = landing.append(
        description("1"), b"", pieces, size_bytes=len(data), checksum=checksum_of(data)
    )
    landing.sync()
    (found,) = opened(tmp_path).replay(0)
    assert found == one
    assert not found.is_damaged


@pytest.mark.parametrize("mebibytes", [1, 4, 9])
def test_large_records_go_straight_to_the_disk_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mebibytes: int
) -> None:
    straight = 0

    def pwrite(descriptor: int, blocks: memoryview, offset: int) -> int:
        nonlocal straight
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        # Not all at once, as a disk that is nearly full does it.
        written = real(descriptor, blocks[: 1 << 20], offset)
        straight += written if flags & os.O_DIRECT else 0
        return written

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    landing = opened(tmp_path)
    data = [random.Random(number).randbytes(mebibytes << 20) for number in range(2)]
    append(landing, "1.1", data[0])
    append(landing, "1.2", b"small")
    append(landing, "1.3", data[1])
    landing.sync()
    assert uids(tmp_path) == ["1.1", "1.2", "1.3"]
    assert not any(one.is_damaged for one in opened(tmp_path).replay(0))
    assert straight > sum(map(len, data))
    assert not fcntl.fcntl(landing.descriptor, fcntl.F_GETFL) & os.O_DIRECT


def test_a_file_system_that_writes_through_the_page_cache_only_gets_it_that_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(descriptor: int, blocks: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "the test's")
        return real(descriptor, blocks, offset)

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    landing = opened(tmp_path)
    append(landing, "1.1", random.Random(1).randbytes(1 << 20))
    landing.sync()
    (found,) = opened(tmp_path).replay(0)
    assert not found.is_damaged


def test_no_block_with_something_acknowledged_in_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = opened(tmp_path)
    written: list[tuple[int, int]] = []

    def pwritev(descriptor: int, parts: list[bytes], offset: int) -> int:
        written.append((offset, sum(map(len, parts))))
        return real(descriptor, parts, offset)

    append(landing, "1.0")
    landing.sync()
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", pwritev)
    for number in range(1, 5):
        append(landing, f"1.{number}", b"x" * (number * 777))
        landing.sync()
    assert all(not offset % BLOCK_BYTES and not size % BLOCK_BYTES for offset, size in written)
    ends = [offset + size for offset, size in written]
    assert [offset for offset, _ in written[1:]] == ends[:-1]


def test_small_records_are_written_over_zeros_and_large_ones_are_not(tmp_path: Path) -> None:
    """What makes a file longer takes the disk three writes to sync."""
    landing = Landing(tmp_path, segment_bytes=64 << 20)
    landing.open(0)
    append(landing, "1.0")
    landing.sync()
    size = last_segment(tmp_path).stat().st_size
    for number in range(1, 100):
        append(landing, f"1.{number}")
        landing.sync()
    assert last_segment(tmp_path).stat().st_size == size
    large = append(landing, "1.100", bytes(3 << 20))
    landing.sync()
    end = aligned(large.location.offset + large.location.length)
    assert last_segment(tmp_path).stat().st_size == end
    for number in (101, 102):
        append(landing, f"1.{number}")
        landing.sync()
    landing.close()
    # A log that goes on does so before the zeros.
    landing = Landing(tmp_path, segment_bytes=64 << 20)
    landing.open(0)
    size = last_segment(tmp_path).stat().st_size
    assert append(landing, "1.103").location.offset < end + 4 * BLOCK_BYTES
    landing.sync()
    assert last_segment(tmp_path).stat().st_size == size
    assert uids(tmp_path) == [f"1.{number}" for number in range(104)]


def test_where_small_and_large_records_take_turns_no_zeros_are_written(tmp_path: Path) -> None:
    landing = Landing(tmp_path, segment_bytes=64 << 20)
    landing.open(0)
    for number in range(8):
        one = append(landing, f"1.{number}", bytes((number % 2) * (1 << 20)))
        landing.sync()
        end = aligned(one.location.offset + one.location.length)
        if number:
            assert last_segment(tmp_path).stat().st_size in (end, end + (1 << 20))
    assert last_segment(tmp_path).stat().st_size == end


def test_a_record_that_fits_is_taken_where_the_zeros_behind_it_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = Landing(tmp_path, segment_bytes=64 << 20)
    landing.open(0)
    real = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        real(descriptor, data[:BLOCK_BYTES], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    # Large writes only, such as that of the zeros, go this way.
    monkeypatch.setattr(os, "pwrite", pwrite)
    for number in range(3):
        one = append(landing, f"1.{number}")
        landing.sync()
        end = aligned(one.location.offset + one.location.length)
        assert last_segment(tmp_path).stat().st_size == end
    landing.close()
    assert uids(tmp_path) == ["1.0", "1.1", "1.2"]


def test_a_log_of_the_first_format_is_read_and_continued_in_another_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first:
        first.setattr(record, "VERSION", 1)
        first.setattr(landing_module, "aligned", lambda offset: aligned(offset, 8))
        first.setattr(landing_module, "_AHEAD_BYTES", 0)
        landing = opened(tmp_path)
        for number in range(3):
            append(landing, f"1.{number}")
        landing.sync()
    assert last_segment(tmp_path).stat().st_size % BLOCK_BYTES
    landing = opened(tmp_path)
    append(landing, "1.3")
    landing.sync()
    assert uids(tmp_path) == ["1.0", "1.1", "1.2", "1.3"]
    assert len(find_segments(tmp_path)[0]) == 2


def test_sequences_count_up_through_segments(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    for number in range(20):
        append(landing, f"1.{number}", bytes(10_000))
        landing.sync()
    assert len(find_segments(tmp_path)[0]) > 2
    assert [one.sequence for one in opened(tmp_path).replay(0)] == list(range(1, 21))
    assert [one.sequence for one in opened(tmp_path).replay(17)] == [18, 19, 20]


def test_a_record_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    append(landing, "1.1")
    append(landing, "1.2", bytes(3 * SEGMENT_BYTES))
    append(landing, "1.3")
    landing.sync()
    assert uids(tmp_path) == ["1.1", "1.2", "1.3"]


@pytest.mark.parametrize("kept", [0, 1, 63, 64, 200, 700])
def test_a_torn_record_ends_the_log_and_is_written_over(tmp_path: Path, kept: int) -> None:
    landing = opened(tmp_path)
    append(landing, "1.1")
    landing.sync()
    torn = append(landing, "1.2")
    landing.write()
    landing.close()
    path = last_segment(tmp_path)
    begin = torn.location.offset - 500
    with reading(path) as file:
        head = find_segments(tmp_path)[0][-1].head
        begin = next(record.offset for record in walk(file, head) if record.sequence == 2)
    os.truncate(path, begin + kept)

    again = opened(tmp_path)
    assert again.safe_sequence == 1
    append(again, "1.3")
    again.sync()
    assert uids(tmp_path) == ["1.1", "1.3"]


def test_torn_bytes_in_the_middle_of_the_last_batch_end_the_log(tmp_path: Path) -> None:
    """A power cut may keep a later page of the batch and lose an earlier one."""
    landing = opened(tmp_path)
    append(landing, "1.1")
    landing.sync()
    lost = append(landing, "1.2")
    append(landing, "1.3")
    landing.write()
    landing.close()
    write_at(last_segment(tmp_path), lost.location.offset + 10, b"\0" * 100)

    again = opened(tmp_path)
    assert again.safe_sequence == 1
    # Of the same size, so the remains of 1.3 lie where its successor would.
    append(again, "1.4")
    again.sync()
    again.close()
    assert uids(tmp_path) == ["1.1", "1.4"]


def test_damage_before_what_was_safe_hides_nothing_behind_it(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    places = []
    for number in range(4):
        places.append(append(landing, f"1.{number}"))
        landing.sync()
    landing.close()
    write_at(last_segment(tmp_path), places[1].location.offset + 10, b"\0" * 100)

    found = list(opened(tmp_path).replay(0))
    assert [one.description.sop_instance_uid for one in found] == ["1.0", "1.1", "1.2", "1.3"]
    assert [one.is_damaged for one in found] == [False, True, False, False]


def test_a_damaged_head_loses_its_own_record_only(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    places = []
    for number in range(4):
        places.append(append(landing, f"1.{number}"))
        landing.sync()
    landing.close()
    write_at(last_segment(tmp_path), places[1].location.offset - 40, b"\xff" * 8)

    assert uids(tmp_path) == ["1.0", "1.2", "1.3"]
    again = opened(tmp_path)
    assert append(again, "1.4").sequence == 5


def test_a_new_record_never_takes_the_sequence_of_a_lost_one(tmp_path: Path) -> None:
    """The index knows of five records, and the log has lost all of them."""
    landing = opened(tmp_path, indexed=5)
    assert append(landing, "1.1").sequence == 6
    landing.sync()
    assert [one.sequence for one in opened(tmp_path, 5).replay(5)] == [6]


def test_records_of_an_earlier_generation_never_pass_for_new_ones(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    for number in range(3):
        append(landing, f"1.{number}")
    landing.sync()
    landing.close()
    path = last_segment(tmp_path)
    with path.open("rb") as file:
        old_generation = read_generation(file.fileno())

    # Used anew with the same first sequence: every old record has a fitting sequence.
    head_bytes, head = encode_head(IN_USE, old_generation + 1, 1)
    write_at(path, 0, head_bytes)
    with reading(path) as file:
        assert list(walk(file, head)) == []
    again = opened(tmp_path)
    append(again, "1.9")
    again.sync()
    assert uids(tmp_path) == ["1.9"]


class OnePrepared:
    def __init__(self, path: Path) -> None:
        self._paths = [path]

    def take(self) -> Path | None:
        return self._paths.pop() if self._paths else None


def test_a_used_segment_is_written_over_as_a_new_one(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    for number in range(3):
        append(landing, f"1.{number}")
    landing.sync()
    landing.close()
    used = tmp_path / "prepared-0123456789abcdef.segment"
    last_segment(tmp_path).rename(used)

    landing = Landing(tmp_path, segment_bytes=SEGMENT_BYTES, spares=OnePrepared(used))
    landing.open(3)
    append(landing, "1.3")
    landing.sync()
    assert not used.exists()
    found = list(opened(tmp_path, 3).replay(3))
    assert [one.description.sop_instance_uid for one in found] == ["1.3"]
    assert found[0].sequence == 4


def test_what_a_failed_sync_left_is_cut_off_for_good(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    append(landing, "1.1")
    landing.sync()
    append(landing, "1.2")
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        landing.sync()
    # The bytes of 1.2 are in the file, and may be on the disk.
    append(landing, "1.3")
    landing.sync()
    assert len(find_segments(tmp_path)[0]) == 2
    assert uids(tmp_path) == ["1.1", "1.3"]


def test_what_a_killed_process_left_is_written_again_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sync may have failed: another alone would succeed, and write nothing."""
    landing = opened(tmp_path)
    append(landing, "1.1")
    landing.sync()
    synced = append(landing, "1.2")
    landing.sync()
    append(landing, "1.3")
    last = append(landing, "1.4")
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        landing.sync()
    landing.close()
    calls: list[tuple[str, int, bytes]] = []
    write_all, sync = disk.write_all, disk.sync

    def write(descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        calls.append(("write", offset, b"".join(parts)))
        return write_all(descriptor, parts, offset)

    def synced_again(descriptor: int) -> None:
        calls.append(("sync", 0, b""))
        sync(descriptor)

    monkeypatch.setattr(disk, "write_all", write)
    monkeypatch.setattr(disk, "sync", synced_again)
    before = last_segment(tmp_path).read_bytes()
    again = Landing(tmp_path, segment_bytes=SEGMENT_BYTES)
    again.open(synced.sequence)
    begin = aligned(synced.location.offset + synced.location.length)
    end = aligned(last.location.offset + last.location.length)
    assert calls == [("write", begin, before[begin:end]), ("sync", 0, b"")]
    assert last_segment(tmp_path).read_bytes() == before


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    with faults.armed("after-write:enospc"), pytest.raises(Exhausted) as caught:
        append(landing, "1.1")
    assert "full" in caught.value.why
    assert "1.1" not in str(caught.value)
    landing.retire()
    append(landing, "1.2")
    landing.sync()
    assert uids(tmp_path) == ["1.2"]


def test_a_failed_segment_leaves_no_litter(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    with faults.armed("before-fsync:eio"), pytest.raises(Unavailable):
        append(landing, "1.1")
    assert os.listdir(tmp_path) == []


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("mine")
    (tmp_path / "1.segment").write_text("mine")
    landing = opened(tmp_path)
    append(landing, "1.1")
    landing.sync()
    assert uids(tmp_path) == ["1.1"]
    assert (tmp_path / "1.segment").read_text() == "mine"


def test_a_link_in_place_of_a_segment_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(HEAD_BYTES))
    folder = tmp_path / "landing"
    folder.mkdir()
    (folder / "000000000001.segment").symlink_to(outside)
    with pytest.raises(OSError):
        opened(folder)
    assert outside.read_bytes() == bytes(HEAD_BYTES)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    landing = opened(tmp_path)
    append(landing, "1.1")
    landing.sync()
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes()[:40])
    data[16] = 2
    write_at(path, 0, bytes(data) + checksum_of(bytes(data)).to_bytes(4, "little"))
    with pytest.raises(Unsupported) as caught:
        opened(tmp_path)
    assert "later" in caught.value.remedy
