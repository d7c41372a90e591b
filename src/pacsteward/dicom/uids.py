"""Unique identifiers: those of the standard that the house uses, and the check of any other.

A UID names a kind of object (SOP class), a way of encoding (transfer syntax) or one object. The
two tables answer the questions that the floors above ask: is this a class that we store, and what
does this encoding mean for the bytes.

References
----------
PS3.5 chapter 9 and Annex A; PS3.6 Annex A; PS3.4 B.5 and GG.3; PS3.18 8.7.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pacsteward.base.errors import Invalid, Unsupported
from pacsteward.base.ids import Uid
from pacsteward.dicom.sop_classes import NON_PATIENT_SOP_CLASSES, STORAGE_SOP_CLASSES

__all__ = [
    "NON_PATIENT_SOP_CLASSES",
    "STORAGE_SOP_CLASSES",
    "TRANSFER_SYNTAXES",
    "TransferSyntax",
    "are_valid_uids",
    "check_uid",
    "is_storage_sop_class",
    "is_valid_uid",
    "transfer_syntax",
]

VERIFICATION: Final = Uid("1.2.840.10008.1.1")
STUDY_ROOT_FIND: Final = Uid("1.2.840.10008.5.1.4.1.2.2.1")
STUDY_ROOT_MOVE: Final = Uid("1.2.840.10008.5.1.4.1.2.2.2")
STUDY_ROOT_GET: Final = Uid("1.2.840.10008.5.1.4.1.2.2.3")

IMPLICIT_VR_LITTLE_ENDIAN: Final = Uid("1.2.840.10008.1.2")
EXPLICIT_VR_LITTLE_ENDIAN: Final = Uid("1.2.840.10008.1.2.1")
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = Uid("1.2.840.10008.1.2.1.99")
EXPLICIT_VR_BIG_ENDIAN: Final = Uid("1.2.840.10008.1.2.2")
UNCOMPRESSED: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
"""What we answer identifiers and uncompressed objects in, in our order of preference."""
PROPOSED: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""What we propose for identifiers: the default, which everybody takes (PS3.5 10.1), and better."""
DEFLATED_IMAGE_FRAME: Final = Uid("1.2.840.10008.1.2.8.1")
RLE_LOSSLESS: Final = Uid("1.2.840.10008.1.2.5")
JPEG_BASELINE: Final = Uid("1.2.840.10008.1.2.4.50")
JPEG_EXTENDED: Final = Uid("1.2.840.10008.1.2.4.51")
JPEG_LOSSLESS: Final = Uid("1.2.840.10008.1.2.4.57")
JPEG_LOSSLESS_SV1: Final = Uid("1.2.840.10008.1.2.4.70")
JPEG_LS_LOSSLESS: Final = Uid("1.2.840.10008.1.2.4.80")
JPEG_LS_NEAR_LOSSLESS: Final = Uid("1.2.840.10008.1.2.4.81")
JPEG_2000_LOSSLESS: Final = Uid("1.2.840.10008.1.2.4.90")
JPEG_2000: Final = Uid("1.2.840.10008.1.2.4.91")
HTJ2K_LOSSLESS: Final = Uid("1.2.840.10008.1.2.4.201")
HTJ2K_LOSSLESS_RPCL: Final = Uid("1.2.840.10008.1.2.4.202")
HTJ2K: Final = Uid("1.2.840.10008.1.2.4.203")


def is_storage_sop_class(uid: str) -> bool:
    """Whether the standard lists the class for storage, patient related or not."""
    return uid in STORAGE_SOP_CLASSES or uid in NON_PATIENT_SOP_CLASSES


_ONE = r"(?=\.*[0-9])[0-9.]{1,64}"
_UID = re.compile(_ONE)
_UIDS = re.compile(f"{_ONE}(?: {_ONE})*")


def is_valid_uid(text: str) -> bool:
    """Whether we accept the text as a UID: 1 to 64 digits and dots, and not dots alone.

    PS3.5 9.1 also forbids leading zeros in a component and empty components. Devices in daily
    use break both (dates as components give ``.08.``, a missing serial number gives ``..``), and
    a UID is only ever compared, never computed with. Refusing would lose images and gain nothing;
    what does matter is that no other character gets into file names, URLs and queries, nor ``..``,
    which in each of the first two means the folder above: a study of that name would be unpacked
    from its ZIP file outside of where somebody wants it.
    """
    return _UID.fullmatch(text) is not None


def are_valid_uids(texts: Sequence[str]) -> bool:
    """Whether we accept each of these as a UID."""
    joined = " ".join(texts)
    # A text that has a space itself would pass for two.
    return _UIDS.fullmatch(joined) is not None and joined.count(" ") == len(texts) - 1


