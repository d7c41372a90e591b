"""JPEG and JPEG-LS frames: what their markers say, and their decoders.

What enters is one frame; what leaves are its samples. Lossy JPEG of eight bits is decoded by
libjpeg through Pillow, everything else of JPEG by gdcm, JPEG-LS by CharLS.

References
----------
PS3.5 8.2.1, 8.2.3 and Annex F; ISO/IEC 10918-1 B.2 (markers); ISO/IEC 14495-1 (JPEG-LS).
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pacsteward.base.errors import Unsupported
from pacsteward.base.late import late
from pacsteward.dicom import uids
from pacsteward.dicom.media import JPEG_FULL_PROGRESSION
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.samples import Announced, Decoded, check_announced, damaged, shaped, widened

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

_SOF_BASELINE: Final = 0xC0
_SOF_EXTENDED: Final = 0xC1
_SOF_PROGRESSIVE: Final = 0xC2
_SOF_LOSSLESS: Final = 0xC3
_SOF_JPEG_LS: Final = 0xF7
_FRAME_HEADERS: Final = frozenset(
    {_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE, _SOF_LOSSLESS, _SOF_JPEG_LS}
)
_STAND_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


class _JpegHeader(NamedTuple):
    """The markers of a JPEG or JPEG-LS stream up to its first scan."""

    process: int
    announced: Announced
    component_ids: bytes
    is_sub_sampled: bool
    has_jfif: bool
    adobe_transform: int | None


def _jpeg_header(data: bytes) -> _JpegHeader:
    """Read the markers of a JPEG stream up to its frame header (ISO/IEC 10918-1 B.1, B.2.2)."""
    if data[:2] != b"\xff\xd8":
        raise damaged("it does not begin with a JPEG start of image")
    position = 2
    has_jfif = False
    adobe: int | None = None
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF:
            raise damaged(f"there is no JPEG marker at byte {position}")
        if marker == 0xFF or marker in _STAND_ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        if marker in _FRAME_HEADERS:
            return _frame_header(marker, segment, has_jfif, adobe)
        if marker == 0xE0 and segment.startswith(b"JFIF\0"):
            has_jfif = True
        if marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
        position += 2 + max(length, 2)
    raise damaged("it has no JPEG frame header")


def _frame_header(marker: int, segment: bytes, jfif: bool, adobe: int | None) -> _JpegHeader:
    precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
    specifications = segment[6 : 6 + 3 * components]
    if len(specifications) != 3 * components:
        raise damaged("its JPEG frame header is cut off")
    return _JpegHeader(
        process=marker,
        announced=Announced(rows, columns, components, precision),
        component_ids=specifications[0::3],
        is_sub_sampled=len(set(specifications[1::3])) > 1,
        has_jfif=jfif,
        adobe_transform=adobe,
    )


def _check_end(data: bytes) -> None:
    """Raise `Invalid` when a stream has no end of image before its padding."""
    if b"\xff\xd9" not in data[-64:]:
        raise damaged("its JPEG stream ends early")


def decode_jpeg(data: bytes, image: ImagePixel) -> Decoded:
    """Return the samples of a JPEG frame of any process."""
    header = _jpeg_header(data)
    check_announced(header.announced, image)
    lossy = header.process in (_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE)
    if lossy and header.announced.precision == 8:
        return _decode_jpeg_8_bit(data, header, image)
    return _decode_jpeg_by_gdcm(data, header, image)


def _decode_jpeg_8_bit(data: bytes, header: _JpegHeader, image: ImagePixel) -> Decoded:
    from PIL import Image

    picture = Image.open(io.BytesIO(data), formats=("JPEG",))
    if header.announced.components == 1:
        return Decoded(widened(np.asarray(picture), image, 8), image.photometric_interpretation)
    if header.announced.components != 3:
        raise Unsupported(
            "The image was not decoded.",
            why=f"Its JPEG stream has {header.announced.components} components.",
            remedy="Retrieve the object as it is stored.",
        )
    if not _is_transformed(header, image):
        # Asking for YCbCr from a stream that libjpeg takes for YCbCr leaves components alone.
        picture.draft("YCbCr", None)
    return Decoded(widened(np.asarray(picture), image, 8), "RGB")


def _is_transformed(header: _JpegHeader, image: ImagePixel) -> bool:
    """Whether libjpeg's own reading of the colours is to be followed.

    Photometric Interpretation is often wrong for JPEG, since some writers copy it from the
    uncompressed image. What the stream says of itself comes first: the Adobe and JFIF markers,
    the component names, and sub-sampling, which no RGB image has.
    """
    if header.adobe_transform is not None or header.has_jfif:
        return True
    if header.component_ids == b"RGB" or header.is_sub_sampled:
        return True
    return image.photometric_interpretation != "RGB"


_GDCM_SYNTAXES: Final = {
    _SOF_BASELINE: uids.JPEG_BASELINE,
    _SOF_EXTENDED: uids.JPEG_EXTENDED,
    _SOF_PROGRESSIVE: JPEG_FULL_PROGRESSION,
    _SOF_LOSSLESS: uids.JPEG_LOSSLESS,
}


def _decode_jpeg_by_gdcm(data: bytes, header: _JpegHeader, image: ImagePixel) -> Decoded:
    """Decode 12-bit, progressive and lossless JPEG."""
    import gdcm

    if header.process not in _GDCM_SYNTAXES:
        raise damaged("its stream is JPEG-LS, and its transfer syntax is JPEG")
    # The decoder would fill the rest with grey and not tell.
    _check_end(data)
    announced = header.announced
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    picture = gdcm.Image()
    picture.SetNumberOfDimensions(2)
    picture.SetDimensions((announced.columns, announced.rows, 1))
    picture.SetDataElement(element)
    # The name of the colours makes the decoder leave the components as they are.
    name = "MONOCHROME2" if announced.components == 1 else "RGB"
    picture.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(name))
    )
    syntax = gdcm.TransferSyntax.GetTSType(_GDCM_SYNTAXES[header.process])
    picture.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    container = 8 if announced.precision <= 8 else 16
    picture.SetPixelFormat(
        gdcm.PixelFormat(
            announced.components, container, announced.precision, announced.precision - 1, 0
        )
    )
    decoded = picture.GetBuffer().encode("utf-8", "surrogateescape")
    flat = np.frombuffer(decoded, f"<u{container // 8}")
    if flat.size != image.samples:
        raise damaged(f"{flat.size} samples where {image.samples} are needed")
    samples = widened(shaped(flat, image, 0), image, announced.precision)
    return Decoded(samples, image.photometric_interpretation)


def decode_jpeg_ls(data: bytes, image: ImagePixel) -> Decoded:
    """Return the samples of a JPEG-LS frame."""
    import jpeg_ls

    header = _jpeg_header(data)
    if header.process != _SOF_JPEG_LS:
        raise damaged("its stream is JPEG, and its transfer syntax is JPEG-LS")
    check_announced(header.announced, image)
    # The decoder can look for the end of a cut stream for seconds.
    _check_end(data)
    decoded, info = jpeg_ls.decode_buffer(data)
    precision = header.announced.precision
    flat = np.frombuffer(decoded, "<u1" if precision <= 8 else "<u2")
    if flat.size != image.samples:
        raise damaged(f"{flat.size} samples where {image.samples} are needed")
    # Interleave mode 0 has whole planes, one scan each; line and sample interleaving come out
    # by pixel (ISO/IEC 14495-1 C.2.3).
    planar = 1 if info["interleave_mode"] == 0 else 0
    samples = widened(shaped(flat, image, planar), image, precision)
    return Decoded(samples, image.photometric_interpretation)
