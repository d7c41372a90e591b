"""Instances that come apart, as metadata in the DICOM JSON model and bulk data, put together.

What enters is the metadata of one instance, and the bulk data that they refer to; what leaves is a
Part 10 file in pieces. Pixel data are passed on as they are, so that they need not fit into memory.

What the standard leaves to the receiver and is not done here: attributes of the Image Pixel
Description Macro that the metadata leave out are not looked for in the compressed image, and an
image of several compressed frames, which one part cannot hold without its own file format, is
refused. Nothing is guessed: a picture that is described wrongly is worse than one that is refused.

References
----------
PS3.18 10.5.1.4 (metadata and bulk data of the Store transaction), 8.7.3.3 (media types of pixel
data), F.2.2 (BulkDataURI); PS3.5 A.4 (encapsulation).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pacsteward.base.errors import Invalid
from pacsteward.dicom import charset, vrs
from pacsteward.dicom.dicomjson import Path, bulk_data, from_json
from pacsteward.dicom.elements import HEADER_MAX
from pacsteward.dicom.part10 import FileMeta, encode_part10_head
from pacsteward.dicom.tags import PIXEL_DATA, SPECIFIC_CHARACTER_SET
from pacsteward.dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    PROPOSED,
    TRANSFER_SYNTAXES,
    check_uid,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

OCTETS: Final = "application/octet-stream"
_DESCRIPTION: Final = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel")
_ITEM, _END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class BulkData:
    """One value that came apart from its metadata.

    Parameters
    ----------
    transfer_syntax_uid
        As its part says; "" where it says nothing.
    """

    media_type: str
    transfer_syntax_uid: str
    data: memoryview


def assemble(model: object, find: Callable[[str], BulkData]) -> Iterator[bytes]:
    """Give the pieces of the whole file of an instance.

    Parameters
    ----------
    find
        Returns what a BulkDataURI refers to, or raises `Invalid`.

    Raises
    ------
    Invalid
        The metadata are no data set in the DICOM JSON model, do not describe their pixel data, or
        refer to what is not here.
    """
    dataset = from_json(model)
    references = [(path, find(uri)) for path, uri in _references(model)]
    pixels = dict(references).get((PIXEL_DATA,), _inline(dataset))
    # Before anything is filled: what these attributes say must stand in the metadata themselves.
    meta = FileMeta(_uid(dataset, "SOPClassUID"), _uid(dataset, "SOPInstanceUID"), "")
    meta = replace(meta, transfer_syntax_uid=_syntax(dataset, pixels))
    others = [(path, bulk.data) for path, bulk in references if path != (PIXEL_DATA,)]
    if sum(len(data) for _, data in others) > HEADER_MAX:
        raise _refused(f"Beside its pixel data it may have {HEADER_MAX} bytes of bulk data.")
    for path, data in others:
        _fill(dataset, path, data)
    for tag in [tag for tag in dataset.keys() if tag.group <= 0x0002]:  # noqa: SIM118 - of pydicom
        del dataset[tag]
    yield from _pieces(meta, dataset, pixels)


def _uid(dataset: Dataset, keyword: str) -> str:
    return check_uid(str(dataset.get(keyword, "")).rstrip(" \0"), keyword)


def _inline(dataset: Dataset) -> BulkData | None:
    """Return the pixel data that the metadata hold themselves, which may be empty."""
    if PIXEL_DATA not in dataset:
        return None
    element = dataset[PIXEL_DATA]
    if element.VR not in ("OB", "OW"):
        raise _refused(f"Its pixel data have VR {element.VR}.")
    return BulkData(OCTETS, "", memoryview(element.value or b""))


def bulk_data_uris(model: object) -> Iterator[str]:
    """Give each BulkDataURI of what came as JSON, however deep and whatever else is wrong."""
    stack = [model]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            uri = one.get("BulkDataURI")
            if isinstance(uri, str):
                yield uri
            stack += one.values()
        elif isinstance(one, list):
            stack += one


def _references(model: object) -> list[tuple[Path, str]]:
    """Return where bulk data belong; none may be left out for want of a place."""
    try:
        found = list(bulk_data(model))
    except (AttributeError, TypeError):  # in what `from_json` leaves out, such as group lengths
        found = []
    if sorted(uri for _, uri in found) != sorted(bulk_data_uris(model)):
        raise _refused("A BulkDataURI stands where no value can be, or in a sequence without VR.")
    if len({path for path, _ in found}) < len(found):
        raise _refused("Two of its BulkDataURIs belong to one attribute.")
    return found


def _fill(whole: Any, path: Path, data: memoryview) -> None:
    """Put a value where it belongs, which may be in an item of a sequence."""
    from pacsteward.dicom.pydicom_parts import RawDataElement

    dataset = whole
    try:
        for tag, item in zip(path[:-1:2], path[1::2], strict=True):
            dataset = dataset[tag].value[item]
        element = dataset[path[-1]]
    except KeyError as error:
        raise _refused("A BulkDataURI stands where no value can be.") from error
    if element.VR == "SQ" or path[-1] == SPECIFIC_CHARACTER_SET:
        raise _refused("A BulkDataURI stands in place of a sequence, or of the character set.")
    if len(data) % vrs.VALUE_SIZES.get(element.VR, 1):
        raise _refused(f"{len(data)} bytes that came apart are no values of VR {element.VR}.")
    is_text = element.VR in vrs.TEXT
    if is_text and not _is_ascii(data):
        whole.SpecificCharacterSet = charset.UTF_8
    padding = b" " if is_text and element.VR != "UI" else b"\0"
    raw = bytes(data) + padding * (len(data) % 2)
    dataset[path[-1]] = RawDataElement(
        element.tag, element.VR, len(raw), raw, 0, is_implicit_VR=False, is_little_endian=True
    )
    if dataset is not whole:
        _keep_raw(dataset)


def _is_ascii(text: memoryview) -> bool:
    """Say whether a text is the same in each character set; what is not must be UTF-8."""
    try:
        return str(text, "utf-8").isascii()
    except UnicodeDecodeError as error:
        raise _refused("One of its texts that came apart is not in UTF-8.") from error


def _keep_raw(dataset: Any) -> None:
    """Have values that came apart written as they are.

    Else pydicom would parse them first, which for numbers takes thirty times their size, and more
    than a hundred times for decimal texts.
    """
    dataset.set_original_encoding(False, True, dataset._character_set)


def _syntax(dataset: Dataset, pixels: BulkData | None) -> str:
    """Choose in what the file is encoded: compressed pixel data decide, all else is explicit VR."""
    if pixels is None:
        return EXPLICIT_VR_LITTLE_ENDIAN
    named = dataset.get((0x0002, 0x0010))
    uid = pixels.transfer_syntax_uid or ("" if named is None else str(named.value))
    absent = [name for name in _DESCRIPTION if dataset.get(name) is None]
    if absent:
        raise _refused(f"The metadata do not say how its pixel data are made: {', '.join(absent)}.")
    if uid in ("", *PROPOSED):
        if pixels.media_type != OCTETS:
            raise _refused(f"Its pixel data are {pixels.media_type}, of no transfer syntax.")
        _check_size(dataset, len(pixels.data))
        return EXPLICIT_VR_LITTLE_ENDIAN
    syntax = TRANSFER_SYNTAXES.get(uid)
    if syntax is None or not syntax.is_encapsulated:
        raise _refused(f"Its pixel data cannot be kept in transfer syntax {uid}.")
    if pixels.media_type not in (OCTETS, syntax.frame_media_type):
        raise _refused(f"Its pixel data are {pixels.media_type}, which is not {uid}.")
    if not syntax.is_video and str(dataset.get("NumberOfFrames") or 1) != "1":
        raise _refused("It has several compressed frames, and one part for all of them.")
    return uid


def _check_size(dataset: Dataset, size: int) -> None:
    """Refuse octets that are too few: compressed ones, most likely, whose label was lost."""
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        bits = math.prod(int(dataset[name].value) for name in _DESCRIPTION) * frames
        if "422" in str(dataset.get("PhotometricInterpretation", "")):
            bits = bits * 2 // 3
        # Here, since Python does not write a number of more than 4,300 digits.
        described = f"{(bits + 7) // 8} are described"
    except (TypeError, ValueError) as error:
        raise _refused("Its Rows, Columns and the like are no single numbers.") from error
    if size * 8 < bits:
        raise _refused(f"Its pixel data have {size} bytes, and {described}.")


def _pieces(meta: FileMeta, dataset: Any, pixels: BulkData | None) -> Iterator[bytes]:
    yield encode_part10_head(meta)
    # What follows the pixel data has its character set before them.
    character_set = dataset.get("SpecificCharacterSet", "")
    yield _encoded(dataset[:PIXEL_DATA], character_set)
    if pixels is not None:
        head, tail = _around(meta, dataset[PIXEL_DATA].VR, pixels.data)
        yield head
        for at in range(0, len(pixels.data), _PIECE_BYTES):
            yield bytes(pixels.data[at : at + _PIECE_BYTES])
        yield tail
    yield _encoded(dataset[PIXEL_DATA + 1 :], character_set)


_PIECE_BYTES: Final = 1024 * 1024


def _around(meta: FileMeta, vr: str, pixels: memoryview) -> tuple[bytes, bytes]:
    """Return what stands before and after the bytes of the pixel data."""
    padding = bytes(len(pixels) % 2)
    size = len(pixels) + len(padding)
    if size >= _UNDEFINED_LENGTH:
        raise _refused("Its pixel data are longer than an element may be.")
    head = struct.pack("<HH", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF)
    if meta.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN:
        word = b"OB" if vr == "OB" else b"OW"
        return head + word + struct.pack("<HI", 0, size), padding
    # An empty Basic Offset Table, which says nothing of where the one frame begins.
    head += b"OB" + struct.pack("<HI", 0, _UNDEFINED_LENGTH) + _ITEM + bytes(4)
    return head + _ITEM + struct.pack("<I", size), padding + _END_OF_ITEMS


def _encoded(dataset: Dataset, character_set: Any) -> bytes:
    from pacsteward.dicom.pydicom_parts import DicomBytesIO, write_dataset

    target = DicomBytesIO()
    target.is_implicit_VR, target.is_little_endian = False, True
    try:
        _keep_raw(dataset)
        write_dataset(target, dataset, character_set)
    except Exception as error:
        # Of values that do not fit their VR pydicom raises whatever it meets.
        raise _refused(f"Its metadata cannot be written: {type(error).__name__}.") from error
    return target.getvalue()


def _refused(why: str) -> Invalid:
    return Invalid(
        "The instance was not put together.",
        why=why,
        remedy="Send it whole, as application/dicom.",
    )
