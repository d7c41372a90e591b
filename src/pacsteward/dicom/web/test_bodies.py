"""Bodies of requests: bounded, and out of memory when they are large."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from starlette.requests import Request

from pacsteward.base.errors import Exhausted, Invalid, Unavailable
from pacsteward.dicom.web.bodies import IN_MEMORY_BYTES, Spool, chunks
from pacsteward.dicom.web.errors import TooLarge


def request(*messages: dict[str, object], length: str = "") -> Request:
    waiting = list(messages)

    async def receive() -> dict[str, object]:
        if not waiting:
            await asyncio.sleep(3600)
        return waiting.pop(0)

    headers = [(b"content-length", length.encode())] if length else []
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)  # type: ignore[arg-type]


def body(*pieces: bytes) -> list[dict[str, object]]:
    return [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1}
        for place, piece in enumerate(pieces)
    ]


async def read(asked: Request) -> bytes:
    return b"".join([chunk async for chunk in chunks(asked, max_bytes=10)])


def test_a_body_is_read_whole() -> None:
    assert asyncio.run(read(request(*body(b"abc", b"de")))) == b"abcde"


def test_c70_a_body_that_announces_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge) as raised:
        asyncio.run(read(request(length="11")))
    assert raised.value.http_status == 413


def test_c70_a_body_that_becomes_too_long_is_refused() -> None:
    with pytest.raises(TooLarge):
        asyncio.run(read(request(*body(b"123456", b"789012"))))


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(Invalid):
        asyncio.run(read(request({"type": "http.disconnect"})))


@pytest.mark.parametrize("size", [0, 10, IN_MEMORY_BYTES, IN_MEMORY_BYTES + 1, 3 * IN_MEMORY_BYTES])
def test_a_payload_comes_back_as_it_was_from_memory_or_file(size: int, tmp_path: Path) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    with Spool(tmp_path, max_bytes=1 << 30) as spool:
        for start in range(0, size, 60_000):
            spool.write(memoryview(data)[start : min(start + 60_000, size)])
        assert spool.size == size
        assert spool.value() == data[:size]
        assert list(tmp_path.iterdir()) == []


def test_a_payload_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=5) as spool, pytest.raises(TooLarge):
        spool.write(b"123456")


def test_a_full_disk_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = Path("/dev/full").open("r+b")  # noqa: SIM115 - the spool closes it
    monkeypatch.setattr("pacsteward.dicom.web.bodies.tempfile.TemporaryFile", lambda **_: full)
    spool = Spool(tmp_path, max_bytes=4 * IN_MEMORY_BYTES)
    with pytest.raises(Exhausted, match="No space left on device"):
        spool.write(bytes(IN_MEMORY_BYTES + 1))
    spool.close()
    assert full.closed


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_nobody_is_told_to_free_space_when_something_else_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    def fail(**_more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pacsteward.dicom.web.bodies.tempfile.TemporaryFile", fail)
    with Spool(tmp_path, max_bytes=4 * IN_MEMORY_BYTES) as spool:
        with pytest.raises(Unavailable, match=os.strerror(number)) as told:
            spool.write(bytes(IN_MEMORY_BYTES + 1))
        assert "Free space" not in told.value.remedy
