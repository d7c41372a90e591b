"""Whole objects that are in the system's memory, read on an event loop with little effort.

Half of what it takes to read an image of half a megabyte is not the reading: memory for it, a
lease on its container, calls. So memory is lent (`lent.py`), and objects that lie in one container
are read under one lease, each between the texts that it leaves with.

Everything is compared with the checksum of its arrival, every time. Whatever is out of the
ordinary, a damaged object too, raises `WouldWait`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

from pacsteward.archive.containers import opened
from pacsteward.archive.doubtful import UNKNOWN_CHECKSUM
from pacsteward.archive.lent import LentMemory
from pacsteward.archive.model import Instance
from pacsteward.archive.record import checksum_of
from pacsteward.base.errors import NotFound, WouldWait
from pacsteward.dicom.part10 import FileMeta, encode_part10_head

AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""As much is read at once: more holds up the loop by milliseconds."""


class Enclosed(NamedTuple):
    """The data set of an instance between other bytes."""

    before: bytes
    instance: Instance
    after: bytes


def file_head(instance: Instance) -> bytes:
    """Return what stands before the data set in a file: preamble, prefix, file meta."""
    if instance.file_meta:
        return _PREAMBLE_AND_PREFIX + instance.file_meta
    return encode_part10_head(
        FileMeta(instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid)
    )


_PREAMBLE_AND_PREFIX: Final = bytes(128) + b"DICM"


class AtOnceReader:
    """Reads objects of one data folder; may be shared by threads."""

    def __init__(self, data_folder: Path) -> None:
        self._data_folder = data_folder
        self._memory = LentMemory()

    def wholes(self, instances: Sequence[Instance]) -> list[memoryview]:
        """Return the whole data sets of instances that lie in one container.

        Raises
        ------
        WouldWait
            See above.
        """
        joined = self.joined([Enclosed(b"", one, b"") for one in instances])
        ends = list(accumulate([one.location.length for one in instances], initial=0))
        return [joined[begin:end] for begin, end in pairwise(ends)]

    def joined(self, parts: Sequence[Enclosed]) -> memoryview:
        """Return whole data sets, each between other bytes, one behind the other.

        Parameters
        ----------
        parts
            One or more, whose instances lie in one container.

        Raises
        ------
        WouldWait
            See above.
        """
        size = sum([len(before) + one.location.length + len(after) for before, one, after in parts])
        if size > AT_ONCE_BYTES:
            raise WouldWait
        whole = self._memory.lend(size)
        try:
            with opened(
                self._data_folder, parts[0].instance.location, may_wait=False
            ) as descriptor:
                at = 0
                for before, instance, after in parts:
                    begin = at + len(before)
                    end = begin + instance.location.length
                    whole[at:begin] = before
                    _read(descriptor, instance, whole[begin:end])
                    at = end + len(after)
                    whole[end:at] = after
        except NotFound:
            raise WouldWait from None
        return whole


def _read(descriptor: int, instance: Instance, into: memoryview) -> None:
    """Read what the system has in its page cache, and nothing that it would have to fetch."""
    try:
        found = os.preadv(descriptor, [into], instance.location.offset, os.RWF_NOWAIT)
    except OSError:
        # Not in memory, not told by this file system, or the disk failed.
        raise WouldWait from None
    if found < len(into) or checksum_of(into) != instance.checksum != UNKNOWN_CHECKSUM:
        raise WouldWait
