"""The decoders of this process: made when the first image is asked for, ended with the process."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from pacsteward.archive import Archive, Instance
from pacsteward.base.errors import Exhausted, NotFound
from pacsteward.dicom.decode import DecoderPool
from pacsteward.dicom.frames import FrameTable
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.render_request import RenderRequest
from pacsteward.dicom.web.errors import TooLarge

WORKERS_MAX: Final = 4

_making: Final = threading.Lock()


def pool() -> DecoderPool:
    """Return the pool of this process.

    It must not be made before the process forks: a child of the parent cannot be asked by others.
    """
    with _making:
        return _pool_of(os.getpid())


@cache
def _pool_of(_process_id: int) -> DecoderPool:
    made = DecoderPool(min(WORKERS_MAX, os.cpu_count() or 1))
    atexit.register(made.close)
    return made


def code_frame(data: bytes, from_uid: str, to_uid: str, image: ImagePixel) -> tuple[bytes, str]:
    """Decode and encode one frame in a child process: a `transcode.FrameCoder`.

    Raises
    ------
    TooLarge
        It takes more memory or time than one image may.
    """
    with _bounded():
        return pool().code_frame(data, from_uid, to_uid, image)


def frames_of(archive: Archive, instance: Instance) -> FrameTable:
    """Return where the frames of an instance are; see `Archive.frames`.

    Raises
    ------
    TooLarge
        What stands before its pixels is more than one image may have.
    """
    with _bounded():
        return archive.frames(instance)


def draw(archive: Archive, instance: Instance, request: RenderRequest) -> bytes:
    """Draw one frame of an instance as an image file.

    Raises
    ------
    NotFound
        It has no pixel data, or no such frame.
    Unsupported, Invalid, TooLarge
        It cannot be decoded, is damaged, or is too large.
    """
    if not instance.has_pixel_data:
        raise NotFound(
            f"There is no picture of instance {instance.sop_instance_uid}.",
            why="It has no pixel data.",
        )
    table = frames_of(archive, instance)
    with archive.open(instance) as stored, _bounded():
        return pool().render(
            stored.read, stored.size, stored.transfer_syntax_uid, request, table=table
        )


@contextmanager
def _bounded() -> Iterator[None]:
    """Tell an image that is too large for us from an archive that is full (PS3.18 8.5: 413)."""
    try:
        yield
    except Exhausted as error:
        raise TooLarge(error.what, why=error.why, remedy=error.remedy) from error
