"""Where the frames of a stored object are, and one frame of it, without decoding anything.

What enters is a range reader over a stored data set; what leaves is a `FrameTable`, small enough
to be cached beside the index, and from it one frame as stored. A frame is then one range read of a
two-gigabyte object.

Native frames follow from arithmetic. Which fragments make an encapsulated one is found by
`encapsulation`.

Two encodings are never delivered, since no viewer reads them: big endian samples are swapped and
deflated ones inflated on the way out, and labelled as what they then are.

References
----------
PS3.5 8.1.1 and 8.2 (pixel data), A.4 (encapsulation); PS3.18 8.7.3.3 and 10.4.1.1.6 (frame
resources).
"""

from __future__ import annotations

import array
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from pacsteward.base.errors import Exhausted, Invalid, NotFound, Unsupported
from pacsteward.dicom.deflated import cannot_inflate, inflate_range, inflated_header
from pacsteward.dicom.elements import (
    FIRST_LEVEL_MAX,
    HEADER_MAX,
    UNDEFINED_LENGTH,
    Attributes,
    DataSetReader,
    Element,
    Encoding,
    RangeReader,
)
from pacsteward.dicom.encapsulation import FIRST, FRAGMENT, Span, find_fragments
from pacsteward.dicom.media import Codec, codec_of, encoding_of, media_type
from pacsteward.dicom.pixels import ImagePixel, image_pixel
from pacsteward.dicom.tags import (
    DOUBLE_FLOAT_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PIXEL_DATA,
    PIXEL_DATA_PROVIDER_URL,
)
from pacsteward.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax

