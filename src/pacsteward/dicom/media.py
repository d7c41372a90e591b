"""Which codec reads the pixels of a transfer syntax, and which media types an image may leave as.

`uids.TRANSFER_SYNTAXES` says what an encoding means for the bytes; this module adds what it means
for the pixels. A syntax without a codec here can be stored and sent, not looked into.

References
----------
PS3.5 8.2 and Annex A (pixel encodings); PS3.18 8.7.3 and 8.7.4 (media types).
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final

from pacsteward.dicom import uids
from pacsteward.dicom.elements import Encoding


class Codec(StrEnum):
    """A family of pixel encodings that one decoder understands."""

    NATIVE = "native"
    ENCAPSULATED_NATIVE = "encapsulated native"
    DEFLATED_FRAME = "deflated frame"
    RLE = "RLE"
    JPEG = "JPEG"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    JPEG_XL = "JPEG XL"
    VIDEO = "video"
    UNKNOWN = "unknown"


JPEG_MEDIA_TYPE: Final = "image/jpeg"
PNG_MEDIA_TYPE: Final = "image/png"
PDF_MEDIA_TYPE: Final = "application/pdf"

RENDERED_MEDIA_TYPES: Final = (JPEG_MEDIA_TYPE, PNG_MEDIA_TYPE)
"""What the renderer draws, the default first (PS3.18 8.7.4)."""

ENCAPSULATED_UNCOMPRESSED: Final = "1.2.840.10008.1.2.1.98"
JPEG_SPECTRAL_SELECTION: Final = "1.2.840.10008.1.2.4.53"
JPEG_FULL_PROGRESSION: Final = "1.2.840.10008.1.2.4.55"

_CODECS: Final[dict[str, Codec]] = {
    uids.IMPLICIT_VR_LITTLE_ENDIAN: Codec.NATIVE,
    uids.EXPLICIT_VR_LITTLE_ENDIAN: Codec.NATIVE,
    uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Codec.NATIVE,
    uids.EXPLICIT_VR_BIG_ENDIAN: Codec.NATIVE,
    ENCAPSULATED_UNCOMPRESSED: Codec.ENCAPSULATED_NATIVE,
    uids.DEFLATED_IMAGE_FRAME: Codec.DEFLATED_FRAME,
    uids.RLE_LOSSLESS: Codec.RLE,
    uids.JPEG_BASELINE: Codec.JPEG,
    uids.JPEG_EXTENDED: Codec.JPEG,
    JPEG_SPECTRAL_SELECTION: Codec.JPEG,
    JPEG_FULL_PROGRESSION: Codec.JPEG,
    uids.JPEG_LOSSLESS: Codec.JPEG,
    uids.JPEG_LOSSLESS_SV1: Codec.JPEG,
    uids.JPEG_LS_LOSSLESS: Codec.JPEG_LS,
    uids.JPEG_LS_NEAR_LOSSLESS: Codec.JPEG_LS,
    uids.JPEG_2000_LOSSLESS: Codec.JPEG_2000,
    uids.JPEG_2000: Codec.JPEG_2000,
    uids.HTJ2K_LOSSLESS: Codec.JPEG_2000,
    uids.HTJ2K_LOSSLESS_RPCL: Codec.JPEG_2000,
    uids.HTJ2K: Codec.JPEG_2000,
    "1.2.840.10008.1.2.4.110": Codec.JPEG_XL,
    "1.2.840.10008.1.2.4.111": Codec.JPEG_XL,
    "1.2.840.10008.1.2.4.112": Codec.JPEG_XL,
}

_ALWAYS_LOSSY: Final = frozenset(
    {
        uids.JPEG_BASELINE,
        uids.JPEG_EXTENDED,
        JPEG_SPECTRAL_SELECTION,
        JPEG_FULL_PROGRESSION,
    }
)


@lru_cache(maxsize=128)
def codec_of(transfer_syntax_uid: str) -> Codec:
    """Return the codec family of a transfer syntax.

    Raises
    ------
    Unsupported
        When it is no transfer syntax of the standard.
    """
    syntax = uids.transfer_syntax(transfer_syntax_uid)
    if syntax.is_video:
        return Codec.VIDEO
    return _CODECS.get(transfer_syntax_uid, Codec.UNKNOWN)


def media_type(transfer_syntax_uid: str) -> str:
    """Return the media type of one frame in a transfer syntax; of the whole stream for video.

    MPEG-4 bit streams are ``video/mp4``, the type that browsers play (PS3.18 8.7.3.3).
    """
    return uids.transfer_syntax(transfer_syntax_uid).frame_media_type


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """Return how a data set in a transfer syntax is encoded, after inflating where deflated."""
    syntax = uids.transfer_syntax(transfer_syntax_uid)
    return Encoding(syntax.is_implicit_vr, syntax.is_little_endian)


def is_always_lossy(transfer_syntax_uid: str) -> bool:
    """Whether a transfer syntax cannot be reversible, so that its images were changed by it."""
    return transfer_syntax_uid in _ALWAYS_LOSSY
