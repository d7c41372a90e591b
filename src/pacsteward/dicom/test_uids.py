"""Promises of uids.py, sop_classes.py and status.py."""

from __future__ import annotations

import pytest
from pydicom.uid import UID, UID_dictionary

from pacsteward.base import errors
from pacsteward.base.errors import Invalid, PacstewardError, Unsupported
from pacsteward.dicom import status, uids
from pacsteward.dicom.uids import (
    NON_PATIENT_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    are_valid_uids,
    check_uid,
    is_storage_sop_class,
    is_valid_uid,
    transfer_syntax,
)

YOUNGER_THAN_THE_DICTIONARY = {
    "1.2.840.10008.5.1.4.1.1.2.3": "CT Image Storage - For Processing",
    "1.2.840.10008.5.1.4.1.1.2.4": "Enhanced CT Image Storage - For Processing",
    "1.2.840.10008.5.1.4.1.1.2.5": "Legacy Converted Enhanced CT Image Storage - For Processing",
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.601.3": "Thermography Image Storage",
    "1.2.840.10008.5.1.4.1.1.601.4": "Thermography Multi-frame Image Storage",
    "1.2.840.10008.5.1.4.1.1.601.5": "Ultrasound Waveform Storage",
}
"""Storage classes of later editions than pydicom's dictionary (PS3.6 table A-1)."""


@pytest.mark.parametrize(
    "texts",
    [
        *[("1.2", "3"), ("1.2", ""), ("", "1"), ("1 2", ""), ("1 2", "3"), ("1", "x"), (" ", "1")],
        *[("..", "3"), ("1", "."), (".", "."), (".1", "..2.")],
    ],
)
def test_several_uids_are_looked_at_as_one_is(texts: tuple[str, str]) -> None:
    assert are_valid_uids(texts) is all(map(is_valid_uid, texts))
    assert are_valid_uids(texts[::-1]) is all(map(is_valid_uid, texts))


def test_every_storage_class_of_the_standard_is_known() -> None:
    not_stored = {"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"}
    for uid, entry in UID_dictionary.items():
        if entry[1] == "SOP Class" and "Storage" in entry[0] and uid not in not_stored:
            assert is_storage_sop_class(uid), entry[0]
    assert not any(map(is_storage_sop_class, not_stored))
    assert not is_storage_sop_class(uids.VERIFICATION)
    assert not is_storage_sop_class(uids.STUDY_ROOT_FIND)


def test_storage_classes_of_later_editions_are_known() -> None:
    """Software that writes label maps is in use before our dictionary has heard of them."""
    for uid, name in YOUNGER_THAN_THE_DICTIONARY.items():
        assert STORAGE_SOP_CLASSES.get(uid) == name


def test_names_of_storage_classes_are_those_of_the_standard() -> None:
    for uid, name in (STORAGE_SOP_CLASSES | NON_PATIENT_SOP_CLASSES).items():
        if uid not in YOUNGER_THAN_THE_DICTIONARY:
            assert name.removesuffix(" (Retired)") in UID(uid).name


def test_objects_without_patient_are_apart() -> None:
    assert not STORAGE_SOP_CLASSES.keys() & NON_PATIENT_SOP_CLASSES.keys()
    assert "1.2.840.10008.5.1.4.38.1" in NON_PATIENT_SOP_CLASSES
    assert "1.2.840.10008.5.1.4.1.1.2" in STORAGE_SOP_CLASSES
    assert len(STORAGE_SOP_CLASSES) > 180


