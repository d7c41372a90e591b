"""Objects as streams of bytes: parts of a response, or a ZIP file of a study.

Everything here is a generator that reads one object after the other, so that a study of gigabytes
needs the memory of a few pieces.

References
----------
PS3.18 8.7.8 (multipart), 10.4 (retrieve); PS3.10 7 (file format); PKWARE APPNOTE 4.3 and 4.4.4
(ZIP with sizes behind the data).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pacsteward.archive import (
    Archive,
    BulkData,
    Enclosed,
    Instance,
    PromptArchive,
    StoredObject,
    file_head,
)
from pacsteward.base.errors import Exhausted, Invalid, Unsupported, WouldWait
from pacsteward.base.late import late
from pacsteward.dicom.fragments import Buffer
from pacsteward.dicom.frames import FrameTable, frame_bytes
from pacsteward.dicom.part10 import encode_part10_head
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.transcode import FrameCoder, transcode_chunks
from pacsteward.dicom.web.multipart import Writer
from pacsteward.dicom.web.negotiation import (
    DICOM,
    EXPLICIT_VR_LITTLE_ENDIAN,
    Offer,
)
from pacsteward.features.retrieve.decoding import frames_of
from pacsteward.features.retrieve.representations import Planned, part_content_type
from pacsteward.features.retrieve.together import TOGETHER_BYTES, lie_together

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""Earliest moment that ZIP can name; the time of an export says nothing about the images."""

SMALL_BYTES: Final = 2 << 20
"""So much is held in memory for one answer, and read on the event loop."""


# --- whole objects ------------------------------------------------------------------------------


def object_at_once(
    archive: PromptArchive, instance: Instance, before: bytes, after: bytes
) -> memoryview:
    """Give one object as a Part 10 file between other bytes, without ever waiting."""
    return archive.joined((Enclosed(before + file_head(instance), instance, after),))


def part10_file(archive: Archive, planned: Planned, code_frame: FrameCoder) -> Iterator[Buffer]:
    """Give one object as a Part 10 file."""
    with archive.open(planned.instance) as stored:
        yield from _file(stored, planned.transfer_syntax_uid, code_frame, archive)[1]


def _file(
    stored: StoredObject, target: str, code_frame: FrameCoder, archive: Archive
) -> tuple[str, Iterator[Buffer]]:
    """Return the transfer syntax that it really leaves in, and the pieces of the file."""
    if target == stored.transfer_syntax_uid:
        return target, _as_stored(stored)
    # Damage is then an answer of its own, and not one that breaks off after a few frames.
    stored.check()
    try:
        chunks = transcode_chunks(
            stored.read,
            stored.size,
            stored.transfer_syntax_uid,
            target,
            code_frame=code_frame,
            scratch=archive.scratch_folder(),
        )
    except (Invalid, Unsupported, Exhausted):
        # One damaged image must not make a whole study impossible to retrieve. It leaves as it
        # came, and its label and file meta say so.
        return stored.transfer_syntax_uid, _as_stored(stored)
    head = encode_part10_head(replace(stored.file_meta, transfer_syntax_uid=target))
    return target, _joined(head, chunks)


def _as_stored(stored: StoredObject) -> Iterator[Buffer]:
    yield stored.head()
    yield from stored.chunks()


def _joined(head: bytes, chunks: Iterator[bytes]) -> Iterator[Buffer]:
    yield head
    yield from chunks


def object_parts(
    archive: Archive,
    plan: Sequence[Planned],
    writer: Writer,
    code_frame: FrameCoder,
) -> Iterator[Buffer]:
    """Give objects as parts of a multipart/related payload."""
    for planned in plan:
        yield from _object_part(archive, planned, writer, code_frame)
    yield writer.end


def _object_part(
    archive: Archive, planned: Planned, writer: Writer, code_frame: FrameCoder
) -> Iterator[Buffer]:
    with archive.open(planned.instance) as stored:
        syntax, pieces = _file(stored, planned.transfer_syntax_uid, code_frame, archive)
        yield writer.head({"Content-Type": part_content_type(DICOM, syntax)})
        yield from pieces
        yield writer.gap


