"""The ledger: what was decided is never lost, and never half read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacsteward.archive import disk
from pacsteward.archive.ledger import Ledger, LedgerEntry, read_ledger
from pacsteward.archive.model import Location
from pacsteward.base import faults
from pacsteward.base.errors import Broken, Unavailable, Unsupported

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def append(ledger: Ledger, uid: str) -> LedgerEntry:
    return ledger.append(
        landed_sequence=9,
        at=WHEN,
        kind="deleted",
        actor="admin",
        sop_instance_uids=[uid],
        details={"code": "113039^DCM"},
        locations=[Location("landing", "000000000001", 5, 4200, 100)],
    )


def two_entries(folder: Path) -> Path:
    """Write a ledger of 1.1 and 1.2; return its file."""
    ledger = Ledger(folder)
    ledger.open()
    append(ledger, "1.1")
    append(ledger, "1.2")
    ledger.close()
    return folder / "000000000001.jsonl"


def uids(folder: Path) -> list[str]:
    return [entry.sop_instance_uids[0] for entry in read_ledger(folder)]


def test_entries_come_back_as_they_were_decided(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.open() == []
    written = [append(ledger, "1.1"), append(ledger, "1.2")]
    ledger.close()
    again = Ledger(tmp_path)
    assert again.open() == written
    assert append(again, "1.3").sequence == 3
    assert uids(tmp_path) == ["1.1", "1.2", "1.3"]


def test_every_line_is_json_that_names_the_format(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open()
    append(ledger, "1.1")
    text = (tmp_path / "000000000001.jsonl").read_text()
    assert text.startswith('{"format":"pacsteward ledger","version":1')


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_half_written_last_line_is_not_an_entry(tmp_path: Path, cut: int) -> None:
    path = two_entries(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Ledger(tmp_path)
    expected = ["1.1", "1.2"] if cut == 1 else ["1.1"]
    assert [entry.sop_instance_uids[0] for entry in again.open()] == expected
    append(again, "1.3")
    assert uids(tmp_path) == [*expected, "1.3"]


def test_nothing_is_written_behind_a_last_line_of_which_only_the_end_is_there(
    tmp_path: Path,
) -> None:
    """After a power cut: the block with its beginning was not written, the one behind it was."""
    path = two_entries(tmp_path)
    torn = path.read_bytes().replace(b'"1.2"', b'"\0\0\0"')
    path.write_bytes(torn)
    again = _opened(tmp_path)
    append(again, "1.3")
    append(again, "1.4")
    again.close()
    assert path.read_bytes() == torn
    assert uids(tmp_path) == ["1.1", "1.3", "1.4"]
    assert append(_opened(tmp_path), "1.5").sequence == 4


def test_a_new_entry_never_takes_the_sequence_of_a_lost_one(tmp_path: Path) -> None:
    """The index has applied five entries, and the ledger has lost three of them."""
    two_entries(tmp_path)
    again = Ledger(tmp_path)
    assert [entry.sequence for entry in again.open(known_sequence=5)] == [1, 2]
    assert append(again, "1.6").sequence == 6
    again.close()
    assert append(_opened(tmp_path), "1.7").sequence == 7
    assert uids(tmp_path) == ["1.1", "1.2", "1.6", "1.7"]


def test_a_damaged_line_in_the_middle_is_never_passed_over(tmp_path: Path) -> None:
    path = two_entries(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"1.1"', b'"1.7"'))
    with pytest.raises(Broken):
        read_ledger(tmp_path)


def test_a_damaged_head_is_said(tmp_path: Path) -> None:
    path = two_entries(tmp_path)
    path.write_bytes(b"\x00" + path.read_bytes()[1:])
    with pytest.raises(Broken):
        read_ledger(tmp_path)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 1, 0), (1, 2)])
def test_lines_in_another_order_are_said(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Each is sound by itself."""
    path = two_entries(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[place] for place in order))
    with pytest.raises(Broken):
        read_ledger(tmp_path)


def test_what_could_not_be_kept_is_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open()
    append(ledger, "1.1")
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        append(ledger, "1.2")
    # Its line is in the first file, whole; the second file begins with its sequence.
    append(ledger, "1.3")
    assert uids(tmp_path) == ["1.1", "1.3"]


