"""Draw one frame of a stored object as a JPEG or PNG for the eye.

What enters is a data set (or its attributes with one frame, so that a two-gigabyte object need
not be moved) and a `RenderRequest`; what leaves is an image file. The steps are those of PS3.4
N.2 in that order: stored values, modality, values of interest, presentation; or colour; then the
part of the image that is wanted, mirrored where asked, and scaled so that pixels are square.

Nothing is invented: an object that has no picture is refused, not given a placeholder.

Decoders run on strangers' data here, so the server calls this through `decode.DecoderPool`.

References
----------
PS3.4 N.2; PS3.3 C.7.6.3.1 (photometric interpretations, palettes), C.7.9.2 (segmented palettes),
C.7.6.16 (functional groups), C.7.6.3.1.7 and 10.7.1.3 (aspect ratio and spacing); PS3.18 8.3.5.1.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from pacsteward.base.errors import Exhausted, Invalid, NotFound, Unsupported
from pacsteward.base.late import late
from pacsteward.dicom import frames
from pacsteward.dicom.codecs import decode_frame
from pacsteward.dicom.deflated import inflated
from pacsteward.dicom.elements import Attributes, DataSetReader, Encoding, Item, RangeReader
from pacsteward.dicom.fragments import Buffer
from pacsteward.dicom.grayscale import grayscale_transform
from pacsteward.dicom.media import JPEG_MEDIA_TYPE, PDF_MEDIA_TYPE, PNG_MEDIA_TYPE, encoding_of
from pacsteward.dicom.palette import palette_rgb
from pacsteward.dicom.pixels import PIXELS_MAX, ImagePixel
from pacsteward.dicom.render_request import RenderRequest, Viewport
from pacsteward.dicom.samples import stored_values
from pacsteward.dicom.tags import (
    ENCAPSULATED_DOCUMENT,
    ENCAPSULATED_DOCUMENT_LENGTH,
    IMAGER_PIXEL_SPACING,
    MIME_TYPE_OF_ENCAPSULATED_DOCUMENT,
    PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    PIXEL_ASPECT_RATIO,
    PIXEL_MEASURES_SEQUENCE,
    PIXEL_SPACING,
    SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
)
from pacsteward.dicom.uids import transfer_syntax

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image
else:
    np = late("numpy")
    Image = late("PIL.Image")

DOCUMENT_MAX: Final = 128 << 20
"""A larger document is not given as a rendering, which is held in memory."""


# Proportions beyond this are mistakes of the sender; drawing them would make a line.
_ASPECT_MAX: Final = 10.0

Bytes: TypeAlias = "npt.NDArray[np.uint8]"


class FrameSource(NamedTuple):
    """All that drawing one frame needs, small enough to be handed to another process.

    Attributes
    ----------
    header
        The data set up to its pixel data, inflated.
    header_encoding
        How it is encoded.
    image
        Its Image Pixel module.
    data, transfer_syntax_uid
        The frame as `frames.frame_bytes` delivers it.
    """

    header: bytes
    header_encoding: Encoding
    image: ImagePixel
    data: Buffer
    transfer_syntax_uid: str


RangeViewer = Callable[[int, int], memoryview]
"""Given offset and length, gives those bytes without a copy; fewer only at the end."""


def frame_source(
    read: RangeReader, table: frames.FrameTable, frame: int, view: RangeViewer | None = None
) -> FrameSource:
    """Return what `render_frame` needs, by two range reads of the stored object.

    Parameters
    ----------
    view
        Reads native pixels that need no conversion; half a megabyte is then not copied once more.

    Raises
    ------
    NotFound
        When the object has no such frame.
    """
    header = frames.header_bytes(read, table)
    encoding = encoding_of(table.transfer_syntax_uid)
    span = (
        table.span_as_delivered(frame) if view is not None and not table.is_encapsulated else None
    )
    if view is not None and span is not None and len(data := view(*span)) == span[1]:
        return FrameSource(header, encoding, table.image, data, table.delivered_transfer_syntax_uid)
    content = frames.frame_bytes(read, table, frame)
    return FrameSource(header, encoding, table.image, content.data, content.transfer_syntax_uid)


def render(data_set: bytes, transfer_syntax_uid: str, request: RenderRequest) -> bytes:
    """Return one frame of an object as an image file.

    Parameters
    ----------
    data_set
        The stored data set, without the part 10 head.
    transfer_syntax_uid
        How it is stored.
    request
        Which frame, how large, which window, which media type.

    Raises
    ------
    Unsupported
        When the object has no picture, or no decoder reads it.
    NotFound
        When it has no such frame.
    Invalid
        When its pixel data are damaged.
    Exhausted
        When it is larger than 100 million pixels.
    """
    read = DataSetReader.over(data_set).value
    size = len(data_set)
    if request.media_type == PDF_MEDIA_TYPE:
        return document(read, size, transfer_syntax_uid, PDF_MEDIA_TYPE)
    table = frame_table(read, size, transfer_syntax_uid)
    table.image.check_drawable()
    return render_frame(frame_source(read, table, request.frame), request)


def frame_table(read: RangeReader, size: int, transfer_syntax_uid: str) -> frames.FrameTable:
    """Return the frame table of an object that is to be drawn.

    Raises
    ------
    Unsupported
        When it has nothing to draw: the resource is there, a picture of it is not.
    """
    try:
        return frames.locate_frames(read, size, transfer_syntax_uid)
    except NotFound as error:
        raise Unsupported(
            "The object was not rendered.",
            why=error.why,
            remedy="Retrieve the object itself; an encapsulated document as application/pdf.",
        ) from error


def render_frame(source: FrameSource, request: RenderRequest) -> bytes:
    """Return one frame as an image file; the heart of `render`."""
    levels = _levels(source, request.frame)
    picture = _picture(source, levels, request)
    picture = _placed(picture, request.viewport, _pixel_height(levels))
    return _FILES[request.media_type](picture, request.quality)


def document(read: RangeReader, size: int, transfer_syntax_uid: str, media_type: str) -> bytes:
    """Return the document that an object encapsulates, such as a PDF (PS3.3 C.24.2).

    Raises
    ------
    Unsupported
        When the object has no document of that media type.
    Exhausted
        When the document is larger than `DOCUMENT_MAX`.
    """
    if transfer_syntax(transfer_syntax_uid).is_deflated:
        plain = inflated(read, size, DOCUMENT_MAX)
        read, size = DataSetReader.over(plain).value, len(plain)
    encoding = encoding_of(transfer_syntax_uid)
    reader = DataSetReader(read, size)
    attributes = Attributes.of(reader, encoding)
    element = attributes.elements.get(ENCAPSULATED_DOCUMENT)
    found = attributes.text(MIME_TYPE_OF_ENCAPSULATED_DOCUMENT).lower()
    if element is None or found != media_type:
        raise Unsupported(
            f"The object was not rendered as {media_type}.",
            why=f"It holds a document of type {found}." if element else "It holds no document.",
            remedy="Retrieve the object as it is stored.",
        )
    if element.length > DOCUMENT_MAX:
        raise Exhausted(
            f"The object was not rendered as {media_type}.",
            why=f"Its document has {element.length} bytes and may have {DOCUMENT_MAX}.",
            remedy="Retrieve the object, or its Encapsulated Document by its BulkDataURI.",
        )
    data = reader.value(element.value, element.length)
    raw_length = attributes.raw(ENCAPSULATED_DOCUMENT_LENGTH) or b""
    length = int.from_bytes(raw_length, "little" if encoding.is_little_endian else "big")
    return data[:length] if len(data) - 1 == length else data


# --- The picture --------------------------------------------------------------------------------


def _levels(source: FrameSource, frame: int) -> tuple[Attributes, ...]:
    """Return where attributes of the frame are looked for, the most specific place first."""
    header = _header(source.header, source.header_encoding)
    levels = [header.attributes]
    if header.shared is not None:
        levels.insert(0, header.shared)
    if frame <= len(header.frames):
        place = header.frames[frame - 1]
        levels.insert(0, header.attributes.inside(PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, place))
    return tuple(levels)


class _Header(NamedTuple):
    attributes: Attributes
    shared: Attributes | None
    frames: tuple[Item, ...]


@lru_cache(maxsize=4)
def _header(header: bytes, encoding: Encoding) -> _Header:
    """Return the attributes of an object, walked once for many frames of it.

    An enhanced multi-frame object can describe thousands of frames before its pixel data.
    """
    attributes = Attributes.of(DataSetReader.over(header), encoding)
    return _Header(
        attributes,
        attributes.item(SHARED_FUNCTIONAL_GROUPS_SEQUENCE),
        attributes.places(PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE),
    )


def _picture(
    source: FrameSource, levels: tuple[Attributes, ...], request: RenderRequest
) -> Image.Image:
    """Return the frame in grey or in colour, in its own size."""
    decoded = decode_frame(source.data, source.transfer_syntax_uid, source.image)
    image = replace(source.image, photometric_interpretation=decoded.photometric_interpretation)
    samples = decoded.samples
    draw = _DRAWERS.get(image.photometric_interpretation)
    if draw is None or samples.ndim != (3 if draw in _OF_THREE_SAMPLES else 2):
        raise Unsupported(
            "The image was not rendered.",
            why=f"Its photometric interpretation is {image.photometric_interpretation} with "
            f"{image.samples_per_pixel} samples per pixel.",
            remedy="Retrieve the object as it is stored.",
        )
    return draw(samples, image, levels, request)


Drawer = Callable[
    ["npt.NDArray[Any]", ImagePixel, tuple[Attributes, ...], RenderRequest], "Image.Image"
]


def _draw_grey(
    samples: npt.NDArray[Any],
    image: ImagePixel,
    levels: tuple[Attributes, ...],
    request: RenderRequest,
) -> Image.Image:
    transform = grayscale_transform(levels, image, request.window)
    return Image.fromarray(transform.apply(samples))


def _draw_palette(
    samples: npt.NDArray[Any],
    image: ImagePixel,
    levels: tuple[Attributes, ...],
    _request: RenderRequest,
) -> Image.Image:
    values = stored_values(samples, image)
    return Image.fromarray(palette_rgb(values, levels[-1], is_signed=image.is_signed))


def _draw_rgb(
    samples: npt.NDArray[Any],
    image: ImagePixel,
    _levels: tuple[Attributes, ...],
    _request: RenderRequest,
) -> Image.Image:
    return Image.fromarray(_eight_bits(samples, image))


def _draw_ybr(
    samples: npt.NDArray[Any],
    image: ImagePixel,
    _levels: tuple[Attributes, ...],
    _request: RenderRequest,
) -> Image.Image:
    # PS3.3 C.7.6.3.1.2: YBR_FULL is the YCbCr of JFIF, the one that Pillow knows.
    return Image.fromarray(_eight_bits(samples, image), mode="YCbCr").convert("RGB")


def _eight_bits(samples: npt.NDArray[Any], image: ImagePixel) -> Bytes:
    """Return colour samples as bytes; colour has no window (PS3.4 N.2)."""
    values = stored_values(samples, image)
    if image.is_float:
        raise Unsupported(
            "The image was not rendered.",
            why="Its colours are floating point.",
            remedy="Retrieve the object as it is stored.",
        )
    if image.bits_stored > 8:
        values = values >> (image.bits_stored - 8)
    return np.ascontiguousarray(values.astype(np.uint8))


_DRAWERS: Final[dict[str, Drawer]] = {
    "MONOCHROME1": _draw_grey,
    "MONOCHROME2": _draw_grey,
    "PALETTE COLOR": _draw_palette,
    "RGB": _draw_rgb,
    "YBR_FULL": _draw_ybr,
    "YBR_RCT": _draw_rgb,
    "YBR_ICT": _draw_rgb,
}
_OF_THREE_SAMPLES: Final = (_draw_rgb, _draw_ybr)


# --- Its place ----------------------------------------------------------------------------------


def _pixel_height(levels: tuple[Attributes, ...]) -> float:
    """Return how much taller than wide a pixel is, 1 where nothing is said.

    All three attributes give the vertical number first (PS3.3 10.7.1.3 and C.7.6.3.1.7).
    """
    for level in levels:
        measures = level.item(PIXEL_MEASURES_SEQUENCE)
        for place, tag in (
            (measures, PIXEL_SPACING),
            (level, PIXEL_SPACING),
            (level, PIXEL_ASPECT_RATIO),
            (level, IMAGER_PIXEL_SPACING),
        ):
            numbers = place.decimals(tag) if place is not None else []
            if len(numbers) == 2 and min(numbers) > 0:
                ratio = numbers[0] / numbers[1]
                return ratio if 1 / _ASPECT_MAX <= ratio <= _ASPECT_MAX else 1.0
    return 1.0


def _placed(picture: Image.Image, viewport: Viewport | None, pixel_height: float) -> Image.Image:
    """Return the wanted part of the picture, mirrored and scaled, with square pixels."""
    box = (0.0, 0.0, float(picture.width), float(picture.height))
    if viewport is not None:
        box = _source_box(picture, viewport)
    width, height = box[2] - box[0], (box[3] - box[1]) * pixel_height
    if viewport is None:
        # The finer direction keeps its pixels, so that none is lost.
        scale = max(1.0, 1.0 / pixel_height)
    else:
        scale = min(viewport.width / width, viewport.height / height)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    if size[0] * size[1] > PIXELS_MAX:
        size = (max(round(box[2] - box[0]), 1), max(round(box[3] - box[1]), 1))
    if size != picture.size or box != (0.0, 0.0, *map(float, picture.size)):
        picture = _resized(picture, size, box)
    return _mirrored(picture, viewport)


def _source_box(picture: Image.Image, viewport: Viewport) -> tuple[float, float, float, float]:
    """Return the part of the image that is shown, cut to where there is image."""
    width = abs(viewport.source_width or picture.width - viewport.x)
    height = abs(viewport.source_height or picture.height - viewport.y)
    left, top = max(viewport.x, 0.0), max(viewport.y, 0.0)
    right = min(viewport.x + width, float(picture.width))
    bottom = min(viewport.y + height, float(picture.height))
    if right - left < 1 or bottom - top < 1:
        raise Invalid(
            "The image was not rendered.",
            why="The viewport asks for a part outside of the image.",
            remedy=f"The image has {picture.width} columns and {picture.height} rows.",
        )
    return left, top, right, bottom


def _resized(
    picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Image.Image:
    whole = box == (0.0, 0.0, float(picture.width), float(picture.height))
    factors = (picture.width // size[0], picture.height // size[1])
    if whole and min(factors) > 1 and picture.size == (factors[0] * size[0], factors[1] * size[1]):
        # Means of whole pixels, ten times faster: most thumbnails of CT and MR come this way.
        return picture.reduce(factors)
    shrinks = size[0] * size[1] < (box[2] - box[0]) * (box[3] - box[1])
    method = Image.Resampling.HAMMING if shrinks else Image.Resampling.BICUBIC
    # The gap lets large images be halved by whole steps first, for mammograms and slides.
    return picture.resize(size, method, box=box, reducing_gap=2.0)


def _mirrored(picture: Image.Image, viewport: Viewport | None) -> Image.Image:
    if viewport is None:
        return picture
    if (viewport.source_width or 0) < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if (viewport.source_height or 0) < 0:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return picture


# --- Its file -----------------------------------------------------------------------------------


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    # Fine detail in colour (Doppler, annotations) needs full chrominance at high quality.
    subsampling = 0 if quality >= 90 else 2
    picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def _png(picture: Image.Image, _quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()


_FILES: Final[dict[str, Callable[[Image.Image, int], bytes]]] = {
    JPEG_MEDIA_TYPE: _jpeg,
    PNG_MEDIA_TYPE: _png,
}
