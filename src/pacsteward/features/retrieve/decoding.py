"""The decoders of this process: made when the first image is asked for, ended with the process."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from pacsteward.archive import Archive, BulkData, Instance, PromptArchive
from pacsteward.base.errors import Exhausted, NotFound, WouldWait
from pacsteward.dicom.decode import DecoderPool, drawn_here, is_quickly_drawn
from pacsteward.dicom.frames import FrameTable
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.render import frame_source
from pacsteward.dicom.render_request import RenderRequest
from pacsteward.dicom.transcode import FrameCoder
from pacsteward.dicom.uids import transfer_syntax
from pacsteward.dicom.web.errors import NotAcceptable, TooLarge
from pacsteward.features.retrieve.settings import RetrieveSettings

WORKERS_MAX: Final = 4

_making: Final = threading.Lock()


def pool(settings: RetrieveSettings) -> DecoderPool:
    """Return the pool of this process.

    It must not be made before the process forks: a child of the parent cannot be asked by others.
    """
    with _making:
        return _pool_of(os.getpid(), settings.decoder_memory_bytes, settings.decoder_time_s)


@cache
def _pool_of(_process_id: int, memory_bytes: int, time_s: float) -> DecoderPool:
    workers = min(WORKERS_MAX, os.cpu_count() or 1)
    made = DecoderPool(workers, memory_bytes=memory_bytes, time_s=time_s)
    atexit.register(made.close)
    return made


def frame_coder(settings: RetrieveSettings) -> FrameCoder:
    """Return what decodes and encodes one frame in a child process.

    It raises `TooLarge` when that takes more memory or time than one image may.
    """

    def code(data: bytes, from_uid: str, to_uid: str, image: ImagePixel) -> tuple[bytes, str]:
        with _bounded():
            return pool(settings).code_frame(data, from_uid, to_uid, image)

    return code


def coder_at_once(data: bytes, from_uid: str, to_uid: str, image: ImagePixel) -> tuple[bytes, str]:
    """Stand for a coder where nobody may wait for one.

    Raises
    ------
    WouldWait
        Always.
    """
    raise WouldWait


def frames_of(archive: Archive | PromptArchive, instance: Instance) -> FrameTable:
    """Return where the frames of an instance are; see `Archive.frames`.

    Raises
    ------
    TooLarge
        What stands before its pixels is more than one image may have.
    """
    try:
        return archive.frames(instance)
    except Exhausted as error:
        raise _too_large(error) from error


def check_frames_are_apart(instance: Instance) -> None:
    """Refuse a video, of which no single frame is cut out here.

    Raises
    ------
    NotAcceptable
        It is one. The frame exists, so it is not 404, and it is no method that we lack (501).
    """
    if instance.has_pixel_data and transfer_syntax(instance.transfer_syntax_uid).is_video:
        raise NotAcceptable(
            f"Instance {instance.sop_instance_uid} has no frames or pictures that could be given.",
            why="It is a video; its frames are one compressed stream.",
            remedy="Ask for the rendered instance: that is the video itself.",
        )


def bulk_data_of(archive: Archive, instance: Instance, path: str) -> BulkData:
    """Return where a value of an instance is; see `Archive.locate_bulk_data`.

    Raises
    ------
    TooLarge
        It has to be converted, and is too large for that.
    """
    with _bounded():
        return archive.locate_bulk_data(instance, path)


def draw(
    archive: Archive, settings: RetrieveSettings, instance: Instance, request: RenderRequest
) -> bytes:
    """Draw one frame of an instance as an image file.

    Raises
    ------
    NotFound
        It has no pixel data, or no such frame.
    NotAcceptable
        It is a video.
    Unsupported, Invalid, TooLarge
        It cannot be decoded, is damaged, or is too large.
    """
    if not instance.has_pixel_data:
        raise NotFound(
            f"There is no picture of instance {instance.sop_instance_uid}.",
            why="It has no pixel data.",
            remedy="Retrieve the object as it is stored.",
        )
    check_frames_are_apart(instance)
    with archive.open(instance) as stored, _bounded():
        # A small object is read once for both.
        table = archive.prompt.frames_in(stored) or archive.frames(instance)
        table.image.check_drawable(settings.rendered_pixels_max)
        return pool(settings).render(
            stored.read,
            stored.size,
            stored.transfer_syntax_uid,
            request,
            table=table,
            view=stored.view,
        )


def draw_at_once(
    archive: PromptArchive, settings: RetrieveSettings, instance: Instance, request: RenderRequest
) -> bytes:
    """Do the same on an event loop, for a small native frame.

    Raises
    ------
    WouldWait
        It is no such frame, or its bytes are not in memory.
    NotFound, Invalid, Exhausted
        It is damaged, or has no such frame.
    """
    if not instance.has_pixel_data:
        raise WouldWait
    with archive.open(instance) as stored:
        table = archive.frames_in(stored)
        if table is None or not is_quickly_drawn(table, request):
            raise WouldWait
        table.image.check_drawable(settings.rendered_pixels_max)
        return drawn_here(frame_source(stored.read, table, request.frame, stored.view), request)


@contextmanager
def _bounded() -> Iterator[None]:
    """Tell an image that is too large for us from an archive that is full (PS3.18 8.5: 413)."""
    try:
        yield
    except Exhausted as error:
        raise _too_large(error) from error


def _too_large(error: Exhausted) -> TooLarge:
    return TooLarge(error.what, why=error.why, remedy=error.remedy)