def parted(plan: Sequence[Planned]) -> Iterator[Sequence[Planned]]:
    """Part objects, in their order, into those that are read and sent together.

    They lie in one container, leave as they are stored and are small; any other is alone.
    """
    together: list[Planned] = []
    size = 0
    for planned in plan:
        size += planned.instance.size_bytes
        if together and (
            size > TOGETHER_BYTES
            or not planned.is_as_stored
            or not together[-1].is_as_stored
            or not lie_together(planned.instance, together[-1].instance)
        ):
            yield together
            together, size = [], planned.instance.size_bytes
        together.append(planned)
    if together:
        yield together


@dataclass(frozen=True, slots=True)
class ObjectsPart:
    """Some objects of many, as `PartsAnswer` sends them.

    Parameters
    ----------
    together
        As `parted` gives them.
    """

    archive: Archive
    together: Sequence[Planned]
    writer: Writer
    code_frame: FrameCoder

    def at_once(self) -> Buffer:
        """Give their bytes on the event loop, or raise `WouldWait`."""
        if not is_small(self.together):
            # A large one would be in memory as a whole, and the loop with it for as long.
            raise WouldWait
        heads = {
            uid: self.writer.head({"Content-Type": part_content_type(DICOM, uid)})
            for uid in {one.transfer_syntax_uid for one in self.together}
        }
        return self.archive.prompt.joined(
            [
                Enclosed(
                    heads[one.transfer_syntax_uid] + file_head(one.instance),
                    one.instance,
                    self.writer.gap,
                )
                for one in self.together
            ]
        )

    def pieces(self) -> Iterator[Buffer]:
        """Give their bytes in a thread."""
        for one in self.together:
            yield from _object_part(self.archive, one, self.writer, self.code_frame)


def is_small(plan: Sequence[Planned]) -> bool:
    """Whether all objects leave as they are stored and may be held in memory together."""
    return all(one.is_as_stored for one in plan) and (
        sum(one.instance.size_bytes for one in plan) <= SMALL_BYTES
    )


def size_of_parts(plan: Sequence[Planned], writer: Writer) -> int | None:
    """Return the length of `object_parts`, None when something has to be converted first."""
    if not all(planned.is_as_stored for planned in plan):
        return None
    heads = {
        uid: len(writer.head({"Content-Type": part_content_type(DICOM, uid)}))
        for uid in {planned.transfer_syntax_uid for planned in plan}
    }
    size = len(writer.end)
    for planned in plan:
        size += heads[planned.transfer_syntax_uid] + size_of_file(planned.instance)
        size += len(writer.gap)
    return size


def size_of_file(instance: Instance) -> int:
    """Return the length of an object as a Part 10 file, as it is stored."""
    return len(file_head(instance)) + instance.size_bytes


# --- ZIP ----------------------------------------------------------------------------------------


class _Outlet:
    """What `zipfile` writes to when it cannot seek: a list that is emptied as we go."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._position = 0

    def write(self, data: Buffer, /) -> int:
        self.pieces.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> list[bytes]:
        taken, self.pieces = self.pieces, []
        return taken


def zip_file(archive: Archive, instances: Sequence[Instance]) -> Iterator[bytes]:
    """Give objects as a ZIP of Part 10 files, as they are stored.

    Without compression: images hardly shrink, and the line is faster than the packer. Names are
    UIDs, so that no patient's name gets into a list of downloads.
    """
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED, allowZip64=True) as packed:
        for instance in instances:
            entry = zipfile.ZipInfo(_zip_name(instance), _ZIP_TIME)
            with (
                archive.open(instance) as stored,
                packed.open(entry, "w", force_zip64=True) as target,
            ):
                for piece in _as_stored(stored):
                    target.write(piece)
                    yield from outlet.take()
            yield from outlet.take()
    yield from outlet.take()


def _zip_name(instance: Instance) -> str:
    return (
        f"{instance.study_instance_uid}/{instance.series_instance_uid}/"
        f"{instance.sop_instance_uid}.dcm"
    )


# --- frames -------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One frame as it leaves, with a truthful label."""

    data: Buffer
    transfer_syntax_uid: str


