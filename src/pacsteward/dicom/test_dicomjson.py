"""Promises of dicomjson.py and dicomjson_reader.py."""

from __future__ import annotations

import base64
import json
import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pydicom.filebase
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.dicomjson import Path as JsonPath
from pacsteward.dicom.dicomjson import bulk_data, dumps, from_json, to_json, value


def no_uri(_path: JsonPath) -> str | None:
    return None


def some_uri(path: JsonPath) -> str | None:
    return "bulk/" + "/".join(f"{step:x}" for step in path)


def reread(data_set: Dataset, *, implicit: bool = False, little: bool = True) -> Dataset:
    """As if it came from a file: nothing is parsed yet."""
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = implicit, little
    write_dataset(file, data_set)
    return read_dataset(pydicom.filebase.DicomBytesIO(file.getvalue()), implicit, little)


# --- one text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "text", "attribute"),
    [
        (0x00080060, "CT", {"vr": "CS", "Value": ["CT"]}),
        (0x00080061, "CT\\PR", {"vr": "CS", "Value": ["CT", "PR"]}),
        (0x00080005, "", {"vr": "CS"}),
        (0x00201208, "12", {"vr": "IS", "Value": [12]}),
        (0x00280010, "512", {"vr": "US", "Value": [512]}),
        (0x00101020, "1.82", {"vr": "DS", "Value": [1.82]}),
        (0x00280030, "0.143\\0.143", {"vr": "DS", "Value": [0.143, 0.143]}),
        (0x00080008, "ORIGINAL\\\\AXIAL", {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]}),
        (0x00104000, "a\\b", {"vr": "LT", "Value": ["a\\b"]}),
        (0x00280009, "0018106A", {"vr": "AT", "Value": ["0018106A"]}),
    ],
)
def test_an_indexed_text_becomes_an_attribute(tag: int, text: str, attribute: object) -> None:
    assert value(tag, text) == attribute


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("Doe^John^^", {"Alphabetic": "Doe^John"}),
        (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
        ),
        ("=山田^太郎", {"Ideographic": "山田^太郎"}),
    ],
)
def test_c23_names_are_objects_with_their_groups(text: str, groups: dict[str, str]) -> None:
    assert value(0x00100010, text) == {"vr": "PN", "Value": [groups]}


def test_c23_a_name_of_delimiters_alone_is_empty() -> None:
    assert value(0x00080090, "^^^^") == {"vr": "PN"}
    assert to_json(reread(dataset(PatientName="^^=^")), bulk_data_uri=no_uri) == {
        "00100010": {"vr": "PN"}
    }
    # Among several, its place counts.
    assert value(0x00081048, "^\\Roe^Jane")["Value"] == [None, {"Alphabetic": "Roe^Jane"}]


def test_c23_an_empty_attribute_has_no_value() -> None:
    assert value(0x00100010, "") == {"vr": "PN"}
    assert to_json(reread(dataset(PatientName="", PatientID="")), bulk_data_uri=no_uri) == {
        "00100010": {"vr": "PN"},
        "00100020": {"vr": "LO"},
    }


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.143", 0.143), ("1.50", 1.5), ("-1024", -1024), ("007", 7), ("+5", 5), ("1e-5", 1e-05),
        (".5", 0.5), ("3.", 3.0), ("12345678901234.5", 12345678901234.5),
        ("0.1234567890123456", "0.1234567890123456"), ("12345678901234567", "12345678901234567"),
        ("1,5", "1,5"), ("NaN", "NaN"), ("1.2.3", "1.2.3"), ("٣", "٣"), ("1e999", "1e999"),
    ],
)  # fmt: skip
def test_c24_a_decimal_is_exact_or_stays_text(text: str, number: object) -> None:
    [converted] = value(0x00281053, text)["Value"]
    assert converted == number
    assert type(converted) is type(number)


@settings(deadline=None, derandomize=True)
@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=5, min_value=-(10**6), max_value=10**6
    )
)
def test_c24_no_decimal_changes_on_its_way(decimal: Any) -> None:
    [converted] = value(0x00281053, str(decimal))["Value"]
    assert type(decimal)(json.loads(json.dumps(str(converted)))) == decimal


# --- data sets ----------------------------------------------------------------------------------


