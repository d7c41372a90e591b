"""Decode one frame to an array of samples.

What enters is one frame as `frames.frame_bytes` delivers it and its `ImagePixel`; what leaves is
an array (rows, columns) or (rows, columns, samples) of the samples as the native encoding would
hold them. The size, depth and number of components that the code stream announces are compared
with the data set before a decoder sees it, so that a small stream cannot ask for a large image.

Decoders are C and C++ and their input comes from strangers: outside of tests this module runs only
in the child processes of `decode.DecoderPool`.

References
----------
PS3.5 8.2 and Annexes A, F, G (compressed pixel data); ISO/IEC 10918-1 B.2 (JPEG markers), 14495-1
(JPEG-LS), 15444-1 A.5.1 (JPEG 2000 SIZ).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pacsteward.base.errors import Unsupported
from pacsteward.base.late import late
from pacsteward.dicom.fragments import Buffer
from pacsteward.dicom.jpeg import decode_jpeg, decode_jpeg_ls
from pacsteward.dicom.media import Codec, codec_of
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.samples import (
    Announced,
    Decoded,
    check_announced,
    container,
    damaged,
    native_samples,
    shaped,
    widened,
)

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

# What the codec libraries raise on streams they do not like. They document none of it.
CODEC_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def decode_frame(data: Buffer, transfer_syntax_uid: str, image: ImagePixel) -> Decoded:
    """Return the samples of one frame.

    Parameters
    ----------
    data
        The frame as `frames.frame_bytes` delivers it.
    transfer_syntax_uid
        The encoding that goes with it.
    image
        The Image Pixel module of its data set.

    Returns
    -------
    Decoded
        Samples in containers of ``image.bits_allocated`` bits, signed where the image is.

    Raises
    ------
    Invalid
        When the stream is damaged, or is not the image that the data set describes.
    Unsupported
        When there is no decoder for it.
    Exhausted
        When the image is larger than the limit.
    """
    image.check_drawable()
    codec = codec_of(transfer_syntax_uid)
    decoder = _DECODERS.get(codec)
    if decoder is None:
        raise Unsupported(
            "The image was not decoded.",
            why=f"There is no decoder for transfer syntax {transfer_syntax_uid}.",
            remedy="Retrieve it in its stored transfer syntax.",
        )
    try:
        if codec is Codec.NATIVE:
            return native_samples(data, image)
        return decoder(bytes(data), image)
    except CODEC_ERRORS as error:
        raise damaged(f"the {codec} decoder says: {one_line(error)}") from error
    except BaseException as error:
        # The RLE decoder is written in Rust, whose panics are no `Exception` to Python.
        if type(error).__name__ != "PanicException":
            raise
        raise damaged(f"the {codec} decoder gave up") from error


# --- RLE ----------------------------------------------------------------------------------------


def _decode_rle(data: bytes, image: ImagePixel) -> Decoded:
    import rle.utils

    flat = rle.utils.decode_pixel_data(
        data,
        version=2,
        rows=image.rows,
        columns=image.columns,
        bits_allocated=image.bits_allocated,
        byteorder="<",
    )
    dtype = np.dtype(np.uint8) if image.bits_allocated == 1 else container(image)
    samples = np.frombuffer(flat, dtype)
    if samples.size != image.samples:
        raise damaged(f"{samples.size} samples where {image.samples} are needed")
    # Segments are planes (PS3.5 G.2), whatever Planar Configuration says.
    return Decoded(shaped(samples, image, 1), image.photometric_interpretation)


# --- JPEG 2000 and HTJ2K ------------------------------------------------------------------------

_CODE_STREAM: Final = b"\xff\x4f\xff\x51"
_MULTI_COMPONENT: Final = ("YBR_RCT", "YBR_ICT")


def _decode_jpeg_2000(data: bytes, image: ImagePixel) -> Decoded:
    from openjpeg.utils import decode_pixel_data

    announced, is_signed = _siz(data)
    check_announced(announced, image)
    decoded = decode_pixel_data(data, version=2)
    precision = announced.precision
    width = 1 if precision <= 8 else 2 if precision <= 16 else 4
    flat = np.frombuffer(decoded, f"<{'i' if is_signed else 'u'}{width}")
    if flat.size != image.samples:
        raise damaged(f"{flat.size} samples where {image.samples} are needed")
    photometric = image.photometric_interpretation
    samples = widened(shaped(flat, image, 0), image, precision)
    return Decoded(samples, "RGB" if photometric in _MULTI_COMPONENT else photometric)


def _siz(data: bytes) -> tuple[Announced, bool]:
    """Read the image and tile size segment (ISO/IEC 15444-1 A.5.1), behind JP2 boxes or not."""
    at = 0 if data.startswith(_CODE_STREAM) else data.find(_CODE_STREAM, 0, 65536)
    if at < 0:
        raise damaged("it has no JPEG 2000 code stream")
    # SOC and SIZ markers, Lsiz and Rsiz come first, each of two bytes.
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    components, depth = struct.unpack_from(">HB", data, at + 40)
    announced = Announced(bottom - top, right - left, components, (depth & 0x7F) + 1)
    return announced, bool(depth & 0x80)


# --- The table ----------------------------------------------------------------------------------

_DECODERS: Final[dict[Codec, Callable[[bytes, ImagePixel], Decoded]]] = {
    Codec.NATIVE: native_samples,
    Codec.ENCAPSULATED_NATIVE: native_samples,
    Codec.DEFLATED_FRAME: native_samples,
    Codec.RLE: _decode_rle,
    Codec.JPEG: decode_jpeg,
    Codec.JPEG_LS: decode_jpeg_ls,
    Codec.JPEG_2000: _decode_jpeg_2000,
}

DECODABLE: Final = frozenset(_DECODERS)
"""The codec families that `decode_frame` can read."""


def one_line(error: BaseException) -> str:
    """Return what a library said, fit for an error of ours."""
    text = " ".join(str(error).split())[:200]
    return text.rstrip(".") or type(error).__name__