def frames(
    archive: Archive | PromptArchive,
    instance: Instance,
    table: FrameTable,
    numbers: Sequence[int],
    offer: Offer,
    code_frame: FrameCoder,
) -> Iterator[Frame]:
    """Give frames in the transfer syntax that was chosen, in the order asked for."""
    contents: Iterator[Frame] | None = None
    if isinstance(archive, PromptArchive):
        contents = _at_once(archive, instance, table, numbers)
    if contents is None:
        contents = _as_delivered(archive, instance, table, numbers)
    if offer.transfer_syntax == table.delivered_transfer_syntax_uid:
        return contents
    return decoded(contents, table.image, code_frame)


def _as_delivered(
    archive: Archive | PromptArchive, instance: Instance, table: FrameTable, numbers: Sequence[int]
) -> Iterator[Frame]:
    with archive.open(instance) as stored:
        for number in numbers:
            yield _frame(stored, table, number)


def _at_once(
    archive: PromptArchive, instance: Instance, table: FrameTable, numbers: Sequence[int]
) -> Iterator[Frame] | None:
    """Do the same for one frame that leaves in one piece; None for others.

    Nothing is held open meanwhile, which is a quarter of the work.
    """
    if len(numbers) != 1:
        return None
    span = table.span_as_delivered(numbers[0])
    if span is None:
        return None
    data = archive.view(instance, *span)
    if len(data) != span[1]:
        return None
    return iter((Frame(data, table.delivered_transfer_syntax_uid),))


def _frame(stored: StoredObject, table: FrameTable, number: int) -> Frame:
    span = table.span_as_delivered(number)
    if span is not None:
        data = stored.view(*span)
        if len(data) == span[1]:
            return Frame(data, table.delivered_transfer_syntax_uid)
    content = frame_bytes(stored.read, table, number)
    return Frame(content.data, content.transfer_syntax_uid)


def decoded(
    contents: Iterator[Frame], image: ImagePixel, code_frame: FrameCoder
) -> Iterator[Frame]:
    """Give frames decoded to Explicit VR Little Endian."""
    for content in contents:
        data, _photometric = code_frame(
            bytes(content.data), content.transfer_syntax_uid, EXPLICIT_VR_LITTLE_ENDIAN, image
        )
        if image.bits_allocated == 1:
            # A decoder gives a byte for each bit; the native encoding packs them (PS3.5 8.1.1).
            data = np.packbits(np.frombuffer(data, np.uint8), bitorder="little").tobytes()
        yield Frame(data, EXPLICIT_VR_LITTLE_ENDIAN)


def frame_parts(contents: Iterable[Frame], media_type: str, writer: Writer) -> Iterator[Buffer]:
    """Give frames as parts of a multipart/related payload, each labelled truthfully."""
    for content in contents:
        label = part_content_type(media_type, content.transfer_syntax_uid)
        yield writer.head({"Content-Type": label})
        yield content.data
        yield writer.gap
    yield writer.end


# --- ranges -------------------------------------------------------------------------------------

_CHUNK: Final = 1 << 20

RangeStream = Callable[[int, int], Iterator[bytes]]
"""Given the first byte and the byte after the last one, gives what is between."""


def bulk_data_reader(archive: Archive, instance: Instance, found: BulkData) -> RangeStream:
    """Return what reads ranges of a value."""

    def read(start: int, end: int) -> Iterator[bytes]:
        with archive.open(instance) as stored:
            for offset in range(start, end, _CHUNK):
                yield found.read(stored.read, offset, min(_CHUNK, end - offset))

    return read


def video_stream(archive: Archive, instance: Instance) -> tuple[int, RangeStream]:
    """Return the length of an instance's video, and what reads ranges of it (C44, C45).

    The stream is one or more fragments of the encapsulated pixel data, without what is between
    them.
    """
    spans = frames_of(archive, instance).stream_spans()
    length = sum(length for _offset, length in spans)
    video = BulkData("", length, spans)
    return length, bulk_data_reader(archive, instance, video)
