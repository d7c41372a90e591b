"""How far the log has come, and how far the index: so that nobody sees less than was acknowledged.

Success is sent when an instance is safe in the landing log; the index follows a few milliseconds
later. A query therefore waits until the index has passed what had landed when it asked. All
processes of the machine see the two sequences in one small mapped file, ``DIR/run/watermark``:
sixteen bytes that say what they are, then three numbers of eight bytes in the machine's order
(landed, indexed, wanted). The third is written by waiting readers, so that the indexer does not
linger for a fuller batch while somebody waits.

The file need not survive anything: the keeper sets it right when it starts.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Final

from pacsteward.base.errors import Unavailable

_MAGIC: Final = b"PsWatermark 1\r\n\0"
_SIZE: Final = 4096
_LANDED: Final = 2
_INDEXED: Final = 3
_WANTED: Final = 4
_POLL_S: Final = (0.0005, 0.001, 0.002)


class Watermark:
    """The two sequences of one data folder.

    Parameters
    ----------
    run_folder
        ``DIR/run``; made if it is missing.
    """

    def __init__(self, run_folder: Path) -> None:
        run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = run_folder / "watermark"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                os.ftruncate(descriptor, _SIZE)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        if self._map[: len(_MAGIC)] != _MAGIC:
            self._map[: len(_MAGIC)] = _MAGIC
        # One aligned store of eight bytes: a reader sees the old number or the new one.
        self._numbers = memoryview(self._map).cast("Q")

    @property
    def landed(self) -> int:
        """Sequence of the last record that is safe."""
        return self._numbers[_LANDED]

    @landed.setter
    def landed(self, sequence: int) -> None:
        self._numbers[_LANDED] = sequence

    @property
    def indexed(self) -> int:
        """Sequence up to which the index has come."""
        return self._numbers[_INDEXED]

    @indexed.setter
    def indexed(self, sequence: int) -> None:
        self._numbers[_INDEXED] = sequence

    @property
    def is_caught_up(self) -> bool:
        """Whether all that has landed is in the index."""
        return self.indexed >= self.landed

    @property
    def is_wanted(self) -> bool:
        """Whether a reader waits for something that is not indexed yet."""
        return self._numbers[_WANTED] > self._numbers[_INDEXED]

    def reset(self, *, landed: int, indexed: int) -> None:
        """Set all right, as the keeper does when it starts."""
        self.landed, self.indexed, self._numbers[_WANTED] = landed, indexed, 0

    def wait_until_indexed(self, timeout_s: float) -> None:
        """Return once all that had landed at the moment of the call is in the index.

        Raises
        ------
        Unavailable
            It is not after `timeout_s`.
        """
        target = self.landed
        if self.indexed >= target:
            return
        deadline = time.monotonic() + timeout_s
        polls = iter(_POLL_S)
        pause_s = _POLL_S[-1]
        while self.indexed < target:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "The index has not caught up with what was received.",
                    why=(
                        f"{target - self.indexed} instances were acknowledged and are not "
                        f"indexed after {timeout_s:g} s."
                    ),
                    remedy="Try again in a moment; if it lasts, look for the indexer in the log.",
                )
            # Two readers may overwrite each other's wish; each repeats its own.
            if self._numbers[_WANTED] < target:
                self._numbers[_WANTED] = target
            time.sleep(next(polls, pause_s))

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.release()
        self._map.close()
