"""Promises of attributes.py."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom.datadict import DicomDictionary, RepeatersDictionary, dictionary_VR

from pacsteward.base.errors import Invalid
from pacsteward.dicom import attributes
from pacsteward.dicom.attributes import (
    INDEXED,
    Level,
    is_private,
    is_private_creator,
    is_vr_open,
    keyword_of,
    name_of,
    snake_case,
    tag_of,
    vr_of,
)


@pytest.mark.parametrize(
    "name",
    [
        "PatientName",
        "patientname",
        "PATIENTNAME",
        "00100010",
        "(0010,0010)",
        "0010,0010",
        " 00100010 ",
    ],
)
def test_c02_keyword_and_hexadecimal_name_the_same_attribute_in_any_letter_case(name: str) -> None:
    assert tag_of(name) == 0x00100010


@pytest.mark.parametrize(
    "name", ["", "PatientNam", "0010001", "001000100", "0010-0010", "0x00100010"]
)
def test_an_unknown_attribute_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        tag_of(name)


def test_every_keyword_of_the_registry_leads_to_its_tag_and_back() -> None:
    for tag, entry in DicomDictionary.items():
        if entry[4]:
            assert tag_of(entry[4]) == tag
            assert keyword_of(tag) == entry[4]


def test_the_registry_is_the_one_of_pydicom() -> None:
    assert attributes._registry() == DicomDictionary
    for tag in DicomDictionary:
        if tag & 0xFFFF and tag >> 16 != 0xFFFE:
            assert vr_of(tag) in dictionary_VR(tag)


def test_private_and_unknown_attributes_have_no_keyword() -> None:
    assert keyword_of(0x00091001) == ""
    assert vr_of(0x00091001) == "UN"
    assert vr_of(0x00090010) == "LO"
    assert vr_of(0x00080000) == "UL"
    assert is_private(0x00091001)
    assert not is_private(0x00081001)
    assert is_private_creator(0x00090010)
    assert not is_private_creator(0x00091001)


def test_open_representations_are_told_from_settled_ones() -> None:
    assert is_vr_open(0x00280106)
    assert vr_of(0x00280106) == "US"
    assert not is_vr_open(0x00280010)
    assert not is_vr_open(0x00091001)


def test_repeating_groups_are_known_in_each_of_their_places() -> None:
    assert keyword_of(0x60003000) == keyword_of(0x60163000) == "OverlayData"
    assert vr_of(0x60023000) == "OW"
    assert tag_of("OverlayData") == 0x60003000
    assert keyword_of(0x60013000) == ""


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("StudyInstanceUID", "study_instance_uid"),
        ("PatientID", "patient_id"),
        ("IssuerOfPatientID", "issuer_of_patient_id"),
        ("OtherPatientIDs", "other_patient_ids"),
        ("SOPClassUID", "sop_class_uid"),
        ("PatientBirthDate", "patient_birth_date"),
        ("DICOMMediaRetrievalSequence", "dicom_media_retrieval_sequence"),
        ("NameOfPhysiciansReadingStudy", "name_of_physicians_reading_study"),
        ("XRayTubeCurrentInmA", "x_ray_tube_current_in_ma"),
        ("VOILUTSequence", "voi_lut_sequence"),
        ("CTDIvol", "ctdi_vol"),
        ("XRay3DFrameTypeSequence", "x_ray3d_frame_type_sequence"),
        ("KVP", "kvp"),
        ("TimezoneOffsetFromUTC", "timezone_offset_from_utc"),
        ("PerformedProcedureStepStartDate", "performed_procedure_step_start_date"),
    ],
)
def test_an_attribute_in_python_is_its_keyword_in_snake_case(keyword: str, name: str) -> None:
    assert snake_case(keyword) == name


def test_no_two_attributes_share_a_name_in_python() -> None:
    entries = [*DicomDictionary.values(), *RepeatersDictionary.values()]
    keywords = {entry[4] for entry in entries if entry[4]}
    names = {snake_case(keyword) for keyword in keywords}
    assert len(names) == len(keywords)
    for keyword in keywords:
        name = snake_case(keyword)
        assert name.isidentifier()
        assert name.replace("_", "") == keyword.lower()


def test_indexed_attributes_are_known_sorted_and_belong_to_one_level() -> None:
    assert set(INDEXED) == set(Level)
    everything = [tag for tags in INDEXED.values() for tag in tags]
    assert len(everything) == len(set(everything))
    for tags in INDEXED.values():
        assert list(tags) == sorted(tags)
        assert all(keyword_of(tag) for tag in tags)


def test_a_tag_is_named_for_people() -> None:
    assert name_of(0x00100020) == "PatientID (0010,0020)"
    assert name_of(0x00091001) == "(0009,1001)"


def test_knowing_names_does_not_load_the_pixel_machinery() -> None:
    code = (
        "import sys; from pacsteward.dicom import attributes; attributes.tag_of('PatientID');"
        "sys.exit('pydicom' in sys.modules or 'numpy' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False
        ).returncode
        == 0
    )
