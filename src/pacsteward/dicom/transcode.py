"""The same object in another transfer syntax, for a receiver that cannot read the stored one.

What enters is a stored data set and two transfer syntaxes; what leaves is the data set in the
second, a chunk at a time. Identity is never changed: nothing here loses anything, so the object
keeps its SOP Instance UID (PS3.3 C.12.4.1.1). No transfer syntax is written that could lose, and
what a lossy syntax lost before is said in Lossy Image Compression (0028,2110).

The attributes are written by `recode`. Frames are decoded and encoded by a `FrameCoder`: in the
server that is a child process (`decode.DecoderPool.code_frame`), one frame at a time, so that the
limits are those of a frame and a long multi-frame object needs no more memory than a short one.

References
----------
PS3.5 8.2 and A.4 (pixel encodings), PS3.3 C.7.6.1.1.5 (lossy images stay lossy), C.7.6.3.1.2
(photometric interpretation), C.7.6.3.1.8 (Extended Offset Table).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pacsteward.base.errors import NotFound, Unsupported
from pacsteward.base.late import late
from pacsteward.dicom import frames, uids
from pacsteward.dicom.codecs import DECODABLE, decode_frame
from pacsteward.dicom.deflated import InflatedFile
from pacsteward.dicom.elements import (
    UNDEFINED_LENGTH,
    Attributes,
    DataSetReader,
    Element,
    Encoding,
    RangeReader,
)
from pacsteward.dicom.encode import ENCODABLE, encode_frame
from pacsteward.dicom.media import Codec, codec_of, encoding_of, is_always_lossy
from pacsteward.dicom.pixels import ImagePixel, image_pixel
from pacsteward.dicom.recode import Edits, Value, header, recode
from pacsteward.dicom.samples import native_bytes
from pacsteward.dicom.tags import (
    BITS_ALLOCATED,
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
    ITEM,
    LOSSY_IMAGE_COMPRESSION,
    PHOTOMETRIC_INTERPRETATION,
    PIXEL_DATA,
    PLANAR_CONFIGURATION,
    SEQUENCE_DELIMITATION_ITEM,
)

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

FrameCoder = Callable[[bytes, str, str, ImagePixel], tuple[bytes, str]]
"""``(frame, from_uid, to_uid, image)`` to the frame in the other syntax and its photometric
interpretation. One-bit samples come back unpacked, a byte each, when ``to_uid`` is native."""


_NATIVE: Final = frozenset(
    {
        uids.EXPLICIT_VR_LITTLE_ENDIAN,
        uids.IMPLICIT_VR_LITTLE_ENDIAN,
        uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        uids.EXPLICIT_VR_BIG_ENDIAN,
    }
)

_COPY_CHUNK: Final = 1 << 20
_HEADER_CHUNK: Final = 8 << 20
"""A header up to this size is written as a whole: its faults are known before it is sent."""
_OFFSET_MAX: Final = 0xFFFFFFFF


def can_transcode(from_uid: str, to_uid: str) -> bool:
    """Whether objects of one transfer syntax can be given in another without loss.

    A true answer is about the syntaxes. A single object may still be refused, when its samples do
    not fit the target (floating point, too many bits).
    """
    if from_uid == to_uid:
        return True
    if from_uid not in uids.TRANSFER_SYNTAXES or codec_of(from_uid) not in DECODABLE:
        return False
    return to_uid in _NATIVE or to_uid in ENCODABLE


def transcode_frame(
    data: bytes, from_uid: str, to_uid: str, image: ImagePixel
) -> tuple[bytes, str]:
    """Return one frame in another transfer syntax, in this process: the plain `FrameCoder`."""
    decoded = decode_frame(data, from_uid, image)
    if to_uid in _NATIVE:
        return native_bytes(decoded.samples), decoded.photometric_interpretation
    described = replace(image, photometric_interpretation=decoded.photometric_interpretation)
    return encode_frame(decoded.samples, to_uid, described)


def transcode_chunks(
    read: RangeReader,
    size: int,
    from_uid: str,
    to_uid: str,
    *,
    code_frame: FrameCoder = transcode_frame,
    scratch: Path | None = None,
) -> Iterator[bytes]:
    """Yield a stored data set in another transfer syntax.

    Parameters
    ----------
    read, size
        The stored data set, without the part 10 head.
    from_uid, to_uid
        How it is stored, and how it is wanted.
    code_frame
        Decodes and encodes one frame.
    scratch
        Where a large deflated object is inflated to; None for the system's temporary folder.

    Raises
    ------
    Unsupported
        Before anything is yielded, when it cannot be done without loss.
    Invalid
        When the stored object is damaged.
    """
    if from_uid == to_uid:
        return iter((read(0, size),))
    if not can_transcode(from_uid, to_uid):
        raise Unsupported(
            f"The object was not given in transfer syntax {to_uid}.",
            why=f"It is stored in {from_uid}, and there is no way from one to the other without "
            "loss.",
            remedy=f"Ask for {from_uid}, or for Explicit VR Little Endian where it can be decoded.",
        )
    if _is_deflated(from_uid):
        chunks = _inflated_first(read, size, to_uid, code_frame, scratch)
    else:
        chunks = _Transcoder(read, size, from_uid, to_uid, code_frame).chunks()
    # The first chunk is made now: what cannot be done is said before anything is sent.
    first = next(chunks, b"")
    return _deflated(_chain(first, chunks)) if _is_deflated(to_uid) else _chain(first, chunks)


def _inflated_first(
    read: RangeReader, size: int, to_uid: str, code_frame: FrameCoder, scratch: Path | None
) -> Iterator[bytes]:
    """Yield a deflated object, which has no way in but its beginning."""
    plain = InflatedFile(read, size, scratch)
    try:
        from_uid = uids.EXPLICIT_VR_LITTLE_ENDIAN
        yield from _Transcoder(plain.read, plain.size, from_uid, to_uid, code_frame).chunks()
    finally:
        plain.close()


class _Transcoder:
    """One object on its way from one transfer syntax to another."""

    def __init__(
        self, read: RangeReader, size: int, from_uid: str, to_uid: str, code_frame: FrameCoder
    ) -> None:
        self.read = read
        self.size = size
        self.from_uid = from_uid
        self.to_uid = to_uid
        self.code_frame = code_frame
        self.source = encoding_of(from_uid)
        self.target = encoding_of(to_uid)

    def chunks(self) -> Iterator[bytes]:
        reader = DataSetReader(self.read, self.size)
        try:
            elements, pixel_data = frames.find_pixel_data(reader, self.source)
        except NotFound:
            return self._all_attributes()
        if codec_of(self.from_uid) is Codec.NATIVE and self.to_uid in _NATIVE:
            attributes = Attributes(reader, self.source, elements)
            return self._same_pixels(pixel_data, attributes.word(BITS_ALLOCATED) or 16)
        table = frames.locate_frames(self.read, self.size, self.from_uid)
        if self.to_uid in _NATIVE:
            return self._decompressed(table)
        return self._compressed(table)

    def _all_attributes(self) -> Iterator[bytes]:
        """Yield an object without pixel data."""
        return self._recoded(self.size, {})

    def _recoded(self, end: int, edits: Edits) -> Iterator[bytes]:
        """Yield the elements up to an offset; usually as one chunk, large ones as several."""
        pieces = recode(
            DataSetReader(self.read, self.size),
            (0, end),
            self.source,
            self.target,
            edits=edits,
            icon_edits=self._icon_edits,
        )
        return _gathered(pieces)

    def _after_pixels(self, position: int) -> Iterator[bytes]:
        """Yield what follows the pixel data: signatures and padding."""
        if position < self.size:
            reader = DataSetReader(self.read, self.size)
            yield from _gathered(recode(reader, (position, self.size), self.source, self.target))

    def _same_pixels(self, pixel_data: Element, bits_allocated: int) -> Iterator[bytes]:
        """Yield native pixels as they are, swapped where the byte order changes."""
        vr = pixel_data.vr or frames.pixel_vr(pixel_data.tag, bits_allocated)
        yield from self._recoded(pixel_data.start, {})
        yield header(pixel_data.tag, vr, pixel_data.length, self.target)
        swaps = self.source.is_little_endian != self.target.is_little_endian
        unit = frames.swap_unit(pixel_data.tag, vr, bits_allocated) if swaps else 1
        for position in range(pixel_data.value, pixel_data.end, _COPY_CHUNK):
            chunk = self.read(position, min(_COPY_CHUNK, pixel_data.end - position))
            yield frames.swap_bytes(chunk, unit)
        yield from self._after_pixels(pixel_data.end)

    def _decompressed(self, table: frames.FrameTable) -> Iterator[bytes]:
        """Yield frames of fragments as one native value."""
        image = table.image
        first, photometric = self._coded(table, 1)
        coded = _chain(first, (self._coded(table, n)[0] for n in _frames_after_first(table)))
        if image.bits_allocated == 1:
            coded = _packed_bits(coded)
        edits = _edits(image, photometric, self.from_uid)
        yield from self._recoded(table.header_length, edits)
        bits = image.samples * image.bits_allocated * image.number_of_frames
        length = (bits + 7) // 8
        vr = frames.pixel_vr(PIXEL_DATA, image.bits_allocated)
        yield header(PIXEL_DATA, vr, length + length % 2, self.target)
        unit = (
            1
            if self.target.is_little_endian
            else frames.swap_unit(PIXEL_DATA, vr, image.bits_allocated)
        )
        for chunk in coded:
            yield frames.swap_bytes(chunk, unit)
        if length % 2:
            yield b"\0"
        yield from self._after_pixels(_end_of_pixels(table, self.read, self.size, self.source))

    def _compressed(self, table: frames.FrameTable) -> Iterator[bytes]:
        """Yield frames as one fragment each, with a table of where they begin.

        They are held until all are there, since the table comes first and needs their lengths.
        """
        coded = [self._coded(table, 1)]
        coded += [self._coded(table, number) for number in _frames_after_first(table)]
        fragments = [data + b"\0" * (len(data) % 2) for data, _ in coded]
        edits = dict(_edits(table.image, coded[0][1], self.from_uid))
        offsets = _offsets(fragments)
        fits = offsets[-1] <= _OFFSET_MAX
        if not fits:
            edits[EXTENDED_OFFSET_TABLE] = Value("OV", struct.pack(f"<{len(offsets)}Q", *offsets))
            lengths = struct.pack(f"<{len(coded)}Q", *(len(data) for data, _ in coded))
            edits[EXTENDED_OFFSET_TABLE_LENGTHS] = Value("OV", lengths)
        yield from self._recoded(table.header_length, edits)
        yield header(PIXEL_DATA, "OB", UNDEFINED_LENGTH, self.target)
        basic = struct.pack(f"<{len(offsets)}I", *offsets) if fits else b""
        for fragment in (basic, *fragments):
            yield header(ITEM, "", len(fragment), self.target)
            yield fragment
        yield header(SEQUENCE_DELIMITATION_ITEM, "", 0, self.target)
        yield from self._after_pixels(_end_of_pixels(table, self.read, self.size, self.source))

    def _coded(self, table: frames.FrameTable, number: int) -> tuple[bytes, str]:
        content = frames.frame_bytes(self.read, table, number)
        return self.code_frame(content.data, content.transfer_syntax_uid, self.to_uid, table.image)

    def _icon_edits(self, icon: Attributes) -> Edits:
        """Return an icon's compressed pixels as native ones (PS3.5 A.4, PS3.3 C.7.6.1.1.6)."""
        element = icon.elements.get(PIXEL_DATA)
        is_native = codec_of(self.from_uid) is Codec.NATIVE
        if element is None or element.length != UNDEFINED_LENGTH or is_native:
            return {}
        image = replace(image_pixel(icon), number_of_frames=1)
        data = icon.joined_fragments(PIXEL_DATA)
        native, photometric = self.code_frame(
            data, self.from_uid, uids.EXPLICIT_VR_LITTLE_ENDIAN, image
        )
        if image.bits_allocated == 1:
            native = b"".join(_packed_bits((native,)))
        edits = dict(_edits(image, photometric, ""))
        vr = frames.pixel_vr(PIXEL_DATA, image.bits_allocated)
        unit = (
            1
            if self.target.is_little_endian
            else frames.swap_unit(PIXEL_DATA, vr, image.bits_allocated)
        )
        edits[PIXEL_DATA] = Value(vr, frames.swap_bytes(native + b"\0" * (len(native) % 2), unit))
        return edits


