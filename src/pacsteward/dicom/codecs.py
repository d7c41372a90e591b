"""Decode one frame to an array of samples, and encode it again without loss.

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

import io
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pacsteward.base.errors import Invalid, Unsupported
from pacsteward.dicom import uids
from pacsteward.dicom.media import Codec, codec_of
from pacsteward.dicom.pixels import ImagePixel

Samples = npt.NDArray[Any]

# What the codec libraries raise on streams they do not like. They document none of it.
_DECODER_ERRORS: Final = (
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


class Decoded(NamedTuple):
    """The samples of one frame, interleaved by pixel, and how their colours are meant."""

    samples: Samples
    photometric_interpretation: str


class _Announced(NamedTuple):
    """What a code stream says of itself before its data begin."""

    rows: int
    columns: int
    components: int
    precision: int


def decode_frame(data: bytes, transfer_syntax_uid: str, image: ImagePixel) -> Decoded:
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
        return decoder(data, image)
    except _DECODER_ERRORS as error:
        raise _damaged(f"the {codec} decoder says: {_one_line(error)}") from error
    except BaseException as error:
        # The RLE decoder is written in Rust, whose panics are no `Exception` to Python.
        if type(error).__name__ != "PanicException":
            raise
        raise _damaged(f"the {codec} decoder gave up") from error


def native_samples(data: bytes, image: ImagePixel) -> Decoded:
    """Return the samples of one native little endian frame; no codec is involved."""
    if len(data) < image.frame_length:
        raise _damaged(f"{len(data)} bytes where {image.frame_length} are needed")
    photometric = image.photometric_interpretation
    if image.bits_allocated == 1:
        bits = np.frombuffer(data, np.uint8, image.frame_length)
        samples = np.unpackbits(bits, count=image.samples, bitorder="little")
        return Decoded(_shaped(samples, image), photometric)
    values = np.frombuffer(data, _container(image), image.frame_bits // image.bits_allocated)
    if image.is_sub_sampled:
        return Decoded(_expanded_422(values, image), photometric.removesuffix("_422"))
    return Decoded(_shaped(values, image), photometric)


def native_bytes(samples: Samples) -> bytes:
    """Return samples as one native little endian frame, interleaved by pixel."""
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def stored_values(samples: Samples, image: ImagePixel) -> Samples:
    """Return the pixel values without what else is in their containers.

    Bits above High Bit or below the stored ones may carry overlays (retired, and still met); the
    sign is that of the stored bits (PS3.5 8.1.1).
    """
    if image.is_float or image.bits_stored >= image.bits_allocated:
        return samples
    left = image.bits_allocated - 1 - image.high_bit
    right = image.bits_allocated - image.bits_stored
    # Shifting left drops what is above; shifting right fills with the sign of signed types.
    return (samples << left) >> right


# --- Native -------------------------------------------------------------------------------------


def _container(image: ImagePixel) -> np.dtype[Any]:
    if image.bits_allocated not in (8, 16, 32, 64):
        raise Unsupported(
            "The image was not decoded.",
            why=f"Its samples have {image.bits_allocated} bits allocated.",
        )
    kind = "f" if image.is_float else "i" if image.is_signed else "u"
    return np.dtype(f"<{kind}{image.bits_allocated // 8}")


def _shaped(
    samples: Samples, image: ImagePixel, planar_configuration: int | None = None
) -> Samples:
    """Return flat samples as an array interleaved by pixel (PS3.3 C.7.6.3.1.3)."""
    if image.samples_per_pixel == 1:
        return samples.reshape(image.rows, image.columns)
    planar = image.planar_configuration if planar_configuration is None else planar_configuration
    if planar:
        planes = samples.reshape(image.samples_per_pixel, image.rows, image.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return samples.reshape(image.rows, image.columns, image.samples_per_pixel)


def _expanded_422(values: Samples, image: ImagePixel) -> Samples:
    """Return Y, Cb, Cr for each pixel from Y Y Cb Cr for each two (PS3.3 C.7.6.3.1.2)."""
    pairs = values.reshape(-1, 4)
    samples = np.empty((len(pairs), 2, 3), values.dtype)
    samples[:, :, 0] = pairs[:, :2]
    samples[:, :, 1:] = pairs[:, None, 2:]
    return samples.reshape(image.rows, image.columns, 3)


def _decode_native(data: bytes, image: ImagePixel) -> Decoded:
    return native_samples(data, image)


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
    dtype = np.dtype(np.uint8) if image.bits_allocated == 1 else _container(image)
    samples = np.frombuffer(flat, dtype)
    if samples.size != image.samples:
        raise _damaged(f"{samples.size} samples where {image.samples} are needed")
    # Segments are planes (PS3.5 G.2), whatever Planar Configuration says.
    return Decoded(_shaped(samples, image, 1), image.photometric_interpretation)


# --- JPEG ---------------------------------------------------------------------------------------

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
    announced: _Announced
    component_ids: bytes
    is_sub_sampled: bool
    has_jfif: bool
    adobe_transform: int | None


def _jpeg_header(data: bytes) -> _JpegHeader:
    """Read the markers of a JPEG stream up to its frame header (ISO/IEC 10918-1 B.1, B.2.2)."""
    if data[:2] != b"\xff\xd8":
        raise _damaged("it does not begin with a JPEG start of image")
    position = 2
    has_jfif = False
    adobe: int | None = None
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF:
            raise _damaged(f"there is no JPEG marker at byte {position}")
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
    raise _damaged("it has no JPEG frame header")


def _frame_header(marker: int, segment: bytes, jfif: bool, adobe: int | None) -> _JpegHeader:
    precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
    specifications = segment[6 : 6 + 3 * components]
    if len(specifications) != 3 * components:
        raise _damaged("its JPEG frame header is cut off")
    return _JpegHeader(
        process=marker,
        announced=_Announced(rows, columns, components, precision),
        component_ids=specifications[0::3],
        is_sub_sampled=len(set(specifications[1::3])) > 1,
        has_jfif=jfif,
        adobe_transform=adobe,
    )


def _check_end(data: bytes) -> None:
    """Raise `Invalid` when a stream has no end of image before its padding."""
    if b"\xff\xd9" not in data[-64:]:
        raise _damaged("its JPEG stream ends early")


def _decode_jpeg(data: bytes, image: ImagePixel) -> Decoded:
    header = _jpeg_header(data)
    _check_announced(header.announced, image)
    lossy = header.process in (_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE)
    if lossy and header.announced.precision == 8:
        return _decode_jpeg_8_bit(data, header, image)
    return _decode_jpeg_by_gdcm(data, header, image)


def _decode_jpeg_8_bit(data: bytes, header: _JpegHeader, image: ImagePixel) -> Decoded:
    from PIL import Image

    picture = Image.open(io.BytesIO(data), formats=("JPEG",))
    if header.announced.components == 1:
        return Decoded(_widened(np.asarray(picture), image, 8), image.photometric_interpretation)
    if header.announced.components != 3:
        raise Unsupported(
            "The image was not decoded.",
            why=f"Its JPEG stream has {header.announced.components} components.",
        )
    if not _is_transformed(header, image):
        # Asking for YCbCr from a stream that libjpeg takes for YCbCr leaves components alone.
        picture.draft("YCbCr", None)
    return Decoded(_widened(np.asarray(picture), image, 8), "RGB")


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
    _SOF_PROGRESSIVE: "1.2.840.10008.1.2.4.55",
    _SOF_LOSSLESS: uids.JPEG_LOSSLESS,
}


def _decode_jpeg_by_gdcm(data: bytes, header: _JpegHeader, image: ImagePixel) -> Decoded:
    """Decode 12-bit, progressive and lossless JPEG."""
    import gdcm

    if header.process not in _GDCM_SYNTAXES:
        raise _damaged("its stream is JPEG-LS, and its transfer syntax is JPEG")
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
        raise _damaged(f"{flat.size} samples where {image.samples} are needed")
    samples = _widened(_shaped(flat, image, 0), image, announced.precision)
    return Decoded(samples, image.photometric_interpretation)


# --- JPEG-LS ------------------------------------------------------------------------------------


def _decode_jpeg_ls(data: bytes, image: ImagePixel) -> Decoded:
    import jpeg_ls

    header = _jpeg_header(data)
    if header.process != _SOF_JPEG_LS:
        raise _damaged("its stream is JPEG, and its transfer syntax is JPEG-LS")
    _check_announced(header.announced, image)
    # The decoder can look for the end of a cut stream for seconds.
    _check_end(data)
    decoded, info = jpeg_ls.decode_buffer(data)
    precision = header.announced.precision
    flat = np.frombuffer(decoded, "<u1" if precision <= 8 else "<u2")
    if flat.size != image.samples:
        raise _damaged(f"{flat.size} samples where {image.samples} are needed")
    # Interleave mode 0 has whole planes, one scan each; line and sample interleaving come out
    # by pixel (ISO/IEC 14495-1 C.2.3).
    planar = 1 if info["interleave_mode"] == 0 else 0
    samples = _widened(_shaped(flat, image, planar), image, precision)
    return Decoded(samples, image.photometric_interpretation)


# --- JPEG 2000 and HTJ2K ------------------------------------------------------------------------

_CODE_STREAM: Final = b"\xff\x4f\xff\x51"
_MULTI_COMPONENT: Final = ("YBR_RCT", "YBR_ICT")


def _decode_jpeg_2000(data: bytes, image: ImagePixel) -> Decoded:
    from openjpeg.utils import decode_pixel_data

    announced, is_signed = _siz(data)
    _check_announced(announced, image)
    decoded = decode_pixel_data(data, version=2)
    precision = announced.precision
    width = 1 if precision <= 8 else 2 if precision <= 16 else 4
    flat = np.frombuffer(decoded, f"<{'i' if is_signed else 'u'}{width}")
    if flat.size != image.samples:
        raise _damaged(f"{flat.size} samples where {image.samples} are needed")
    photometric = image.photometric_interpretation
    samples = _widened(_shaped(flat, image, 0), image, precision)
    return Decoded(samples, "RGB" if photometric in _MULTI_COMPONENT else photometric)


def _siz(data: bytes) -> tuple[_Announced, bool]:
    """Read the image and tile size segment (ISO/IEC 15444-1 A.5.1), behind JP2 boxes or not."""
    at = 0 if data.startswith(_CODE_STREAM) else data.find(_CODE_STREAM, 0, 65536)
    if at < 0:
        raise _damaged("it has no JPEG 2000 code stream")
    # SOC and SIZ markers, Lsiz and Rsiz come first, each of two bytes.
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    components, depth = struct.unpack_from(">HB", data, at + 40)
    announced = _Announced(bottom - top, right - left, components, (depth & 0x7F) + 1)
    return announced, bool(depth & 0x80)


# --- What all decoders share --------------------------------------------------------------------

_DECODERS: Final[dict[Codec, Callable[[bytes, ImagePixel], Decoded]]] = {
    Codec.NATIVE: _decode_native,
    Codec.ENCAPSULATED_NATIVE: _decode_native,
    Codec.DEFLATED_FRAME: _decode_native,
    Codec.RLE: _decode_rle,
    Codec.JPEG: _decode_jpeg,
    Codec.JPEG_LS: _decode_jpeg_ls,
    Codec.JPEG_2000: _decode_jpeg_2000,
}

DECODABLE: Final = frozenset(_DECODERS)
"""The codec families that `decode_frame` can read."""


def _check_announced(announced: _Announced, image: ImagePixel) -> None:
    """Raise `Invalid` when the stream is not the image that the data set describes."""
    described = (image.rows, image.columns, image.samples_per_pixel)
    if announced[:3] != described:
        raise _damaged(
            "its stream has {} rows, {} columns and {} components".format(*announced[:3])
            + ", and its attributes say {}, {} and {}".format(*described)
        )
    if announced.precision > max(image.bits_allocated, 8) or announced.precision < 1:
        raise _damaged(
            f"its stream has {announced.precision} bits a sample, and BitsAllocated is "
            f"{image.bits_allocated}"
        )


def _widened(samples: Samples, image: ImagePixel, precision: int) -> Samples:
    """Return decoded samples in the container and with the sign that the data set gives.

    Streams say nothing of the sign (JPEG, JPEG-LS), or say the wrong thing (JPEG 2000 of some
    writers). The lowest ``precision`` bits are the sample; Pixel Representation decides.
    """
    if image.bits_allocated == 1:
        return samples.astype(np.uint8, copy=False)
    container = _container(image)
    if not image.is_signed:
        if samples.dtype.kind == "i":
            samples = samples & ((1 << precision) - 1)
        return samples.astype(container, copy=False)
    if samples.dtype.kind == "i":
        return samples.astype(container, copy=False)
    unused = samples.dtype.itemsize * 8 - precision
    as_signed = (samples << unused).view(f"<i{samples.dtype.itemsize}") >> unused
    return as_signed.astype(container, copy=False)


def _damaged(detail: str) -> Invalid:
    return Invalid(
        "The image could not be decoded.",
        why=f"Its pixel data are damaged: {detail}.",
        remedy="Compare with the sender's copy, and send it again.",
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return text.rstrip(".") or type(error).__name__


# --- Encoding without loss ----------------------------------------------------------------------


def encode_frame(
    samples: Samples, transfer_syntax_uid: str, image: ImagePixel
) -> tuple[bytes, str]:
    """Return one frame encoded without loss, and its new photometric interpretation.

    The frame is decoded again and compared before it is given away, so a fault of an encoder
    cannot change an image.

    Parameters
    ----------
    samples
        From `decode_frame` or `native_samples`.
    transfer_syntax_uid
        One of `ENCODABLE`.
    image
        The Image Pixel module; its photometric interpretation is that of ``samples``.

    Raises
    ------
    Unsupported
        When the target cannot hold this image without loss.
    """
    encoder = ENCODABLE.get(transfer_syntax_uid)
    if encoder is None or image.is_float:
        raise _cannot_encode(transfer_syntax_uid, "there is no encoder for it")
    if image.high_bit != image.bits_stored - 1:
        raise _cannot_encode(transfer_syntax_uid, f"its High Bit is {image.high_bit}")
    values = stored_values(samples, image)
    if not _fits(samples, values, image):
        # Overlays in the unused bits of the samples (PS3.5 8.1.2, retired) would be lost.
        raise _cannot_encode(transfer_syntax_uid, "its samples carry more than the pixel values")
    try:
        encoded, photometric = encoder(np.ascontiguousarray(values), image)
    except _DECODER_ERRORS as error:
        raise _cannot_encode(transfer_syntax_uid, _one_line(error)) from error
    again = decode_frame(encoded, transfer_syntax_uid, image).samples
    if not np.array_equal(stored_values(again, image), values):
        raise _cannot_encode(transfer_syntax_uid, "the encoder did not keep every pixel")
    return encoded, photometric


def _fits(samples: Samples, values: Samples, image: ImagePixel) -> bool:
    """Whether the containers hold the value with its sign, or with zeros above, and no more."""
    unsigned = np.dtype(f"<u{samples.dtype.itemsize}")
    pattern = values.view(unsigned)
    stored = pattern & unsigned.type((1 << image.bits_stored) - 1)
    raw = samples.view(unsigned)
    return bool(np.array_equal(raw, pattern) or np.array_equal(raw, stored))


# The encoder always makes six resolutions, each half of the one before.
_RESOLUTIONS_NEED: Final = 32


def _encode_rle(values: Samples, image: ImagePixel) -> tuple[bytes, str]:
    import rle.utils

    data = native_bytes(values)
    if image.bits_allocated == 1:
        data = np.packbits(values, bitorder="little").tobytes()
    encoded = rle.utils.encode_pixel_data(
        data,
        rows=image.rows,
        columns=image.columns,
        samples_per_pixel=image.samples_per_pixel,
        bits_allocated=image.bits_allocated,
        byteorder="<",
    )
    return bytes(encoded), image.photometric_interpretation


def _encode_jpeg_ls(values: Samples, image: ImagePixel) -> tuple[bytes, str]:
    import jpeg_ls

    if not 2 <= image.bits_stored <= 16:
        raise ValueError(f"JPEG-LS has 2 to 16 bits a sample, not {image.bits_stored}")
    width = 1 if image.bits_stored <= 8 else 2
    unsigned = np.dtype(f"<u{values.dtype.itemsize}")
    pattern = values.view(unsigned) & unsigned.type((1 << image.bits_stored) - 1)
    encoded = jpeg_ls.encode_buffer(
        pattern.astype(f"<u{width}").tobytes(),
        image.rows,
        image.columns,
        image.samples_per_pixel,
        image.bits_stored,
        0,
        0 if image.samples_per_pixel == 1 else 2,
    )
    return bytes(encoded), image.photometric_interpretation


def _encode_jpeg_2000(values: Samples, image: ImagePixel) -> tuple[bytes, str]:
    from openjpeg.utils import encode_array

    if min(image.rows, image.columns) < _RESOLUTIONS_NEED:
        raise ValueError(f"the encoder takes {_RESOLUTIONS_NEED} rows and columns or more")
    is_rgb = image.photometric_interpretation == "RGB" and image.samples_per_pixel == 3
    width = 1 if image.bits_stored <= 8 else 2 if image.bits_stored <= 16 else 4
    if image.bits_stored > 24:
        raise ValueError(f"the encoder has up to 24 bits a sample, not {image.bits_stored}")
    kind = "i" if image.is_signed else "u"
    encoded = encode_array(
        values.astype(f"<{kind}{width}"),
        bits_stored=image.bits_stored,
        photometric_interpretation=1 if is_rgb else 0,
        use_mct=is_rgb,
    )
    return bytes(encoded), "YBR_RCT" if is_rgb else image.photometric_interpretation


ENCODABLE: Final[dict[str, Callable[[Samples, ImagePixel], tuple[bytes, str]]]] = {
    uids.RLE_LOSSLESS: _encode_rle,
    uids.JPEG_LS_LOSSLESS: _encode_jpeg_ls,
    uids.JPEG_2000_LOSSLESS: _encode_jpeg_2000,
}
"""The lossless transfer syntaxes that we can compress to."""


def _cannot_encode(transfer_syntax_uid: str, detail: str) -> Unsupported:
    return Unsupported(
        f"The image was not encoded as {transfer_syntax_uid}.",
        why=f"This would not be possible without loss: {detail}.",
        remedy="Retrieve it uncompressed, or in its stored transfer syntax.",
    )