def dataset(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, content in attributes.items():
        setattr(made, keyword, content)
    return made


def rich() -> Dataset:
    empty, code = Dataset(), dataset(CodeValue="T-D1100", CodeMeaning="Kopf")
    made = dataset(
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jürgen",
        WindowCenter=["40", "0.143"],
        Rows=512,
        FrameIncrementPointer=0x00181063,
        DiffusionBValue=math.inf,
        SmallestImagePixelValue=-3,
        AnatomicRegionSequence=Sequence([code, empty]),
        ReferencedImageSequence=Sequence([]),
        PixelRepresentation=1,
        StudyDate="20240229",
        ImageComments="two\\words",
    )
    made["SmallestImagePixelValue"].VR = "SS"
    made.add_new(0x00290010, "LO", "ACME 1.0")
    made.add_new(0x00291001, "DS", "1.5")
    made.add_new(0x00291002, "UN", b"\0\1\2\3")
    made.add_new(0x00291003, "OB", b"x" * 5000)
    made.add_new(0x7FE00010, "OW", b"\1\2" * 100)
    return made


EXPECTED = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00080020": {"vr": "DA", "Value": ["20240229"]},
    "00081140": {"vr": "SQ"},
    "00082218": {
        "vr": "SQ",
        "Value": [
            {
                "00080100": {"vr": "SH", "Value": ["T-D1100"]},
                "00080104": {"vr": "LO", "Value": ["Kopf"]},
            },
            {},
        ],
    },
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jürgen"}]},
    "00189087": {"vr": "FD", "Value": ["Infinity"]},
    "00204000": {"vr": "LT", "Value": ["two\\words"]},
    "00280009": {"vr": "AT", "Value": ["00181063"]},
    "00280010": {"vr": "US", "Value": [512]},
    "00280103": {"vr": "US", "Value": [1]},
    "00280106": {"vr": "SS", "Value": [-3]},
    "00281050": {"vr": "DS", "Value": [40, 0.143]},
    "00290010": {"vr": "LO", "Value": ["ACME 1.0"]},
    "00291001": {"vr": "DS", "Value": [1.5]},
    "00291002": {"vr": "UN", "InlineBinary": "AAECAw=="},
    "00291003": {"vr": "OB", "BulkDataURI": "bulk/291003"},
    "7FE00010": {"vr": "OW", "BulkDataURI": "bulk/7fe00010"},
}  # fmt: skip


@pytest.mark.parametrize(
    "made", [rich, lambda: reread(rich()), lambda: reread(rich(), little=False)]
)
def test_a_data_set_becomes_the_model_of_annex_f(made: Any) -> None:
    model = to_json(made(), bulk_data_uri=some_uri)
    assert model == EXPECTED
    assert list(model) == sorted(model)
    assert json.loads(dumps(model)) == model


