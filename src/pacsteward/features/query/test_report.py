"""A structured report is written as people read it."""

from __future__ import annotations

from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file

from pacsteward.features.query.report import DEPTH_MAX, LINES_MAX, read_report, title_of


def code(meaning: str, value: str = "1", scheme: str = "99TEST") -> list[Dataset]:
    data = Dataset()
    data.CodeValue, data.CodingSchemeDesignator, data.CodeMeaning = value, scheme, meaning
    return [data]


def item(value_type: str, name: str, **attributes: object) -> Dataset:
    data = Dataset()
    data.ValueType, data.ConceptNameCodeSequence = value_type, code(name)
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    return data


def referred(uid: str) -> list[Dataset]:
    data = Dataset()
    data.ReferencedSOPClassUID, data.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    data.ReferencedFrameNumber = [2, 5]
    return [data]


def measured(value: str, *unit: str) -> list[Dataset]:
    data = Dataset()
    data.NumericValue, data.MeasurementUnitsCodeSequence = value, code(*unit)
    return [data]


def of_type(value_type: str) -> dict[str, Any]:
    return {"0040A040": {"vr": "CS", "Value": [value_type]}}


def document(*content: Dataset) -> Dataset:
    return item("CONTAINER", "Imaging Report", ContentSequence=list(content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (item("TEXT", "Finding", TextValue="Two\r\nlines"), "Two\r\nlines"),
        (item("CODE", "Side", ConceptCodeSequence=code("Left")), "Left"),
        (
            item("NUM", "Length", MeasuredValueSequence=measured("12.5", "no", "mm", "UCUM")),
            "12.5 mm",
        ),
        (item("NUM", "Ratio", MeasuredValueSequence=measured("0.4", "no", "1", "UCUM")), "0.4"),
        (item("NUM", "Length", MeasuredValueSequence=measured("12.5", "mm", "1")), "12.5 mm"),
        (item("NUM", "Length", MeasuredValueSequence=measured("12.5", "", "mm")), "12.5 mm"),
        (item("NUM", "Length", MeasuredValueSequence=[]), "no value"),
        (item("PNAME", "Observer", PersonName="Roe^Richard"), "Roe, Richard"),
        (item("DATE", "Day", Date="20260302"), "20260302"),
        (item("UIDREF", "Tracking", UID="1.2.3"), "1.2.3"),
        (item("IMAGE", "Source", ReferencedSOPSequence=referred("1.2.9")), "1.2.9, frame 2, 5"),
        (
            item("SCOORD", "Path", GraphicType="POLYLINE", GraphicData=[1.0, 2.0, 3.0, 4.0]),
            "polyline, 2 points",
        ),
        (item("SOUND", "Murmur"), "(SOUND)"),
    ],
)
def test_each_kind_of_content_has_its_words(content: Dataset, words: str) -> None:
    (line,) = read_report(document(content).to_json_dict())
    assert line.name == content.ConceptNameCodeSequence[0].CodeMeaning
    assert line.value == words
    assert not line.is_heading


def test_sections_are_headings_and_what_is_in_them_is_indented() -> None:
    inner = item("CONTAINER", "Findings", ContentSequence=[item("TEXT", "A", TextValue="b")])
    data = document(inner, item("TEXT", "Last", TextValue="c")).to_json_dict()
    assert title_of(data) == "Imaging Report"
    assert [(one.depth, one.name, one.is_heading) for one in read_report(data)] == [
        (0, "Findings", True),
        (1, "A", False),
        (0, "Last", False),
    ]


def test_content_by_reference_and_without_a_name_is_no_fault() -> None:
    bare = Dataset()
    bare.RelationshipType, bare.ReferencedContentItemIdentifier = "INFERRED FROM", [1, 2, 1]
    (line,) = read_report(document(bare).to_json_dict())
    assert (line.name, line.value) == ("", "see item 1.2.1")


def test_images_that_it_points_at_can_be_opened() -> None:
    content = item("IMAGE", "Source", ReferencedSOPSequence=referred("1.2.9"))
    (line,) = read_report(document(content).to_json_dict())
    assert line.sop_instance_uid == "1.2.9"