def check_uid(text: str, what: str) -> Uid:
    """Return the text as a UID.

    Parameters
    ----------
    text
        Without padding.
    what
        Its keyword, for the message: ``"StudyInstanceUID"``.

    Raises
    ------
    Invalid
        When it is empty, too long, or has other characters than digits and dots, or no digit.
    """
    if is_valid_uid(text):
        return Uid(text)
    if not text:
        why = "It is empty."
    elif len(text) > 64:
        why = f"It has {len(text)} characters and may have 64 (PS3.5 9.1)."
    elif not text.strip("."):
        why = "It has no digit (PS3.5 9.1)."
    else:
        why = "It has characters other than digits and dots (PS3.5 9.1)."
    raise Invalid(f"{what} is not a UID.", why=why, remedy="Correct it in the sending system.")


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """What an encoding means for the bytes (PS3.5 Annex A).

    Parameters
    ----------
    uid, name
        As PS3.6 Annex A has them.
    is_implicit_vr
        Whether elements come without their value representation.
    is_little_endian, is_deflated
        Of the data set; frames inside may be compressed besides.
    is_encapsulated
        Whether pixel data are a sequence of fragments (PS3.5 A.4).
    is_lossy
        Whether decoding may give other pixels than were encoded. True where the syntax permits
        both.
    frame_media_type
        Media type of one frame as it is stored (PS3.18 8.7.3), "" where there is none.
    is_video
        Whether fragments are a stream of many frames that cannot be cut at frame borders.
    """

    uid: Uid
    name: str
    is_implicit_vr: bool = False
    is_little_endian: bool = True
    is_deflated: bool = False
    is_encapsulated: bool = False
    is_lossy: bool = False
    frame_media_type: str = "application/octet-stream"
    is_video: bool = False


def transfer_syntax(uid: str) -> TransferSyntax:
    """Return what is known of a transfer syntax.

    Raises
    ------
    Unsupported
        When it is none of the standard. Private ones may use any encoding whatever.
    """
    try:
        return TRANSFER_SYNTAXES[uid]
    except KeyError:
        shown = uid if is_valid_uid(uid) else "(not a UID)"
        raise Unsupported(
            f"Transfer syntax {shown} is not supported.",
            why="It is not one of PS3.6 Annex A." if uid else "None was given.",
            remedy="Send the object in Explicit VR Little Endian (1.2.840.10008.1.2.1).",
        ) from None


def _frames(uid: str, name: str, media_type: str, *, lossy: bool) -> TransferSyntax:
    """One compressed frame in one or more fragments."""
    return TransferSyntax(
        Uid(uid), name, is_encapsulated=True, is_lossy=lossy, frame_media_type=media_type
    )


def _video(uid: str, name: str, media_type: str = "video/mp4") -> TransferSyntax:
    return TransferSyntax(
        Uid(uid),
        name,
        is_encapsulated=True,
        is_lossy=True,
        frame_media_type=media_type,
        is_video=True,
    )


_JPEG = "image/jpeg"
_4 = "1.2.840.10008.1.2.4."

