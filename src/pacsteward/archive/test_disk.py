"""R4: what the kernel took only a part of is written to its end, or fails."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from pacsteward.archive import disk


def test_a_write_that_was_cut_short_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    write = os.pwritev

    def some(descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        whole = b"".join(parts)
        return write(descriptor, [whole[: chance.randint(1, max(1, len(whole)))]], offset)

    monkeypatch.setattr(os, "pwritev", some)
    for number in range(30):
        # More parts than one call takes, and empty ones among them.
        parts = [chance.randbytes(chance.choice((0, 1, 7, 100))) for _ in range(number * 100)]
        path = tmp_path / str(number)
        descriptor = disk.open_file(path, os.O_RDWR | os.O_CREAT)
        end = disk.write_all(descriptor, parts, 5)
        os.close(descriptor)
        whole = b"".join(parts)
        assert end == 5 + len(whole)
        assert path.read_bytes()[5:] == whole


def test_a_disk_that_takes_nothing_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = disk.open_file(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        disk.write_all(descriptor, [b"something"], 0)
    os.close(descriptor)
