"""The part of the archive that never waits, for an event loop.

A frame that a viewer scrolls to is nearly always in the system's memory already, and its row in the
index is some microseconds away. So whoever runs on an event loop asks here first. What has to be
asked of the `Archive`, from a thread, raises `WouldWait`, which tells the rule: bytes that the disk
has to bring, a container that the recycler has, an index that lags behind what was acknowledged, an
object that is large or that nobody has gone through yet, a database on the other end of a line.

What it does answer is what the `Archive` would: the same rows, leases, generations and checksums.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from pacsteward.archive.at_once import Enclosed
from pacsteward.archive.model import Instance
from pacsteward.archive.read import KEPT_WHOLE_BYTES, Reader, StoredObject
from pacsteward.archive.recent import Recent
from pacsteward.archive.watermark import Watermark
from pacsteward.base.errors import WouldWait
from pacsteward.dicom.frames import FrameTable, locate_frames
from pacsteward.dicom.media import Codec, codec_of
from pacsteward.dicom.uids import transfer_syntax


class PromptArchive:
    """Made by `Archive`, which shares with it what it remembers.

    Parameters
    ----------
    frames
        Frame tables of what was looked at last.
    """

    def __init__(
        self,
        reader: Reader,
        watermark: Watermark,
        frames: Recent[tuple[str, int], FrameTable],
    ) -> None:
        self._reader = reader
        self._watermark = watermark
        self._frames = frames

    def instance(self, study_uid: str, series_uid: str, sop_uid: str) -> Instance:
        """Return one instance.

        Raises
        ------
        WouldWait
            See above; or the index has none.
        """
        if not self._watermark.is_caught_up:
            raise WouldWait
        found = self._reader.indexed_instance(study_uid, series_uid, sop_uid, may_wait=False)
        if found is None:
            raise WouldWait
        return found

    def open(self, instance: Instance) -> AbstractContextManager[StoredObject]:
        """Give the bytes of an instance while the block lasts; reads may raise `WouldWait`."""
        return self._reader.open_at_once(instance)

    def joined(self, parts: Sequence[Enclosed]) -> memoryview:
        """Return whole data sets of one container, checked, each between other bytes.

        Raises
        ------
        WouldWait
            See above; or one of them is not what was received.
        """
        return self._reader.at_once.joined(parts)

    def wholes(self, instances: Sequence[Instance]) -> list[memoryview]:
        """Return the whole data sets of instances of one container, checked.

        Raises
        ------
        WouldWait
            See above; or one of them is not what was received.
        """
        return self._reader.at_once.wholes(instances)

    def view(self, instance: Instance, offset: int, length: int) -> memoryview:
        """Return a range of the data set of an instance, shorter only at its end; checked.

        Raises
        ------
        NotFound, Broken
            It is gone, or not what was received.
        WouldWait
            See above.
        """
        return self._reader.view_at_once(instance, offset, length)

    def frames(self, instance: Instance) -> FrameTable:
        """Return where the frames of an instance are.

        Raises
        ------
        NotFound, Invalid
            It has no frames, or is damaged.
        WouldWait
            See above.
        """
        if _must_be_inflated(instance):
            raise WouldWait
        table = self._frames.get(_key(instance))
        if table is None:
            if instance.size_bytes > KEPT_WHOLE_BYTES:
                raise WouldWait
            with self.open(instance) as stored:
                table = self._located(stored)
        return table

    def frames_in(self, stored: StoredObject) -> FrameTable | None:
        """Return where the frames of an open instance are; None where to find them is long work.

        Raises
        ------
        NotFound, Invalid
            It has no frames, or is damaged.
        """
        if _must_be_inflated(stored.instance):
            return None
        table = self._frames.get(_key(stored.instance))
        if table is None and stored.size <= KEPT_WHOLE_BYTES:
            table = self._located(stored)
        return table

    def _located(self, stored: StoredObject) -> FrameTable:
        table = locate_frames(stored.read, stored.size, stored.transfer_syntax_uid)
        self._frames.put(_key(stored.instance), table)
        return table


def _key(instance: Instance) -> tuple[str, int]:
    return instance.sop_instance_uid, instance.checksum


def _must_be_inflated(instance: Instance) -> bool:
    """Say whether its frames take more work, and more memory, than their stored bytes tell."""
    uid = instance.transfer_syntax_uid
    return transfer_syntax(uid).is_deflated or codec_of(uid) is Codec.DEFLATED_FRAME
