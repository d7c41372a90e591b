"""Encode one frame without loss, and prove it.

What enters are the samples of one frame; what leaves is its code stream and the photometric
interpretation that goes with it. The stream is decoded again and compared before it is given
away, so a fault of an encoder cannot change an image.

References
----------
PS3.5 8.2.2 (RLE), 8.2.3 (JPEG-LS), 8.2.4 (JPEG 2000), Annex G; PS3.3 C.7.6.3.1.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pacsteward.base.errors import Unsupported
from pacsteward.base.late import late
from pacsteward.dicom import uids
from pacsteward.dicom.codecs import CODEC_ERRORS, decode_frame, one_line
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.samples import Samples, native_bytes, stored_values

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


def encode_frame(
    samples: Samples, transfer_syntax_uid: str, image: ImagePixel
) -> tuple[bytes, str]:
    """Return one frame encoded without loss, and its new photometric interpretation.

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
    except CODEC_ERRORS as error:
        raise _cannot_encode(transfer_syntax_uid, one_line(error)) from error
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
