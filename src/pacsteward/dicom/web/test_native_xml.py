"""The XML form says what the JSON form says."""

from __future__ import annotations

from xml.etree import ElementTree

from pacsteward.dicom.web.native_xml import to_xml

NAMESPACE = {"n": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}


def parsed(model: dict) -> ElementTree.Element:
    return ElementTree.fromstring(to_xml(model))


def test_values_names_and_sequences_keep_their_order() -> None:
    root = parsed(
        {
            "00100010": {
                "vr": "PN",
                "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}],
            },
            "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
            "00400275": {
                "vr": "SQ",
                "Value": [{"00400009": {"vr": "SH", "Value": ["S<1> & co"]}}, {}],
            },
            "00080050": {"vr": "SH"},
        }
    )
    assert [one.get("tag") for one in root] == ["00080050", "00080061", "00100010", "00400275"]
    assert [
        one.text for one in root.findall("n:DicomAttribute[@tag='00080061']/n:Value", NAMESPACE)
    ] == ["CT", "SR"]
    assert root.find(".//n:Ideographic/n:FamilyName", NAMESPACE).text == "山田"  # type: ignore[union-attr]
    assert root.find(".//n:Item[@number='1']//n:Value", NAMESPACE).text == "S<1> & co"  # type: ignore[union-attr]
    assert root.find("n:DicomAttribute[@tag='00100010']", NAMESPACE).get("keyword") == "PatientName"  # type: ignore[union-attr]


def test_bulk_data_and_binary_values_are_named() -> None:
    root = parsed(
        {
            "7FE00010": {"vr": "OW", "BulkDataURI": "https://x/?a=1&b='\""},
            "00091001": {"vr": "UN", "InlineBinary": "AAE="},
        }
    )
    assert root.find(".//n:BulkData", NAMESPACE).get("uri") == "https://x/?a=1&b='\""  # type: ignore[union-attr]
    assert root.find(".//n:InlineBinary", NAMESPACE).text == "AAE="  # type: ignore[union-attr]


def test_private_attributes_name_who_made_them() -> None:
    inner = {"00090010": {"vr": "LO", "Value": ["INNER"]}, "00091001": {"vr": "LO"}}
    root = parsed(
        {
            "00090010": {"vr": "LO", "Value": ["A & B"]},
            "00091001": {"vr": "LO", "Value": ["x"]},
            "00091101": {"vr": "LO", "Value": ["nobody's"]},
            "000910FF": {"vr": "SQ", "Value": [inner]},
        }
    )
    told = [(one.get("tag"), one.get("privateCreator")) for one in root]
    assert told == [
        ("00090010", None),
        ("00091001", "A & B"),
        ("000910FF", "A & B"),
        ("00091101", None),
    ]
    (inside,) = root.findall(".//n:Item/n:DicomAttribute[@tag='00091001']", NAMESPACE)
    assert inside.get("privateCreator") == "INNER"


def test_characters_that_xml_lacks_are_left_out() -> None:
    root = parsed({"00104000": {"vr": "LT", "Value": ["a\x1b[31m\x00b\tc"]}})
    assert root.find(".//n:Value", NAMESPACE).text == "a[31mb\tc"  # type: ignore[union-attr]