def test_c28_json_is_unicode_whatever_was_stored() -> None:
    made = dataset(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada=山田")
    model = to_json(reread(made), bulk_data_uri=no_uri)
    assert model["00100010"]["Value"] == [{"Alphabetic": "Yamada", "Ideographic": "山田"}]
    assert "山田".encode() in dumps(model)


def test_an_item_with_its_own_character_set_is_read_by_it() -> None:
    item = dataset(SpecificCharacterSet="ISO_IR 144", PatientName="Люк")
    made = dataset(
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Jérôme",
        ReferencedPatientSequence=Sequence([item]),
    )
    model = to_json(reread(made), bulk_data_uri=no_uri)
    assert model["00100010"]["Value"] == [{"Alphabetic": "Jérôme"}]
    assert model["00081120"]["Value"][0]["00100010"]["Value"] == [{"Alphabetic": "Люк"}]


def test_c32_sequence_items_are_never_null() -> None:
    made = dataset(ReferencedImageSequence=Sequence([Dataset(), Dataset()]))
    assert to_json(reread(made), bulk_data_uri=no_uri) == {
        "00081140": {"vr": "SQ", "Value": [{}, {}]}
    }


@pytest.mark.parametrize("implicit", [False, True])
def test_c35_pixel_data_are_never_inline(implicit: bool) -> None:
    made = dataset(PixelRepresentation=0, BitsAllocated=16)
    made.add_new(0x7FE00010, "OW", b"ab")
    made = reread(made, implicit=implicit)
    assert "7FE00010" not in to_json(made, bulk_data_uri=no_uri)
    assert to_json(made, bulk_data_uri=some_uri)["7FE00010"] == {
        "vr": "OW",
        "BulkDataURI": "bulk/7fe00010",
    }


def test_c36_large_values_are_bulk_data_at_any_depth() -> None:
    item = Dataset()
    item.add_new(0x00283006, "OW", b"ab" * 600)
    made = dataset(ModalityLUTSequence=Sequence([Dataset(), item]))
    model = to_json(reread(made), bulk_data_uri=some_uri)
    assert model["00283000"]["Value"][1]["00283006"]["BulkDataURI"] == "bulk/283000/1/283006"
    model = to_json(reread(made), bulk_data_uri=some_uri, inline_limit_bytes=5000)
    assert (
        base64.b64decode(model["00283000"]["Value"][1]["00283006"]["InlineBinary"]) == b"ab" * 600
    )


def test_words_of_a_big_endian_object_are_little_endian_in_json() -> None:
    made = Dataset()
    made.add_new(0x00291010, "OW", b"\1\2\3\4")
    made.add_new(0x00291011, "OL", b"\1\2\3\4")
    model = to_json(reread(made, little=False), bulk_data_uri=no_uri)
    assert base64.b64decode(model["00291010"]["InlineBinary"]) == b"\2\1\4\3"
    assert base64.b64decode(model["00291011"]["InlineBinary"]) == b"\4\3\2\1"
    parsed = reread(made, little=False)
    assert all(element.value for element in parsed)
    assert to_json(parsed, bulk_data_uri=no_uri) == model


def test_c39_a_private_creator_is_text_also_where_it_was_called_unknown() -> None:
    """A conversion that knows no vendors writes UN; the creator of a block is LO all the same."""
    data = Dataset()
    data.add_new(0x00090010, "UN", b"ACME ")
    data.add_new(0x00091001, "UN", b"ACME")
    model = to_json(reread(data), bulk_data_uri=no_uri)
    assert model["00090010"] == {"vr": "LO", "Value": ["ACME"]}
    assert model["00091001"] == {"vr": "UN", "InlineBinary": "QUNNRQ=="}


def test_c39_private_attributes_survive_both_ways_with_their_representation() -> None:
    made = from_json(to_json(reread(rich()), bulk_data_uri=no_uri, inline_limit_bytes=10**6))
    assert made[0x00290010].value == "ACME 1.0"
    assert (made[0x00291001].VR, made[0x00291001].value) == ("DS", 1.5)
    assert (made[0x00291002].VR, made[0x00291002].value) == ("UN", b"\0\1\2\3")
    assert (made[0x00291003].VR, made[0x00291003].value) == ("OB", b"x" * 5000)


def test_a_value_that_broke_its_representation_does_not_vanish() -> None:
    data = b"\x28\x00\x10\x00US\x03\x00\x01\x02\x03" + b"\x28\x00\x11\x00US\x02\x00\x00\x02"
    made = read_dataset(pydicom.filebase.DicomBytesIO(data), False, True)
    model = to_json(made, bulk_data_uri=no_uri)
    assert model["00280011"] == {"vr": "US", "Value": [512]}
    assert base64.b64decode(model["00280010"]["InlineBinary"]) == b"\1\2\3"


def test_floats_that_json_lacks_survive_both_ways() -> None:
    made = Dataset()
    made.add_new(0x00189087, "FD", [math.nan, math.inf, -math.inf, 0.5])
    model = to_json(reread(made), bulk_data_uri=no_uri)
    assert model["00189087"]["Value"] == ["NaN", "Infinity", "-Infinity", 0.5]
    back = from_json(json.loads(dumps(model))).DiffusionBValue
    assert math.isnan(back[0])
    assert list(back[1:]) == [math.inf, -math.inf, 0.5]


def test_group_lengths_are_left_out() -> None:
    made = dataset(PatientID="1")
    made.add_new(0x00100000, "UL", 10)
    assert list(to_json(made, bulk_data_uri=no_uri)) == ["00100020"]
    assert to_json(made, bulk_data_uri=no_uri, skip=[0x00100020]) == {}


FILES = [
    "CT_small.dcm", "ExplVR_BigEnd.dcm", "JPEG2000.dcm", "MR_small.dcm", "UN_sequence.dcm",
    "examples_overlay.dcm", "liver_1frame.dcm", "priv_SQ.dcm", "reportsi.dcm", "rtdose.dcm",
    "rtplan.dcm", "waveform_ecg.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_real_objects_say_the_same_in_json_as_pydicom_says(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if not isinstance(path, str):
        pytest.skip(f"this pydicom has no {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = to_json(pydicom.dcmread(path), bulk_data_uri=no_uri, inline_limit_bytes=10**9)
        theirs = pydicom.dcmread(path)
        for tag in (0x7FE00010,):
            if tag in theirs:
                del theirs[tag]
        expected = theirs.to_json_dict(suppress_invalid_tags=True)
    expected = {key: attribute for key, attribute in expected.items() if not key.endswith("0000")}
    expected.pop("00080005", None)
    ours.pop("00080005", None)
    for key, attribute in expected.items():
        assert _plain(ours[key]) == _plain(attribute), key
    assert len(ours) >= len(expected)
    dumps(ours)


def _plain(attribute: Any) -> Any:
    """Forget how numbers are written and the trailing delimiters of names."""
    if isinstance(attribute, dict):
        return {
            key: _plain(one)
            for key, one in attribute.items()
            if one not in ([], [None], [""], "") and key not in ("00080005", "7FE00010")
        }
    if isinstance(attribute, list):
        return [_plain(one) for one in attribute]
    if isinstance(attribute, str):
        try:
            return float(attribute)
        except ValueError:
            return attribute.strip("^ \0=")
    if attribute is None:
        return ""
    return float(attribute) if isinstance(attribute, int) else attribute


# --- from JSON ----------------------------------------------------------------------------------


def test_a_data_set_survives_the_way_there_and_back() -> None:
    model = to_json(rich(), bulk_data_uri=no_uri, inline_limit_bytes=10**6)
    assert to_json(from_json(model), bulk_data_uri=no_uri, inline_limit_bytes=10**6) == model


def test_texts_of_a_client_are_declared_as_unicode() -> None:
    made = from_json({"00100010": {"vr": "PN", "Value": [{"Ideographic": "山田"}]}})
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert made.PatientName == "=山田"
    assert "SpecificCharacterSet" not in from_json({"00100020": {"vr": "LO", "Value": ["1"]}})


def test_what_clients_often_get_wrong_is_understood() -> None:
    made = from_json(
        {
            "PatientName": {"Value": ["Doe^John"]},
            "00081140": {"vr": "SQ", "Value": [None]},
            "00280030": {"vr": "DS", "Value": ["0.5", 0.123456789012345678]},
            "00200013": {"vr": "IS", "Value": [1.0]},
            "00280010": {"vr": "US", "Value": ["512"]},
            "00080060": {"vr": "CS", "Value": [None]},
            "00283006": {"vr": "OW", "InlineBinary": ["AAA="]},
        }
    )
    assert made.PatientName == "Doe^John"
    assert len(made.ReferencedImageSequence) == 1
    assert [str(one) for one in made.PixelSpacing] == ["0.5", "0.12345678901235"]
    assert made.InstanceNumber == 1
    assert made.Rows == 512
    assert made.LUTData == b"\0\0"


@pytest.mark.parametrize(
    "model",
    [
        None, [], "text", 1, {"nonsense": {"vr": "LO"}}, {"00100020": None},
        {"00100020": {"vr": "XX"}},
        {"00100020": {"vr": 5}}, {"00100020": {"vr": "LO", "Value": "1"}},
        {"00100020": {"vr": "LO", "Value": [{}]}}, {"00100020": {"vr": "LO", "Value": [["a"]]}},
        {"00280010": {"vr": "US", "Value": ["many"]}}, {"00280010": {"vr": "US", "Value": [True]}},
        {"00200013": {"vr": "IS", "Value": [1.5]}}, {"00280030": {"vr": "DS", "Value": [math.inf]}},
        {"00291010": {"vr": "OB", "InlineBinary": "%%%"}},
        {"00291010": {"vr": "OB", "InlineBinary": 1}},
        {"00081140": {"vr": "SQ", "Value": ["x"]}}, {"00100010": {"vr": "PN", "Value": [1]}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": 1}]}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "half a pair: \ud800"}]}},
    ],
)  # fmt: skip
def test_what_is_not_the_model_is_refused(model: object) -> None:
    with pytest.raises(Invalid):
        from_json(model)


@pytest.mark.parametrize("depth", [60, 70, 600])
def test_depth_is_bounded(depth: int) -> None:
    model: dict[str, Any] = {}
    for _ in range(depth):
        model = {"00081140": {"vr": "SQ", "Value": [model]}}
    if depth <= 64:
        assert len(from_json(model)) == 1
    else:
        with pytest.raises(Invalid, match="not a data set"):
            from_json(model)


def test_values_left_to_other_parts_are_listed() -> None:
    model = {
        "7FE00010": {"vr": "OW", "BulkDataURI": "a"},
        "00081140": {"vr": "SQ", "Value": [{}, {"00291010": {"vr": "OB", "BulkDataURI": "b"}}]},
    }
    assert from_json(model)[0x7FE00010].value in (b"", None)
    assert dict(bulk_data(model)) == {(0x7FE00010,): "a", (0x00081140, 1, 0x00291010): "b"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["00100010", "00081140", "00280010", "7FE00010", "vr", "Value", "PN", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None, derandomize=True)
@given(
    JSON, st.sampled_from(["PN", "SQ", "US", "DS", "IS", "OB", "AT", "FD", "LO", "DA", "TM", "UI"])
)
def test_any_json_is_read_or_refused(model: object, vr: str) -> None:
    for candidate in (model, {"00100010": {"vr": vr, "Value": [model]}}, {"00100010": model}):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = from_json(candidate)
        except PacstewardError:
            continue
        assert isinstance(made, Dataset)


def test_the_reader_of_a_file_gives_json_of_the_same_texts(tmp_path: Path) -> None:
    """A data set whose values were never looked at, and one whose were, give the same."""
    untouched = reread(rich())
    touched = reread(rich())
    for element in touched.iterall():
        assert element is not None
    assert to_json(untouched, bulk_data_uri=some_uri) == to_json(touched, bulk_data_uri=some_uri)
    assert BytesIO(dumps(EXPECTED)).read()
