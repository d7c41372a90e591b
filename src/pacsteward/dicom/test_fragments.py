"""Promises of fragments.py and inflate.py."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacsteward.base.errors import Invalid
from pacsteward.dicom import inflate as inflate_module
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.inflate import InflatingSource, inflate

PARTS = st.lists(st.binary(max_size=9), max_size=6)


@settings(deadline=None, derandomize=True)
@given(PARTS, st.integers(0, 60), st.integers(0, 60))
def test_many_parts_read_like_one(parts: list[bytes], offset: int, length: int) -> None:
    whole = b"".join(parts)
    data = Fragments([memoryview(part) for part in parts])
    assert data.size == len(data) == len(whole)
    assert b"".join(data) == whole
    assert b"".join(data.slices(offset, length)) == whole[offset : offset + length]
    assert b"".join(data.slices(offset)) == whole[offset:]
    assert data.window(offset, length) == whole[offset : offset + length]
    assert data.reaches(offset) is (offset <= len(whole))
    if offset + length <= len(whole):
        assert bytes(data.read(offset, length)) == whole[offset : offset + length]
    else:
        with pytest.raises(Invalid, match="cut short"):
            data.read(offset, length)


def test_a_range_within_one_part_is_not_copied() -> None:
    part = memoryview(bytearray(b"abcdef"))
    data = Fragments([b"123", part])
    piece = data.read(4, 3)
    part[1] = ord("X")  # type: ignore[index]
    assert bytes(piece) == b"Xcd"


def deflated(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


def test_a_deflated_data_set_reads_forwards_like_a_plain_one() -> None:
    content = bytes(range(256)) * 5000
    stream = deflated(content)
    parts = [stream[place : place + 100] for place in range(0, len(stream), 100)]
    assert b"".join(inflate(Fragments(parts))) == content
    source = InflatingSource(Fragments(parts))
    place = 0
    while place < len(content):
        assert source.window(place, 20) == content[place : place + 20]
        assert source.read(place, 3) == content[place : place + 3]
        place += 7001
    assert source.reaches(len(content))
    assert not source.reaches(len(content) + 1)
    with pytest.raises(Invalid, match="cut short"):
        source.read(len(content), 1)


def test_inflating_remembers_only_a_window() -> None:
    source = InflatingSource(Fragments([deflated(bytes(50_000_000))]))
    assert source.reaches(50_000_000)
    assert len(source._held) < 1 << 20


@pytest.mark.parametrize("end", [1, 5, -1])
def test_a_deflated_data_set_that_is_cut_short_is_refused(end: int) -> None:
    with pytest.raises(Invalid):
        list(inflate(Fragments([deflated(b"abc" * 100)[:end]])))


def test_a_damaged_stream_is_refused() -> None:
    with pytest.raises(Invalid, match="damaged"):
        list(inflate(Fragments([b"\xff" * 50])))


def test_a_deflate_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate_module, "RATIO_FROM", 1 << 20)
    with pytest.raises(Invalid, match="too large"):
        list(inflate(Fragments([deflated(bytes(8 << 20))])))
    with pytest.raises(Invalid, match="too large"):
        list(inflate(Fragments([deflated(bytes(range(256)) * 100)]), size_max=20_000))