def test_every_transfer_syntax_of_the_registry_is_known_by_name() -> None:
    # RFC 2557 and XML encoding are no encodings of data sets; both are retired.
    missing = {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"}
    for uid, entry in UID_dictionary.items():
        if entry[1] == "Transfer Syntax" and uid not in missing:
            assert TRANSFER_SYNTAXES[uid].name == entry[0]


def test_transfer_syntaxes_mean_what_pydicom_thinks() -> None:
    for uid, syntax in TRANSFER_SYNTAXES.items():
        theirs = UID(uid)
        if not theirs.is_transfer_syntax or uid.startswith(
            ("1.2.840.10008.1.2.7.", "1.2.840.10008.1.20")
        ):
            continue
        assert syntax.is_implicit_vr == theirs.is_implicit_VR
        assert syntax.is_little_endian == theirs.is_little_endian
        if "JPIP" not in syntax.name and uid != uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            assert syntax.is_encapsulated == theirs.is_encapsulated
            assert syntax.is_deflated == theirs.is_deflated


@pytest.mark.parametrize(
    ("last", "media_type"),
    [("4.50", "image/jpeg"), ("4.57", "image/jpeg"), ("4.70", "image/jpeg"), ("4.80", "image/jls"),
     ("4.81", "image/jls"), ("4.90", "image/jp2"), ("4.91", "image/jp2"), ("4.92", "image/jpx"),
     ("4.93", "image/jpx"), ("5", "image/dicom-rle"), ("4.201", "image/jphc"),
     ("4.203", "image/jphc"), ("4.110", "image/jxl"), ("1", "application/octet-stream"),
     ("4.102", "video/mp4"), ("4.100", "video/mpeg")],
)  # fmt: skip
def test_c49_frames_have_the_media_type_of_their_encoding(last: str, media_type: str) -> None:
    assert transfer_syntax(f"1.2.840.10008.1.2.{last}").frame_media_type == media_type


def test_lossless_syntaxes_are_not_called_lossy() -> None:
    lossless = {"4.57", "4.58", "4.65", "4.66", "4.70", "4.80", "4.90", "4.92", "4.110", "4.201",
                "4.202", "5", "8.1", "1", "1.98", "1.99", "2"}  # fmt: skip
    for last in lossless:
        assert not transfer_syntax(f"1.2.840.10008.1.2.{last}").is_lossy
    assert transfer_syntax(uids.JPEG_BASELINE).is_lossy
    assert transfer_syntax("1.2.840.10008.1.2.4.107").is_video


@pytest.mark.parametrize("uid", ["", "1.2.3", "x" * 100])
def test_an_unknown_transfer_syntax_is_unsupported(uid: str) -> None:
    with pytest.raises(Unsupported):
        transfer_syntax(uid)


@pytest.mark.parametrize(
    "text", ["1.2.840.08.1", "1..2", "1" * 64, "2.25.329800735698586629295641978511506172918"]
)
def test_uids_that_devices_really_send_are_accepted(text: str) -> None:
    assert is_valid_uid(text)
    assert check_uid(text, "StudyInstanceUID") == text


@pytest.mark.parametrize(
    "text", ["", "1" * 65, "1.2.a", "1.2/../3", "1.2 ", "1.2\n", "１.2", ".", "..", "." * 64]
)
def test_what_could_not_be_a_file_name_is_no_uid(text: str) -> None:
    assert not is_valid_uid(text)
    with pytest.raises(Invalid, match="StudyInstanceUID"):
        check_uid(text, "StudyInstanceUID")


KINDS = [
    errors.Invalid, errors.Unsupported, errors.NotFound, errors.Conflict, errors.Forbidden,
    errors.Exhausted, errors.Unavailable, errors.Broken,
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "store", "query", "other"),
    [
        (errors.Invalid, 0xA900, 0xA900, 0xC000),
        (errors.Unsupported, 0x0122, 0x0122, 0x0122),
        (errors.NotFound, 0x0112, 0xC000, 0x0112),
        (errors.Conflict, 0x0111, 0xA900, 0xA900),
        (errors.Forbidden, 0x0124, 0x0124, 0x0124),
        (errors.Exhausted, 0xA700, 0xA700, 0x0213),
        (errors.Unavailable, 0xA700, 0xA700, 0x0110),
        (errors.Broken, 0x0110, 0xC000, 0x0110),
    ],
)
def test_each_kind_of_error_has_its_status(
    kind: type[PacstewardError], store: int, query: int, other: int
) -> None:
    error = kind("It happened.")
    assert status.store_status(error) == store
    assert status.query_status(error) == query
    assert status.status(error) == other
    for value in (store, query, other):
        assert status.category(value) is status.Category.FAILURE


def test_an_error_that_is_not_ours_is_our_fault() -> None:
    assert status.store_status(RuntimeError()) == status.PROCESSING_FAILURE


@pytest.mark.parametrize(
    ("value", "category"),
    [(0x0000, "success"), (0xFF00, "pending"), (0xFF01, "pending"), (0xFE00, "cancel"),
     (0xB000, "warning"), (0xB007, "warning"), (0x0001, "warning"), (0x0107, "warning"),
     (0xA701, "failure"), (0xC123, "failure"), (0x0110, "failure"), (0x1234, "failure")],
)  # fmt: skip
def test_statuses_of_peers_are_understood(value: int, category: str) -> None:
    assert status.category(value) == category
