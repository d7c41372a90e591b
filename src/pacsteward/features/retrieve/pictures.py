"""Pictures for the eye: which object and frame stands for a study or series, and drawing it.

Drawing decodes what strangers have sent, so it happens in a child process with limits
(`dicom.decode`), but for native pixels, where there is nothing to decode. What was drawn is kept
for a while in memory, since lists show the same small pictures again and again.

References
----------
PS3.18 10.4.1.1.3 (rendered), 10.4.1.1.4 (thumbnail), 8.3.5.1 (their parameters).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from pacsteward.archive import Archive, Instance, PromptArchive
from pacsteward.base.errors import NotFound
from pacsteward.dicom.render_request import RenderRequest
from pacsteward.dicom.uids import transfer_syntax
from pacsteward.features.retrieve.decoding import draw, draw_at_once
from pacsteward.features.retrieve.settings import RetrieveSettings

CACHE_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """What a picture shows."""

    instance: Instance
    frame: int = 1


def representative(instances: Sequence[Instance]) -> Subject:
    """Choose the picture that stands for a study or series (C60).

    It is the middle of the first series that has pictures: the first slice of a head is air, and
    so is the last. Of a multi-frame object it is the middle frame. Videos are not drawn here, so
    one of them stands for nothing.

    Raises
    ------
    NotFound
        None of the objects has a picture.
    """
    pictured = [
        instance
        for instance in instances
        if instance.has_pixel_data and not transfer_syntax(instance.transfer_syntax_uid).is_video
    ]
    if not pictured:
        raise NotFound(
            "There is no picture of it.",
            why="None of its instances has pixel data other than of a video.",
        )
    first = pictured[0].series_instance_uid
    series = [instance for instance in pictured if instance.series_instance_uid == first]
    return middle_frame(series[len(series) // 2])


def middle_frame(instance: Instance) -> Subject:
    """Choose the frame that stands for an instance."""
    frames = number_of_frames(instance)
    return Subject(instance, frames // 2 + 1 if frames > 1 else 1)


def number_of_frames(instance: Instance) -> int:
    """Return how many frames an instance says it has; 1 where it says nothing of use."""
    text = instance.number_of_frames.strip()
    return max(1, int(text)) if text.isdecimal() and len(text) < 10 else 1


class PictureCache:
    """Pictures that were drawn, the least recently used going first."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pictures: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> bytes | None:
        """Return a picture, None when it is not here."""
        with self._lock:
            picture = self._pictures.get(key)
            if picture is not None:
                self._pictures.move_to_end(key)
            return picture

    def put(self, key: Hashable, picture: bytes) -> None:
        """Keep a picture."""
        with self._lock:
            self._size += len(picture) - len(self._pictures.pop(key, b""))
            self._pictures[key] = picture
            while self._size > self._max_bytes:
                _key, dropped = self._pictures.popitem(last=False)
                self._size -= len(dropped)


_CACHE: Final = PictureCache()


def picture(
    archive: Archive, settings: RetrieveSettings, subject: Subject, request: RenderRequest
) -> bytes:
    """Return the picture of a subject as an image file. Blocks.

    Raises
    ------
    NotFound
        The instance has no pixel data, or no such frame.
    Unsupported, Invalid, Exhausted
        It cannot be decoded, is damaged, or is too large.
    """
    key = _key(subject.instance, request)
    known = _CACHE.get(key)
    if known is None:
        known = draw(archive, settings, subject.instance, request)
        _CACHE.put(key, known)
    return known


def picture_at_once(
    archive: PromptArchive, settings: RetrieveSettings, subject: Subject, request: RenderRequest
) -> bytes:
    """Do the same on an event loop.

    Raises
    ------
    WouldWait
        To draw it is more than a little work, or its bytes have to be waited for.
    """
    key = _key(subject.instance, request)
    known = _CACHE.get(key)
    if known is None:
        known = draw_at_once(archive, settings, subject.instance, request)
        _CACHE.put(key, known)
    return known


def _key(instance: Instance, request: RenderRequest) -> Hashable:
    # The series version changes whenever something that a reader could see does (C38), but one that
    # was deleted and stored anew may come to the same within a second.
    identity = (instance.sop_instance_uid, instance.checksum, instance.size_bytes)
    return (*identity, instance.series_version, request)
