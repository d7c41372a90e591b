"""C-FIND as independent workstations ask it: levels, matching, character sets, cancel and cap."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pydicom
import pytest
from pydicom import Dataset, FileDataset, Sequence
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from tests.support.product import Product
from tests.support.samples import part10, small
from tests.support.scu import associated, extended, find, keys, store, store_bytes

pytestmark = pytest.mark.journey

PATIENT_ROOT = PatientRootQueryRetrieveInformationModelFind
STUDY_ROOT = StudyRootQueryRetrieveInformationModelFind

NAMES = {
    # Patient's Name, and the Specific Character Set of the device that wrote it.
    1: ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
    2: ("Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
    3: ("Διονυσίου^Ελένη", "ISO_IR 126"),
    4: ("Müller^Jürgen^^Dr.", "ISO_IR 100"),
    5: ("Wang^XiaoDong=王^小东", "GB18030"),
    6: ("Smith^John", ""),
}
MANY = 20
"""Number of the study with hundreds of instances."""
INSTANCES = 400
CAP = 300


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    running = Product(
        tmp_path_factory.mktemp("query") / "archive",
        {"PACSTEWARD_QUERY__MAX_MATCHES": str(CAP)},
    ).start()
    others = [*_moments(), *_peculiar()]
    for data in others:
        data.PatientName = "Nobody"
    statuses = store(running, [*_people(), *others])
    assert [status.Status for status in statuses] == [0] * len(statuses)
    assert {status for status, _ in store_bytes(running, _many())} == {0}
    with running.client() as api:
        for name, fields in (("LENIENT", {"is_lenient_in_levels": True}), ("STRICT", {})):
            answer = api.post(
                "/api/v1/peers",
                json={"ae_title": name, "host": "127.0.0.1", "port": 104, **fields},
            )
            assert answer.status_code < 300, answer.text
    yield running
    running.stop()


def _people() -> Iterator[FileDataset]:
    for number, (name, character_set) in NAMES.items():
        yield small(
            number, PatientName=name, SpecificCharacterSet=character_set, PatientID=f"P{number}"
        )


def _moments() -> Iterator[FileDataset]:
    """Three studies on three days: morning, noon, afternoon."""
    for day, moment in enumerate(("090000", "120000", "150000"), start=1):
        yield small(9 + day, StudyDate=f"2024010{day}", StudyTime=moment, PatientID=f"T{day}")


def _peculiar() -> Iterator[FileDataset]:
    for number, patient_id in ((13, "1234"), (14, "_234"), (15, "%234")):
        yield small(number, PatientID=patient_id)
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "STEP7", "REQ7"
    request.RequestedProcedureDescription = "Kopf nativ"
    data = small(16, 1, 1, RequestAttributesSequence=Sequence([request]), PatientID="P16")
    _add_private(data)
    yield data
    yield small(16, 2, 1, Modality="OT", PatientID="P16")
    yield small(16, 2, 2, Modality="OT", PatientID="P16")
    yield small(17, 1, 1, PatientID="P16")


def _add_private(data: Dataset) -> None:
    block = data.private_block(0x0009, "ACME 1.1", create=True)
    block.add_new(0x01, "LO", "Grüße")
    block.add_new(0x02, "OB", b"\x01\x02\x03\x04")
    block.add_new(0x03, "US", [7, 8])
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "T-1", "Schädel"
    block.add_new(0x04, "SQ", [item])


def _many() -> Iterator[tuple[str, bytes]]:
    """Give one object under hundreds of UIDs of one length."""
    data = small(MANY, 1, 1000, PatientID="MANY", PatientName="Nobody", InstanceNumber="1000")
    (uid, number) = str(data.SOPInstanceUID).encode(), b"1000"
    encoded = part10(data)
    start = pydicom.dcmread(BytesIO(encoded), stop_before_pixels=True).file_meta
    offset = 132 + 12 + start.FileMetaInformationGroupLength
    body = encoded[offset:]
    assert body.count(uid) == 1
    for index in range(1000, 1000 + INSTANCES):
        own = uid[: -len(number)] + str(index).encode()
        yield own.decode(), body.replace(uid, own)


def _uids(found: list[Dataset]) -> list[int]:
    """Return the numbers of the studies, from their UIDs."""
    return sorted(int(one.StudyInstanceUID.rsplit(".", 1)[1]) for one in found)


def test_c73_matches_are_ff00_and_the_final_answer_has_no_identifier(product: Product) -> None:
    found, final = find(product, keys("STUDY", PatientID="P*", StudyInstanceUID=""))
    assert _uids(found) == [1, 2, 3, 4, 5, 6, 16, 17]
    assert {one.came_with for one in found} == {0xFF00}
    assert final.Status == 0x0000
    for one in found:
        assert one.QueryRetrieveLevel == "STUDY"
        assert one.RetrieveAETitle == "PACSTEWARD"


def test_c73_a_key_that_cannot_restrict_is_said_by_ff01(product: Product) -> None:
    wanted = keys(
        "STUDY", PatientID="P4", StudyInstanceUID="", AcquisitionDeviceProcessingCode="unheard"
    )
    found, final = find(product, wanted)
    assert _uids(found) == [4]
    assert found[0].came_with == 0xFF01
    assert final.Status == 0x0000


def test_c74_cancel_ends_a_query_with_fe00_before_its_end(product: Product) -> None:
    # ContentTime and KVP are read from each object, so that the question takes a while.
    wanted = keys("IMAGE", StudyInstanceUID=f"2.25.99.{MANY}", SeriesInstanceUID="",
                  SOPInstanceUID="", KVP="", RescaleSlope="")  # fmt: skip
    wanted.SeriesInstanceUID = f"2.25.99.{MANY}.1"
    statuses = []
    with associated(product, [(STUDY_ROOT, ["1.2.840.10008.1.2"])]) as association:
        for status, _answer in association.send_c_find(wanted, STUDY_ROOT, msg_id=3):
            if not statuses:
                association.send_c_cancel(3, query_model=STUDY_ROOT)
            statuses.append(status.Status)
        assert association.is_established
    assert statuses[-1] == 0xFE00
    assert len(statuses) < CAP


def test_c75_a_query_over_the_cap_gives_that_many_and_ends_with_a700(product: Product) -> None:
    series = {"StudyInstanceUID": f"2.25.99.{MANY}", "SeriesInstanceUID": f"2.25.99.{MANY}.1"}
    found, final = find(product, keys("IMAGE", **series, SOPInstanceUID=""))
    assert len({one.SOPInstanceUID for one in found}) == CAP
    assert final.Status == 0xA700
    assert str(CAP) in final.ErrorComment


def test_c75_exactly_as_many_as_the_cap_is_a_success(product: Product) -> None:
    uids = [f"2.25.99.{MANY}.1.{index}" for index in range(1000, 1000 + CAP)]
    series = {"StudyInstanceUID": f"2.25.99.{MANY}", "SeriesInstanceUID": f"2.25.99.{MANY}.1"}
    found, final = find(product, keys("IMAGE", **series, SOPInstanceUID=uids))
    assert (len(found), final.Status) == (CAP, 0x0000)


@pytest.mark.parametrize("level", ["", "STUDIES", "PATIENT"])
def test_c76_no_level_of_the_model_is_answered_a900(product: Product, level: str) -> None:
    found, final = find(product, keys(level, PatientID="P1"))
    assert (found, final.Status) == ([], 0xA900)
    assert final.ErrorComment


def test_c77_relational_queries_need_negotiation_or_a_lenient_peer(product: Product) -> None:
    wanted = keys("IMAGE", SOPInstanceUID="2.25.99.4.1.1", StudyInstanceUID="")
    _, refused = find(product, wanted)
    assert refused.Status == 0xA900
    found, final = find(product, wanted, information=b"\1")
    assert (_uids(found), final.Status) == ([4], 0)
    assert find(product, wanted, calling="STRICT")[1].Status == 0xA900
    found, final = find(product, wanted, calling="LENIENT")
    assert (_uids(found), final.Status) == ([4], 0)


@pytest.mark.parametrize(
    ("proposed", "answered"),
    [(b"\1\1\1\1\1", b"\1\1\1\0\0"), (b"\1", b"\1"), (b"\0\1\0", b"\0\1\0"), (b"\0", b"\0")],
)
def test_c78_extended_negotiation_is_answered_truthfully(
    product: Product, proposed: bytes, answered: bytes
) -> None:
    contexts = [(STUDY_ROOT, ["1.2.840.10008.1.2"])]
    with associated(product, contexts, negotiation=[extended(STUDY_ROOT, proposed)]) as association:
        assert association.acceptor.sop_class_extended == {STUDY_ROOT: answered}


def test_c79_computed_keys_say_what_is_stored(product: Product) -> None:
    study = keys(
        "STUDY", StudyInstanceUID="2.25.99.16", ModalitiesInStudy="", SOPClassesInStudy="",
        NumberOfStudyRelatedSeries="", NumberOfStudyRelatedInstances="",
    )  # fmt: skip
    ((answer,), _) = find(product, study)
    assert sorted(answer.ModalitiesInStudy) == ["CT", "OT"]
    assert answer.SOPClassesInStudy == "1.2.840.10008.5.1.4.1.1.2"
    assert (answer.NumberOfStudyRelatedSeries, answer.NumberOfStudyRelatedInstances) == (2, 3)

    patient = keys(
        "PATIENT", PatientID="P16", NumberOfPatientRelatedStudies="",
        NumberOfPatientRelatedSeries="", NumberOfPatientRelatedInstances="",
    )  # fmt: skip
    ((answer,), _) = find(product, patient, model=PATIENT_ROOT)
    assert answer.NumberOfPatientRelatedStudies == 2
    assert answer.NumberOfPatientRelatedSeries == 3
    assert answer.NumberOfPatientRelatedInstances == 4

    series = keys("SERIES", StudyInstanceUID="2.25.99.16", SeriesInstanceUID="", Modality="OT",
                  NumberOfSeriesRelatedInstances="")  # fmt: skip
    ((answer,), _) = find(product, series)
    assert answer.NumberOfSeriesRelatedInstances == 2


def test_c79_modalities_in_study_restricts(product: Product) -> None:
    found, final = find(product, keys("STUDY", ModalitiesInStudy="OT", StudyInstanceUID=""))
    assert _uids(found) == [16]
    assert (found[0].came_with, final.Status) == (0xFF00, 0)


def _private_question(value: str = "", creator: str = "ACME 1.1") -> Dataset:
    wanted = keys("IMAGE", StudyInstanceUID="2.25.99.16", SeriesInstanceUID="2.25.99.16.1",
                  SOPInstanceUID="")  # fmt: skip
    block = wanted.private_block(0x0009, creator, create=True)
    block.add_new(0x01, "LO", value)
    block.add_new(0x02, "OB", b"")
    block.add_new(0x03, "US", None)
    block.add_new(0x04, "SQ", [])
    return wanted


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_f009_private_attributes_come_back_with_their_values(product: Product, syntax: str) -> None:
    ((answer,), final) = find(product, _private_question(), syntax=syntax)
    assert final.Status == 0
    block = answer.private_block(0x0009, "ACME 1.1")
    if syntax.endswith(".1"):  # Explicit: the answer itself says what they are
        assert block[0x01].value == "Grüße"
        assert block[0x02].value == b"\x01\x02\x03\x04"
        assert block[0x03].value == [7, 8]
        assert block[0x04].value[0].CodeMeaning == "Schädel"
    else:
        assert block[0x02].value == b"\x01\x02\x03\x04"
        assert block[0x03].value == b"\x07\0\x08\0"


def test_c79_private_keys_do_not_filter(product: Product) -> None:
    found, final = find(product, _private_question("something else"))
    assert (len(found), final.Status) == (1, 0)
    assert found[0].came_with == 0xFF01, "it did not restrict, and that is said"


def test_f009_what_another_maker_put_into_the_same_block_is_not_given(product: Product) -> None:
    ((answer,), _) = find(
        product, _private_question(creator="OTHER 2.0"), syntax="1.2.840.10008.1.2.1"
    )
    assert answer[0x00090010].value == "OTHER 2.0"
    assert not answer[0x00091001].value
    assert not answer[0x00091003].value


def test_f009_sequences_come_back_with_the_items_that_were_asked_for(product: Product) -> None:
    wanted = keys("SERIES", StudyInstanceUID="2.25.99.16", SeriesInstanceUID="")
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureDescription = "STEP7", ""
    wanted.RequestAttributesSequence = [item]
    ((answer,), _) = find(product, wanted)
    assert answer.SeriesInstanceUID == "2.25.99.16.1"
    (request,) = answer.RequestAttributesSequence
    assert request.ScheduledProcedureStepID == "STEP7"
    assert request.RequestedProcedureDescription == "Kopf nativ"
    assert "RequestedProcedureID" not in request
    item.ScheduledProcedureStepID = "STEP8"
    assert find(product, wanted)[0] == []


def test_c80_a_list_of_1500_uids_is_taken(product: Product) -> None:
    strangers = [f"2.25.77.{index}" for index in range(1494)]
    wanted = keys("STUDY", StudyInstanceUID=[*strangers, *(f"2.25.99.{n}" for n in NAMES)])
    found, final = find(product, wanted)
    assert (_uids(found), final.Status) == (sorted(NAMES), 0)


@pytest.mark.parametrize(("typed", "expected"), [("1234", 13), ("_234", 14), ("%234", 15)])
def test_c81_percent_and_underscore_are_letters(
    product: Product, typed: str, expected: int
) -> None:
    found, _ = find(product, keys("STUDY", PatientID=typed, StudyInstanceUID=""))
    assert _uids(found) == [expected]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("?234", [13, 14, 15]), ("_2*", [14]), ("%*", [15]), ("12?4", [13]), ("2.25", [])],
)
def test_wild_cards_are_those_of_dicom(product: Product, typed: str, expected: list[int]) -> None:
    found, _ = find(product, keys("STUDY", PatientID=typed, StudyInstanceUID=""))
    assert _uids(found) == expected


@pytest.mark.parametrize(
    "asked_in",
    ["", "ISO_IR 100", "ISO_IR 192", ["", "ISO 2022 IR 87"], ["", "ISO 2022 IR 149"], "GB18030"],
    ids=str,
)
def test_c82_every_name_is_readable_whatever_the_asker_speaks(
    product: Product, asked_in: str | list[str]
) -> None:
    wanted = keys("STUDY", PatientID="P?", PatientName="", StudyInstanceUID="")
    if asked_in:
        wanted.SpecificCharacterSet = asked_in
    found, _ = find(product, wanted)
    names = {int(one.PatientID[1:]): str(one.PatientName) for one in found}
    assert names == {number: name for number, (name, _) in NAMES.items()}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_c82_the_answer_is_in_the_askers_character_set_where_that_can_carry_it(
    product: Product, number: int
) -> None:
    name, character_set = NAMES[number]
    wanted = keys("STUDY", PatientName=name, PatientID="", StudyInstanceUID="")
    wanted.SpecificCharacterSet = character_set
    ((answer,), _) = find(product, wanted)
    assert str(answer.PatientName) == name
    asked = [character_set] if isinstance(character_set, str) else character_set
    said = answer.SpecificCharacterSet
    assert ([said] if isinstance(said, str) else list(said)) == asked


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("muller^jurgen*", 4),
        ("MÜLLER*", 4),
        ("Mü?ler^*", 4),
        ("山田^太郎", 1),
        ("やまだ*", 1),
        ("yamada^tarou", 1),
        ("홍^길동", 2),
        ("ΔΙΟΝΥΣΙΟΥ*", 3),
        ("smith^JOHN", 6),
    ],
)
def test_names_match_without_regard_to_case_and_accents_in_any_group(
    product: Product, typed: str, number: int
) -> None:
    wanted = keys("STUDY", PatientName=typed, StudyInstanceUID="")
    wanted.SpecificCharacterSet = "ISO_IR 192"
    assert _uids(find(product, wanted)[0]) == [number]


@pytest.mark.parametrize("typed", ["Smyth^John", "John Smith"])
def test_f010_names_match_by_likeness_when_that_was_negotiated(
    product: Product, typed: str
) -> None:
    wanted = keys("STUDY", PatientName=typed, StudyInstanceUID="")
    assert find(product, wanted)[0] == []
    assert find(product, wanted, information=b"\0\0\0")[0] == []
    assert _uids(find(product, wanted, information=b"\0\0\1")[0]) == [6]


def test_f011_date_and_time_are_one_moment_when_that_was_negotiated(product: Product) -> None:
    wanted = keys("STUDY", PatientID="T*", StudyDate="20240101-20240103", StudyTime="1000-1300",
                  StudyInstanceUID="")  # fmt: skip
    # Each by itself: between ten and one on any of the days.
    assert _uids(find(product, wanted)[0]) == [11]
    # Together: from the first at ten to the third at one.
    assert _uids(find(product, wanted, information=b"\0\1")[0]) == [11]
    wanted.StudyTime = "0830-1000"
    assert _uids(find(product, wanted)[0]) == [10]
    assert _uids(find(product, wanted, information=b"\0\1")[0]) == [10, 11]


@pytest.mark.parametrize(
    ("date", "expected"),
    [("20240102", [11]), ("20240102-", [11, 12]), ("-20240102", [10, 11]), ("20240104-", [])],
)
def test_date_ranges_are_open_at_either_end(
    product: Product, date: str, expected: list[int]
) -> None:
    found, _ = find(product, keys("STUDY", PatientID="T*", StudyDate=date, StudyInstanceUID=""))
    assert _uids(found) == expected


def test_what_is_not_asked_for_is_not_given_and_what_is_not_known_is_empty(
    product: Product,
) -> None:
    wanted = keys("STUDY", StudyInstanceUID="2.25.99.6", PatientName="", OtherPatientNames="")
    ((answer,), _) = find(product, wanted)
    assert {element.keyword for element in answer} - {"SpecificCharacterSet"} == {
        "QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability", "PatientName",
        "OtherPatientNames", "StudyInstanceUID",
    }  # fmt: skip
    assert not answer.OtherPatientNames


def test_a_value_that_cannot_be_meant_is_answered_a900(product: Product) -> None:
    found, final = find(product, keys("STUDY", StudyDate="20240103-20240101", StudyInstanceUID=""))
    assert (found, final.Status) == ([], 0xA900)
    assert final.ErrorComment