_PIXEL_TAGS: Final = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Where each frame of one instance lies; made by `locate_frames`, picklable, to be cached.

    Attributes
    ----------
    transfer_syntax_uid
        The stored encoding.
    image
        The Image Pixel module.
    header_length
        Offset of the pixel data element: all attributes that describe the pixels lie before it.
    stored_length
        Length of the stored data set.
    value
        Native: offset of the first frame.
    value_length
        Native: bytes of pixel data there are.
    swap_bytes
        Native, big endian: size of the unit whose bytes are reversed for delivery, 1 for none.
    fragments
        Encapsulated: offset (64 bits) and length (32 bits) of each fragment, little endian.
    first_fragments
        Encapsulated: index (32 bits) of the first fragment of each frame, empty where each
        fragment is a frame.

    Notes
    -----
    Offsets into a deflated data set count in the inflated one.
    """

    transfer_syntax_uid: str
    image: ImagePixel
    header_length: int
    stored_length: int
    value: int = 0
    value_length: int = 0
    swap_bytes: int = 1
    fragments: bytes = b""
    first_fragments: bytes = b""

    @property
    def number_of_frames(self) -> int:
        """Frames that the object says it has (0028,0008)."""
        return self.image.number_of_frames

    @property
    def rows(self) -> int:
        """Rows (0028,0010)."""
        return self.image.rows

    @property
    def columns(self) -> int:
        """Columns (0028,0011)."""
        return self.image.columns

    @property
    def samples_per_pixel(self) -> int:
        """Samples per Pixel (0028,0002)."""
        return self.image.samples_per_pixel

    @property
    def bits_allocated(self) -> int:
        """Bits Allocated (0028,0100)."""
        return self.image.bits_allocated

    @property
    def photometric_interpretation(self) -> str:
        """Photometric Interpretation (0028,0004)."""
        return self.image.photometric_interpretation

    @property
    def is_encapsulated(self) -> bool:
        """Whether the pixel data are fragments rather than one native value."""
        return bool(self.fragments)

    @property
    def is_video(self) -> bool:
        """Whether all frames are one stream, which only `stream_spans` can give."""
        return codec_of(self.transfer_syntax_uid) is Codec.VIDEO

    @property
    def delivered_transfer_syntax_uid(self) -> str:
        """The transfer syntax that `frame_bytes` delivers, for the label of the frame."""
        if codec_of(self.transfer_syntax_uid) in _DELIVERED_NATIVE:
            return EXPLICIT_VR_LITTLE_ENDIAN
        return self.transfer_syntax_uid

    @property
    def delivered_media_type(self) -> str:
        """The media type that `frame_bytes` delivers (PS3.18 8.7.3)."""
        return media_type(self.delivered_transfer_syntax_uid)

    def spans(self, frame: int) -> tuple[Span, ...]:
        """Return where one frame lies in the data set, to be read and joined in this order.

        Parameters
        ----------
        frame
            Frame number, from 1.

        Raises
        ------
        NotFound
            When the object has no such frame.
        Invalid
            When it should have the frame, and its pixel data end before it.
        Unsupported
            When the frames are one video stream.
        """
        self._check_frame(frame)
        if self.is_encapsulated:
            first, last = self._fragment_range(frame)
            return tuple(self._fragment(index) for index in range(first, last))
        start, end = self._native_range(frame)
        return ((self.value + start, end - start),)

    def span_as_delivered(self, frame: int) -> Span | None:
        """Return where a frame lies, if its stored bytes leave as they are and in one piece.

        Raises
        ------
        NotFound, Invalid, Unsupported
            As `spans` does.
        """
        codec = codec_of(self.transfer_syntax_uid)
        if self.swap_bytes > 1 or transfer_syntax(self.transfer_syntax_uid).is_deflated:
            return None
        if codec is Codec.NATIVE:
            has_whole_bytes = self.bits_allocated > 1 or not self.image.frame_bits % 8
        else:
            has_whole_bytes = codec not in _DELIVERED_NATIVE
        spans = self.spans(frame)
        return spans[0] if has_whole_bytes and len(spans) == 1 else None

    def stream_spans(self) -> tuple[Span, ...]:
        """Return where the whole encapsulated stream lies, all fragments in order (video)."""
        return tuple(self._fragment(index) for index in range(self._fragment_count()))

    def to_bytes(self) -> bytes:
        """Return the table as bytes for a cache; `from_bytes` reads them back."""
        head = json.dumps(
            {
                "uid": self.transfer_syntax_uid,
                "image": self.image.to_json(),
                "header_length": self.header_length,
                "stored_length": self.stored_length,
                "value": self.value,
                "value_length": self.value_length,
                "swap_bytes": self.swap_bytes,
                "split": len(self.fragments),
            },
            separators=(",", ":"),
        ).encode()
        return b"".join((FIRST.pack(len(head)), head, self.fragments, self.first_fragments))

    @classmethod
    def from_bytes(cls, data: bytes) -> FrameTable:
        """Return the table that `to_bytes` wrote."""
        (head_length,) = FIRST.unpack_from(data)
        fragments = 4 + head_length
        head = json.loads(data[4:fragments])
        first_fragments = fragments + head["split"]
        return cls(
            head["uid"],
            ImagePixel.from_json(head["image"]),
            header_length=head["header_length"],
            stored_length=head["stored_length"],
            value=head["value"],
            value_length=head["value_length"],
            swap_bytes=head["swap_bytes"],
            fragments=data[fragments:first_fragments],
            first_fragments=data[first_fragments:],
        )

    def _check_frame(self, frame: int) -> None:
        if self.is_video:
            raise Unsupported(
                "The frame was not read.",
                why="The object is a video; its frames are one compressed stream.",
                remedy="Retrieve the rendered resource, or the pixel data as bulk data.",
            )
        if not 1 <= frame <= self.number_of_frames:
            raise NotFound(
                f"There is no frame {frame}.",
                why=f"The object has {self.number_of_frames}, counted from 1.",
            )

    def _native_range(self, frame: int) -> Span:
        """Return the bytes of a native frame within the value, first and one after the last.

        One-bit frames follow each other without padding, so a frame may begin and end within a
        byte (PS3.5 8.1.1). Units that are to be swapped are never cut.
        """
        bits = self.image.frame_bits
        start = (frame - 1) * bits // 8
        end = (frame * bits + 7) // 8
        if end > self.value_length:
            raise _pixels_end_early(frame)
        unit = self.swap_bytes
        return start - start % unit, min(end + -end % unit, self.value_length)

    def _fragment_range(self, frame: int) -> tuple[int, int]:
        """Return the first fragment of a frame and the one after its last."""
        count = self._fragment_count()
        if not self.first_fragments:
            if frame > count:
                raise _pixels_end_early(frame)
            return frame - 1, frame
        frames = len(self.first_fragments) // 4
        if frame > frames:
            raise _pixels_end_early(frame)
        (first,) = FIRST.unpack_from(self.first_fragments, (frame - 1) * 4)
        if frame == frames:
            return first, count
        return first, FIRST.unpack_from(self.first_fragments, frame * 4)[0]

    def _fragment_count(self) -> int:
        return len(self.fragments) // FRAGMENT.size

    def _fragment(self, index: int) -> Span:
        offset, length = FRAGMENT.unpack_from(self.fragments, index * FRAGMENT.size)
        return offset, length


class FrameContent(NamedTuple):
    """One frame as it is delivered, with a truthful label."""

    data: bytes
    transfer_syntax_uid: str
    media_type: str


def locate_frames(read: RangeReader, size: int, transfer_syntax_uid: str) -> FrameTable:
    """Return where the frames of a stored data set are.

    Parameters
    ----------
    read
        ``read(offset, length)`` gives that range of the stored data set (without the part 10
        head).
    size
        Length of the stored data set in bytes.
    transfer_syntax_uid
        How it is stored.

    Raises
    ------
    NotFound
        When the object has no pixel data, with the reason.
    Invalid
        When the data set or its pixel data are damaged.
    Exhausted
        When the attributes before the pixel data exceed `HEADER_MAX`.
    """
    if transfer_syntax(transfer_syntax_uid).is_deflated:
        reader = inflated_header(read, size)
    else:
        reader = DataSetReader(read, size)
    encoding = encoding_of(transfer_syntax_uid)
    elements, pixel_data = find_pixel_data(reader, encoding)
    attributes = Attributes(reader, encoding, elements)
    image = image_pixel(attributes, pixel_data.tag)
    is_encapsulated = pixel_data.length == UNDEFINED_LENGTH
    if is_encapsulated != transfer_syntax(transfer_syntax_uid).is_encapsulated:
        # Delivering it would put a wrong label on the frames, and viewers decode by the label.
        found = "fragments" if is_encapsulated else "one native value"
        raise Invalid(
            "The image was not read.",
            why=f"Its pixel data are {found}, which {transfer_syntax_uid} does not allow.",
            remedy="Ask the sender for the object in its true transfer syntax.",
        )
    if is_encapsulated:
        codec = codec_of(transfer_syntax_uid)
        fragments = find_fragments(
            reader, attributes, encoding, pixel_data, image.number_of_frames, codec
        )
        return FrameTable(
            transfer_syntax_uid,
            image,
            header_length=pixel_data.start,
            stored_length=size,
            fragments=fragments.spans,
            first_fragments=fragments.first,
        )
    return _native(pixel_data, encoding, image, transfer_syntax_uid, size)


def frame_bytes(read: RangeReader, table: FrameTable, frame: int) -> FrameContent:
    """Return one frame: as it is stored, or native little endian where no viewer could read it.

    Parameters
    ----------
    read
        The range reader that `table` was made from.
    table
        From `locate_frames`, possibly cached.
    frame
        Frame number, from 1.

    Raises
    ------
    NotFound
        When the object has no such frame.
    Invalid
        When its pixel data end before the frame, or cannot be inflated.
    """
    if transfer_syntax(table.transfer_syntax_uid).is_deflated:
        ((offset, length),) = table.spans(frame)
        data = inflate_range(read, table.stored_length, offset, length)
    else:
        data = b"".join([_read_span(read, span, frame) for span in table.spans(frame)])
    return FrameContent(
        _as_delivered(data, table, frame),
        table.delivered_transfer_syntax_uid,
        table.delivered_media_type,
    )


def header_bytes(read: RangeReader, table: FrameTable) -> bytes:
    """Return the data set up to its pixel data, inflated where it is deflated.

    The renderer needs these attributes beside one frame.

    Raises
    ------
    Exhausted
        When they take more than `HEADER_MAX` bytes.
    """
    if table.header_length > HEADER_MAX:
        raise _header_too_large(f"take more than {HEADER_MAX} bytes before the pixel data")
    if transfer_syntax(table.transfer_syntax_uid).is_deflated:
        return inflate_range(read, table.stored_length, 0, table.header_length)
    return _read_span(read, (0, table.header_length), 0)


# --- Finding the pixel data ---------------------------------------------------------------------


def find_pixel_data(
    reader: DataSetReader, encoding: Encoding
) -> tuple[dict[int, Element], Element]:
    """Return the elements before the pixel data, and the pixel data.

    The end of encapsulated pixel data is not looked for, see `DataSetReader.element_at`.

    Raises
    ------
    NotFound
        When there are none, with the reason.
    """
    elements: dict[int, Element] = {}
    # Not `reader.elements`: that looks for the end of each element before it yields it, and the
    # end of encapsulated pixel data is the one thing that is far away.
    position = count = 0
    while not reader.is_over_at(position):
        element = reader.element_at(position, encoding, open_ended=_PIXEL_TAGS)
        if element.tag in _PIXEL_TAGS:
            return elements, element
        if element.tag > PIXEL_DATA:
            break
        if element.end > HEADER_MAX and element.length == UNDEFINED_LENGTH:
            raise _header_too_large(f"take more than {HEADER_MAX} bytes before the pixel data")
        count += 1
        if count > FIRST_LEVEL_MAX:
            raise _header_too_large(f"are more than {FIRST_LEVEL_MAX}")
        elements[element.tag] = element
        position = element.end
    why = "It has no pixel data element."
    if PIXEL_DATA_PROVIDER_URL in elements:
        why = "Its pixel data are kept by another server (Pixel Data Provider URL)."
    raise NotFound(
        "The object has no frames.", why=why, remedy="Retrieve the object as it is stored."
    )


def _header_too_large(fault: str) -> Exhausted:
    return Exhausted(
        "The image was not read.",
        why=f"Its attributes {fault}.",
        remedy="Retrieve the object as it is stored.",
    )


def _native(
    pixel_data: Element, encoding: Encoding, image: ImagePixel, transfer_syntax_uid: str, size: int
) -> FrameTable:
    image = _as_it_was_written(image, pixel_data.length)
    unit = swap_unit(pixel_data.tag, pixel_data.vr, image.bits_allocated)
    return FrameTable(
        transfer_syntax_uid,
        image,
        header_length=pixel_data.start,
        stored_length=size,
        value=pixel_data.value,
        value_length=pixel_data.length,
        swap_bytes=1 if encoding.is_little_endian else unit,
    )


def _as_it_was_written(image: ImagePixel, length: int) -> ImagePixel:
    """Return the image as the length shows it: many writers say 422 and do not sub-sample."""
    if not image.is_sub_sampled:
        return image
    full = image.samples * image.bits_allocated // 8 * image.number_of_frames
    if length < full:
        return image
    fields = image.to_json()
    fields["photometric_interpretation"] = image.photometric_interpretation.removesuffix("_422")
    return ImagePixel.from_json(fields)


def swap_unit(tag: int, vr: str, bits_allocated: int) -> int:
    """Return how many bytes of pixel data are reversed together in big endian.

    OW is a string of words, also when two samples share one (PS3.5 7.3 and Annex D). Wider
    samples are written whole, as all toolkits do.
    """
    if tag != PIXEL_DATA or bits_allocated > 16:
        return bits_allocated // 8
    return 2 if vr == "OW" else 1


def pixel_vr(tag: int, bits_allocated: int) -> str:
    """Return the representation of native pixel data (PS3.5 8.1.1, A.2; PS3.6)."""
    if tag == PIXEL_DATA:
        return "OW" if bits_allocated > 8 else "OB"
    return "OF" if tag == FLOAT_PIXEL_DATA else "OD"


# --- Delivery -----------------------------------------------------------------------------------


def _read_span(read: RangeReader, span: Span, frame: int) -> bytes:
    data = read(*span)
    if len(data) != span[1]:
        raise _pixels_end_early(frame)
    return data


def _plain(data: bytes, table: FrameTable, frame: int) -> bytes:
    """Return a native frame in little endian, beginning with its first sample."""
    image = table.image
    if table.swap_bytes > 1:
        data = swap_bytes(data, table.swap_bytes)
        start, _ = table._native_range(frame)
        skip = (frame - 1) * image.frame_bits // 8 - start
        data = data[skip : skip + (image.frame_bits + 7) // 8] if image.bits_allocated > 1 else data
    if image.bits_allocated == 1 and image.frame_bits % 8:
        start, _ = table._native_range(frame)
        data = _shifted(data, (frame - 1) * image.frame_bits - start * 8, image.frame_bits)
    return data


def _shifted(data: bytes, bit: int, bits: int) -> bytes:
    """Return a run of bits that begins within a byte, moved to begin with the first bit.

    The first pixel is in the least significant bit (PS3.5 8.1.1), so the bytes are one long
    little endian number.
    """
    number = int.from_bytes(data, "little") >> bit & (1 << bits) - 1
    return number.to_bytes((bits + 7) // 8, "little")


def _inflated_frame(data: bytes, table: FrameTable, frame: int) -> bytes:
    """Return a frame that was deflated by itself (PS3.5 8.2.16), native little endian."""
    length = table.image.frame_length
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, length + 1)
    except zlib.error as error:
        raise cannot_inflate(str(error)) from error
    if not length <= len(inflated) <= length + 1:
        raise _pixels_end_early(frame)
    return inflated[:length]


def _unpadded(data: bytes, table: FrameTable, frame: int) -> bytes:
    """Return an uncompressed frame from its fragment, without the padding."""
    length = table.image.frame_length
    if len(data) < length:
        raise _pixels_end_early(frame)
    return data[:length]


# Frames of these codecs leave as Explicit VR Little Endian would have them.
_DELIVERED_NATIVE: Final[dict[Codec, Callable[[bytes, FrameTable, int], bytes]]] = {
    Codec.NATIVE: _plain,
    Codec.ENCAPSULATED_NATIVE: _unpadded,
    Codec.DEFLATED_FRAME: _inflated_frame,
}


def _as_delivered(data: bytes, table: FrameTable, frame: int) -> bytes:
    convert = _DELIVERED_NATIVE.get(codec_of(table.transfer_syntax_uid))
    return data if convert is None else convert(data, table, frame)


_ARRAY_CODES: Final = {array.array(code).itemsize: code for code in "BHIQ"}


def swap_bytes(data: bytes, unit: int) -> bytes:
    """Return the data with the bytes of each unit reversed; a rest shorter than one is kept.

    Parameters
    ----------
    data
        Values of one size, in one byte order.
    unit
        Size of a value: 1, 2, 4 or 8 bytes.

    Raises
    ------
    Invalid
        There is no number of that size; only a damaged object can say so.
    """
    if unit == 1:
        return data
    if unit not in _ARRAY_CODES:
        raise Invalid(
            "The byte order was not changed.",
            why=f"Bits Allocated makes samples of {unit} bytes, and there is no such number.",
            remedy="Ask the sender for a corrected object.",
        )
    whole = len(data) - len(data) % unit
    values = array.array(_ARRAY_CODES[unit], data[:whole])
    values.byteswap()
    return values.tobytes() + data[whole:]


def _pixels_end_early(frame: int) -> Invalid:
    return Invalid(
        f"Frame {frame} was not read.",
        why="The pixel data end before it.",
        remedy="Ask the sender for the complete object.",
    )