@pytest.mark.parametrize("point", ["after-open", "before-fsync"])
def test_what_could_not_be_kept_is_cut_off_although_the_next_file_failed_too(
    tmp_path: Path, point: str
) -> None:
    ledger = Ledger(tmp_path)
    ledger.open()
    append(ledger, "1.1")
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        append(ledger, "1.2")
    with faults.armed(f"{point}:eio@1"), pytest.raises(Unavailable):
        append(ledger, "1.3")
    assert (tmp_path / "000000000002.jsonl").exists()
    append(ledger, "1.4")
    assert uids(tmp_path) == ["1.1", "1.4"]
    ledger.close()
    assert append(_opened(tmp_path), "1.5").sequence == 3


def watch(patch: pytest.MonkeyPatch) -> list[tuple[str, int, bytes]]:
    """Note what is written, with file and offset, and what is synced, with an offset of -1."""
    calls: list[tuple[str, int, bytes]] = []
    write_all, sync = disk.write_all, disk.sync

    def write(descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        calls.append((os.readlink(f"/proc/self/fd/{descriptor}"), offset, b"".join(parts)))
        return write_all(descriptor, parts, offset)

    def synced(descriptor: int) -> None:
        calls.append((os.readlink(f"/proc/self/fd/{descriptor}"), -1, b""))
        sync(descriptor)

    patch.setattr(disk, "write_all", write)
    patch.setattr(disk, "sync", synced)
    return calls


def test_what_comes_to_light_at_a_start_is_written_again_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sync may have failed: another alone would succeed, and write nothing."""
    ledger = Ledger(tmp_path)
    ledger.open()
    append(ledger, "1.1")
    path = tmp_path / "000000000001.jsonl"
    synced = path.stat().st_size
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        append(ledger, "1.2")
    # It was killed while it began the file that would have cut the entry off.
    (tmp_path / "000000000002.jsonl").touch()
    text = path.read_bytes()
    calls = watch(monkeypatch)
    again = Ledger(tmp_path)
    assert [entry.sequence for entry in again.open(known_sequence=1)] == [1, 2]
    assert calls == [(str(path), synced, text[synced:]), (str(path), -1, b"")]
    assert path.read_bytes() == text
    calls.clear()
    assert [entry.sequence for entry in Ledger(tmp_path).open(known_sequence=2)] == [1, 2]
    assert not calls


def test_what_was_refused_stays_cut_off_although_both_syncs_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    ledger.open()
    append(ledger, "1.1")
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        append(ledger, "1.2")
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        ledger.settle()
    second = tmp_path / "000000000002.jsonl"
    head = second.read_bytes()
    calls = watch(monkeypatch)
    again = Ledger(tmp_path)
    assert [entry.sequence for entry in again.open(known_sequence=1)] == [1]
    assert calls[:2] == [(str(second), 0, head), (str(second), -1, b"")]
    assert {path for path, _, _ in calls} == {str(second)}


def test_undone_entries_are_written_again_in_all_files_and_torn_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = two_entries(tmp_path)
    ledger = Ledger(tmp_path)
    ledger.open(known_sequence=2)
    with faults.armed("before-fsync:eio@1"), pytest.raises(Unavailable):
        append(ledger, "1.0")
    append(ledger, "1.3")
    ledger.close()
    second = tmp_path / "000000000002.jsonl"
    whole = second.read_bytes()
    second.write_bytes(whole + b'{"sequence":4,"landed')
    lines = first.read_bytes().splitlines(keepends=True)
    calls = watch(monkeypatch)
    again = Ledger(tmp_path)
    assert [entry.sequence for entry in again.open(known_sequence=1)] == [1, 2, 3]
    assert [call for call in calls if call[1] >= 0] == [
        (str(first), len(lines[0] + lines[1]), lines[2]),
        (str(second), 0, whole),
    ]


@pytest.mark.parametrize("point", ["after-open", "after-write", "before-fsync", "after-dirsync"])
def test_a_start_that_fails_loses_no_entry(tmp_path: Path, point: str) -> None:
    two_entries(tmp_path)
    again = Ledger(tmp_path)
    with faults.armed(f"{point}:eio@1"), pytest.raises(OSError):
        again.open()
    again.close()
    assert uids(tmp_path) == ["1.1", "1.2"]
    assert append(_opened(tmp_path), "1.3").sequence == 3
    assert uids(tmp_path) == ["1.1", "1.2", "1.3"]


def _opened(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.open()
    return ledger


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    from isal.isal_zlib import crc32

    body = b'{"format":"pacsteward ledger","version":2,"first_sequence":1}'
    line = body[:-1] + f',"checksum":"{crc32(body):08x}"}}\n'.encode()
    (tmp_path / "000000000001.jsonl").write_bytes(line + b"{}\n{}\n")
    with pytest.raises(Unsupported):
        Ledger(tmp_path).open()