def _edits(image: ImagePixel, photometric: str, from_uid: str) -> Edits:
    """Return the attributes that another encoding of the same pixels changes."""
    name = photometric.encode("latin-1")  # as it was read, whatever it is
    edits: dict[int, Value | None] = {
        EXTENDED_OFFSET_TABLE: None,
        EXTENDED_OFFSET_TABLE_LENGTHS: None,
        PHOTOMETRIC_INTERPRETATION: Value("CS", name + b" " * (len(name) % 2)),
    }
    if image.samples_per_pixel > 1:
        edits[PLANAR_CONFIGURATION] = Value("US", b"\0\0")
    if is_always_lossy(from_uid):
        edits[LOSSY_IMAGE_COMPRESSION] = Value("CS", b"01")
    return edits


def _end_of_pixels(table: frames.FrameTable, read: RangeReader, size: int, source: Encoding) -> int:
    """Return where the elements after the pixel data begin."""
    if not table.is_encapsulated:
        return DataSetReader(read, size).element_at(table.header_length, source).end
    offset, length = table.stream_spans()[-1]
    return offset + length + 8


def _frames_after_first(table: frames.FrameTable) -> range:
    return range(2, table.number_of_frames + 1)


def _offsets(fragments: list[bytes]) -> list[int]:
    offsets = [0]
    for fragment in fragments[:-1]:
        offsets.append(offsets[-1] + 8 + len(fragment))
    return offsets


def _packed_bits(frames_of_bytes: Iterable[bytes]) -> Iterator[bytes]:
    """Yield one-bit samples packed without padding between frames (PS3.5 8.1.1)."""
    rest = np.empty(0, np.uint8)
    for frame in frames_of_bytes:
        bits = np.concatenate((rest, np.frombuffer(frame, np.uint8)))
        whole = bits.size - bits.size % 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    if rest.size:
        yield np.packbits(rest, bitorder="little").tobytes()


def _is_deflated(uid: str) -> bool:
    return uids.transfer_syntax(uid).is_deflated


def _deflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a data set deflated as a whole (PS3.5 A.5), padded to an even length."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = 0
    for chunk in chunks:
        packed = deflater.compress(chunk)
        length += len(packed)
        yield packed
    packed = deflater.flush()
    length += len(packed)
    yield packed + b"\0" * (length % 2)


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces joined to chunks of `_HEADER_CHUNK`, so that a header is one of them."""
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _HEADER_CHUNK:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
