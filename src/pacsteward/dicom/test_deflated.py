"""Inflated data sets that are too large for memory, and the disk that has to take them."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest

from pacsteward.base.errors import Exhausted, Unavailable
from pacsteward.dicom.deflated import IN_MEMORY_BYTES, InflatedFile

PLAIN = os.urandom(1 << 20) * (IN_MEMORY_BYTES // (1 << 20) + 1)
_DEFLATER = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
DEFLATED = _DEFLATER.compress(PLAIN) + _DEFLATER.flush()


def read(offset: int, length: int) -> bytes:
    return DEFLATED[offset : offset + length]


def test_a_large_data_set_is_read_from_a_file_without_a_name(tmp_path: Path) -> None:
    inflated = InflatedFile(read, len(DEFLATED), tmp_path)
    assert inflated.size == len(PLAIN)
    assert inflated.read(12_345, 10) == PLAIN[12_345:12_355]
    assert list(tmp_path.iterdir()) == []
    inflated.close()


@pytest.mark.parametrize("buffer_bytes", [8192, 4 * IN_MEMORY_BYTES])
def test_a_full_disk_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch, buffer_bytes: int) -> None:
    full = Path("/dev/full").open("r+b", buffer_bytes)  # noqa: SIM115 - whoever writes closes it
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full)
    with pytest.raises(Exhausted, match=os.strerror(errno.ENOSPC)):
        InflatedFile(read, len(DEFLATED))
    assert full.closed


def test_nobody_is_told_to_free_space_when_something_else_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**_more: object) -> None:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(Unavailable, match=os.strerror(errno.EIO)) as told:
        InflatedFile(read, len(DEFLATED))
    assert "Free space" not in told.value.remedy