_ALL: Final[tuple[TransferSyntax, ...]] = (
    TransferSyntax(IMPLICIT_VR_LITTLE_ENDIAN, "Implicit VR Little Endian", is_implicit_vr=True),
    TransferSyntax(EXPLICIT_VR_LITTLE_ENDIAN, "Explicit VR Little Endian"),
    TransferSyntax(
        Uid("1.2.840.10008.1.2.1.98"),
        "Encapsulated Uncompressed Explicit VR Little Endian",
        is_encapsulated=True,
    ),
    TransferSyntax(
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian", is_deflated=True
    ),
    TransferSyntax(EXPLICIT_VR_BIG_ENDIAN, "Explicit VR Big Endian", is_little_endian=False),
    TransferSyntax(
        Uid("1.2.840.10008.1.20"), "Papyrus 3 Implicit VR Little Endian", is_implicit_vr=True
    ),
    # 8.7.3 names no media type of its own for deflated frames; raw deflate is not "deflate" of
    # HTTP either, so they go out as octets with their transfer syntax beside them.
    _frames(
        DEFLATED_IMAGE_FRAME, "Deflated Image Frame Compression", "application/octet-stream",
        lossy=False,
    ),
    _frames(RLE_LOSSLESS, "RLE Lossless", "image/dicom-rle", lossy=False),
    _frames(JPEG_BASELINE, "JPEG Baseline (Process 1)", _JPEG, lossy=True),
    _frames(JPEG_EXTENDED, "JPEG Extended (Process 2 and 4)", _JPEG, lossy=True),
    _frames(_4 + "52", "JPEG Extended (Process 3 and 5)", _JPEG, lossy=True),
    _frames(
        _4 + "53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)", _JPEG, lossy=True
    ),
    _frames(
        _4 + "54", "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)", _JPEG, lossy=True
    ),
    _frames(
        _4 + "55", "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)", _JPEG, lossy=True
    ),
    _frames(
        _4 + "56", "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)", _JPEG, lossy=True
    ),
    _frames(JPEG_LOSSLESS, "JPEG Lossless, Non-Hierarchical (Process 14)", _JPEG, lossy=False),
    _frames(_4 + "58", "JPEG Lossless, Non-Hierarchical (Process 15)", _JPEG, lossy=False),
    _frames(_4 + "59", "JPEG Extended, Hierarchical (Process 16 and 18)", _JPEG, lossy=True),
    _frames(_4 + "60", "JPEG Extended, Hierarchical (Process 17 and 19)", _JPEG, lossy=True),
    _frames(
        _4 + "61", "JPEG Spectral Selection, Hierarchical (Process 20 and 22)", _JPEG, lossy=True
    ),
    _frames(
        _4 + "62", "JPEG Spectral Selection, Hierarchical (Process 21 and 23)", _JPEG, lossy=True
    ),
    _frames(
        _4 + "63", "JPEG Full Progression, Hierarchical (Process 24 and 26)", _JPEG, lossy=True
    ),
    _frames(
        _4 + "64", "JPEG Full Progression, Hierarchical (Process 25 and 27)", _JPEG, lossy=True
    ),
    _frames(_4 + "65", "JPEG Lossless, Hierarchical (Process 28)", _JPEG, lossy=False),
    _frames(_4 + "66", "JPEG Lossless, Hierarchical (Process 29)", _JPEG, lossy=False),
    _frames(
        JPEG_LOSSLESS_SV1,
        "JPEG Lossless, Non-Hierarchical, First-Order Prediction "
        "(Process 14 [Selection Value 1])",
        _JPEG,
        lossy=False,
    ),
    _frames(JPEG_LS_LOSSLESS, "JPEG-LS Lossless Image Compression", "image/jls", lossy=False),
    _frames(
        JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Lossy (Near-Lossless) Image Compression", "image/jls",
        lossy=True,
    ),
    _frames(
        JPEG_2000_LOSSLESS, "JPEG 2000 Image Compression (Lossless Only)", "image/jp2", lossy=False
    ),
    _frames(JPEG_2000, "JPEG 2000 Image Compression", "image/jp2", lossy=True),
    _frames(
        _4 + "92", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)",
        "image/jpx", lossy=False,
    ),
    _frames(
        _4 + "93", "JPEG 2000 Part 2 Multi-component Image Compression", "image/jpx", lossy=True
    ),
    # JPIP: the pixels are elsewhere, behind a URL (PS3.5 A.6 and A.7).
    TransferSyntax(Uid(_4 + "94"), "JPIP Referenced", is_lossy=True, frame_media_type=""),
    TransferSyntax(
        Uid(_4 + "95"), "JPIP Referenced Deflate", is_deflated=True, is_lossy=True,
        frame_media_type="",
    ),
    _video(_4 + "100", "MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video(_4 + "100.1", "Fragmentable MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video(_4 + "101", "MPEG2 Main Profile / High Level", "video/mpeg"),
    _video(_4 + "101.1", "Fragmentable MPEG2 Main Profile / High Level", "video/mpeg"),
    _video(_4 + "102", "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
    _video(_4 + "102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1"),
    _video(_4 + "103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"),
    _video(_4 + "103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"),
    _video(_4 + "104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"),
    _video(_4 + "104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"),
    _video(_4 + "105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"),
    _video(_4 + "105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"),
    _video(_4 + "106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"),
    _video(_4 + "106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"),
    _video(_4 + "107", "HEVC/H.265 Main Profile / Level 5.1"),
    _video(_4 + "108", "HEVC/H.265 Main 10 Profile / Level 5.1"),
    _frames(_4 + "110", "JPEG XL Lossless", "image/jxl", lossy=False),
    _frames(_4 + "111", "JPEG XL JPEG Recompression", "image/jxl", lossy=True),
    _frames(_4 + "112", "JPEG XL", "image/jxl", lossy=True),
    _frames(
        HTJ2K_LOSSLESS, "High-Throughput JPEG 2000 Image Compression (Lossless Only)",
        "image/jphc", lossy=False,
    ),
    _frames(
        HTJ2K_LOSSLESS_RPCL,
        "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
        "image/jphc",
        lossy=False,
    ),
    _frames(HTJ2K, "High-Throughput JPEG 2000 Image Compression", "image/jphc", lossy=True),
    TransferSyntax(Uid(_4 + "204"), "JPIP HTJ2K Referenced", is_lossy=True, frame_media_type=""),
    TransferSyntax(
        Uid(_4 + "205"), "JPIP HTJ2K Referenced Deflate", is_deflated=True, is_lossy=True,
        frame_media_type="",
    ),
    # DICOM-RTV: flow metadata of a live stream; never stored, listed so that it has a name.
    TransferSyntax(
        Uid("1.2.840.10008.1.2.7.1"), "SMPTE ST 2110-20 Uncompressed Progressive Active Video",
        frame_media_type="", is_video=True,
    ),
    TransferSyntax(
        Uid("1.2.840.10008.1.2.7.2"), "SMPTE ST 2110-20 Uncompressed Interlaced Active Video",
        frame_media_type="", is_video=True,
    ),
    TransferSyntax(
        Uid("1.2.840.10008.1.2.7.3"), "SMPTE ST 2110-30 PCM Digital Audio", frame_media_type=""
    ),
)  # fmt: skip

TRANSFER_SYNTAXES: Final[Mapping[str, TransferSyntax]] = MappingProxyType(
    {syntax.uid: syntax for syntax in _ALL}
)
"""Every transfer syntax of PS3.6 Annex A that encodes data sets, by UID."""