def test_a_report_without_end_is_cut() -> None:
    many = [item("TEXT", "Finding", TextValue=str(number)) for number in range(LINES_MAX + 5)]
    lines = read_report(document(*many).to_json_dict())
    assert len(lines) == LINES_MAX + 1
    assert "There is more" in lines[-1].value


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, DEPTH_MAX + 2, DEPTH_MAX + 20])
def test_a_report_without_bottom_says_that_there_is_more(levels: int) -> None:
    content = item("TEXT", "Finding", TextValue="Mass")
    for _ in range(levels):
        content = item("CONTAINER", "Section", ContentSequence=[content])
    *_, above, last = read_report(document(content).to_json_dict())
    assert above.is_heading
    assert last.value == "There is more. The JSON has all of it."


def test_a_report_that_just_fits_is_whole() -> None:
    content = item("TEXT", "Finding", TextValue="Mass")
    for _ in range(DEPTH_MAX):
        content = item("CONTAINER", "Section", ContentSequence=[content])
    assert read_report(document(content).to_json_dict())[-1].value == "Mass"


@pytest.mark.parametrize(
    ("value_type", "key"),
    [
        ("TEXT", "0040A160"),
        ("NUM", "0040A300"),
        ("PNAME", "0040A123"),
        ("SCOORD", "00700022"),
        ("IMAGE", "00081199"),
    ],
)
def test_a_value_that_the_json_does_not_spell_out_is_not_called_empty(
    value_type: str, key: str
) -> None:
    far = {key: {"vr": "UN", "BulkDataURI": "x"}, **of_type(value_type)}
    near = {key: {"vr": "UN", "InlineBinary": "AAAA"}, **of_type(value_type)}
    deep = {"0040A730": {"vr": "UN", "BulkDataURI": "x"}, **of_type("CONTAINER")}
    said = read_report({"0040A730": {"vr": "SQ", "Value": [far, near, deep]}})
    assert [line.value for line in said] == [
        "(kept apart; the JSON has its address)",
        "(kept as bytes; the JSON has them)",
        "",
        "(kept apart; the JSON has its address)",
    ]


def test_what_is_no_report_has_no_lines() -> None:
    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    assert read_report(data.to_json_dict()) == ()


@pytest.mark.parametrize(
    ("wrong", "lines"),
    [
        ({"0040A043": {"vr": "LO", "Value": ["Name"]}}, [("", "Two")]),
        ({"0040A168": {"vr": "LO", "Value": ["Left"]}, **of_type("CODE")}, [("", "")]),
        ({"0040A300": {"vr": "DS", "Value": [1]}, **of_type("NUM")}, [("", "no value")]),
        ({"0040A123": {"vr": "PN", "Value": [None]}, **of_type("PNAME")}, [("", "")]),
        ({"0040A123": {"vr": "LO", "Value": ["Roe"]}, **of_type("PNAME")}, [("", "Roe")]),
        ({"00081199": {"vr": "LO", "Value": ["1.2.9"]}}, [("", "Two")]),
        ({"00081199": {"vr": "LO", "Value": ["1.2.9"]}, **of_type("IMAGE")}, [("", "no object")]),
        ({"0040A730": {"vr": "LO", "Value": ["b"]}}, [("", "Two")]),
        ({"0040A160": {"vr": "PN", "Value": [{"Alphabetic": "Roe"}]}}, [("", "")]),
    ],
)
def test_attributes_of_another_vr_are_no_fault(
    wrong: dict[str, Any], lines: list[tuple[str, str]]
) -> None:
    said = {**of_type("TEXT"), "0040A160": {"vr": "UT", "Value": ["Two"]}, **wrong}
    data = {**wrong, "0040A730": {"vr": "SQ", "Value": [said]}}
    assert [(line.name, line.value) for line in read_report(data)] == lines
    assert title_of(data) == ""
    assert read_report(wrong) == ()


@pytest.mark.parametrize("name", ["reportsi.dcm", "test-SR.dcm"])
def test_reports_of_others_are_read(name: str) -> None:
    data = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    lines = read_report(data.to_json_dict())
    assert len(lines) > 3
    assert all(line.value or line.is_heading for line in lines)
