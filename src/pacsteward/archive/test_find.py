"""Queries against the index: every kind of criterion, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pacsteward.archive import find
from pacsteward.archive.conditions import unsupported
from pacsteward.archive.find import Finder
from pacsteward.archive.likeness import NameBook
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, Invalid
from pacsteward.dicom.attributes import Level, tag_of, vr_of
from pacsteward.dicom.matching import (
    Criterion,
    Query,
    SequenceMatch,
    Single,
    matches,
    parse_criterion,
)

MODALITY = tag_of("Modality")
STUDY_UID = tag_of("StudyInstanceUID")
SERIES_UID = tag_of("SeriesInstanceUID")
SOP_UID = tag_of("SOPInstanceUID")

Ask = Callable[..., list[str]]


@pytest.fixture
def finder(database: Database) -> Finder:
    return Finder(database, NameBook(ManualClock().monotonic), timeout_s=5)


def criteria(keys: Mapping[str, str]) -> dict[int, Criterion]:
    return {
        tag_of(key): parse_criterion(tag_of(key), vr_of(tag_of(key)), text)
        for key, text in keys.items()
    }


def query(
    level: Level = Level.STUDY, *, keys: Mapping[str, str] | None = None, **more: Any
) -> Query:
    return Query(level, criteria(keys or {}), **more)


@pytest.fixture
def studies(finder: Finder) -> Ask:
    """Ask at study level for keys; get the last component of each Study Instance UID."""

    def ask(**keys: Any) -> list[str]:
        options = {name: keys.pop(name) for name in ("fuzzy", "combined_datetime") if name in keys}
        found = finder.find(query(keys=keys, **options))
        return sorted(one.values[STUDY_UID].rpartition(".")[2] for one in found)

    return ask


@pytest.fixture
def hospital(index: Any) -> None:
    """Some studies that differ in everything that is asked for below."""
    people = [
        ("1.2.1", "DOE^JOHN", "P1", "20240105", "101500", "A-1", "CT Abdomen", "CT"),
        ("1.2.2", "Doe^Jane", "P2", "20240106", "10", "A_2", "MR Schädel", "MR"),
        (
            "1.2.3",
            "Müller-Lüdenscheidt^Änne",
            "P3",
            "20231231",
            "235959.5",
            "A%3",
            "50% dose",
            "CT",
        ),
        (
            "1.2.4",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "P4",
            "20240105",
            "",
            r"A\4",
            "[chest]",
            "CR",
        ),
        ("1.2.5", "MEYER^HANS", "P5", "", "", "", "", "US"),
        ("1.2.6", "O'Neil^Pat", "p1", "20240105", "093000", "1234", "ct abdomen 2", "CT"),
    ]
    for number, (uid, name, patient, date, time, accession, description, modality) in enumerate(
        people
    ):
        key = index.study(
            uid,
            patient_name=name,
            patient_id=patient,
            study_date=date,
            study_time=time,
            accession_number=accession,
            study_description=description,
            modalities_in_study=f"\\{modality}\\SR\\",
            name_of_physicians_reading_study="Poe^Ed\\Worth^Eva",
            patient_weight="70.00",
            patient_comments="a\\b",
            sop_classes_in_study="\\1.2.840.10008.5.1.4.1.1.2\\",
            number_of_study_related_instances=number + 1,
        )
        for n, kind in enumerate((modality, "SR"), 1):
            series = index.series(
                f"{uid}.{n}",
                key,
                modality=kind,
                series_number=str(n),
                institution_name="St. Elsewhere",
                operators_name="Roe^Ann\\Poe^Ed",
                requested_procedure_id=f"RP{number}",
            )
            index.instance(
                f"{uid}.{n}.1",
                series,
                instance_number="1",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            )


pytestmark = pytest.mark.usefixtures("hospital")


CASES: list[tuple[dict[str, str], str]] = [
    ({"PatientName": "doe^john"}, "1"),
    ({"PatientName": "DOE*"}, "12"),
    ({"PatientName": "doe"}, ""),
    ({"PatientName": "D?E^J*"}, "12"),
    ({"PatientName": "*LUDEN*"}, "3"),
    ({"PatientName": "muller ludenscheidt^anne"}, "3"),
    ({"PatientName": "Yamada^Tarou"}, "4"),
    ({"PatientName": "yam*"}, "4"),
    ({"PatientName": "山田^太郎"}, "4"),
    ({"PatientName": "山*"}, "4"),
    ({"PatientName": "*太郎"}, "4"),
    ({"PatientName": "やまだ*"}, "4"),
    ({"PatientName": "Yamada^Tarou=山田^太郎"}, "4"),
    ({"PatientName": "=山田^太郎"}, "4"),
    ({"PatientName": "==やまだ*"}, "4"),
    ({"PatientName": "Yamada^Tarou==やまだ^たろう"}, "4"),
    ({"PatientName": "=田*"}, ""),
    ({"PatientName": "Doe^John=山田^太郎"}, ""),
    ({"PatientName": "*^h*"}, "5"),
    ({"PatientName": "oneil*"}, "6"),
    ({"PatientName": "*"}, "123456"),
    ({"PatientID": "P1"}, "1"),
    ({"PatientID": "*1*"}, "16"),
    ({"PatientID": "*p1*"}, "6"),
    ({"PatientID": "P?"}, "12345"),
    ({"StudyDescription": "CT ABDOMEN"}, "1"),
    ({"StudyDescription": "ct abd*"}, "16"),
    ({"StudyDescription": "*schadel*"}, "2"),
    ({"StudyDate": "20240105"}, "146"),
    ({"StudyDate": "20240101-"}, "1246"),
    ({"StudyDate": "-20240105"}, "1346"),
    ({"StudyDate": "20231231-20240105"}, "1346"),
    ({"StudyDate": "19700102-20991231"}, "12346"),
    ({"StudyTime": "10"}, "12"),
    ({"StudyTime": "0900-1015"}, "126"),
    ({"StudyTime": "235959.5"}, "3"),
    ({"ModalitiesInStudy": "CT"}, "136"),
    ({"ModalitiesInStudy": "MR\\US"}, "25"),
    ({"ModalitiesInStudy": "C?"}, "1346"),
    ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2"}, "123456"),
    ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1"}, ""),
    ({"NumberOfStudyRelatedInstances": "3"}, "3"),
    ({"NumberOfPatientRelatedStudies": "1"}, "123456"),
    ({"NumberOfPatientRelatedInstances": "2"}, "2"),
    ({"Modality": "CT"}, "136"),
    ({"Modality": "CT", "SeriesInstanceUID": "1.2.3.1"}, "3"),
    ({"Modality": "CT", "SeriesInstanceUID": "1.2.3.2"}, ""),
    ({"SOPInstanceUID": "1.2.4.2.1"}, "4"),
    ({"StudyInstanceUID": "1.2.1\\1.2.5"}, "15"),
    ({"StudyInstanceUID": "1.2.1,1.2.5"}, "15"),
    ({"InstanceAvailability": "ONLINE"}, "123456"),
    ({"InstanceAvailability": "NEARLINE"}, ""),
    ({"TimezoneOffsetFromUTC": "+0100"}, "123456"),
    ({"OperatorsName": "poe^ed"}, "123456"),
    ({"OperatorsName": "poe*"}, "123456"),
    ({"OperatorsName": "oe*"}, ""),
    ({"NameOfPhysiciansReadingStudy": "WÖRTH^EVA"}, "123456"),
    ({"PatientWeight": "70"}, "123456"),
    ({"PatientWeight": "70.5"}, ""),
    ({"PatientComments": "a\\b"}, "123456"),
    ({"SeriesNumber": "02", "Modality": "SR"}, "123456"),
]
"""Keys, and the studies that they find."""


def test_criteria_find_exactly_the_studies_that_match(studies: Ask) -> None:
    found = [(keys, "".join(studies(**keys))) for keys, _expected in CASES]
    assert found == CASES


LITERAL: list[tuple[dict[str, str], str]] = [
    ({"AccessionNumber": "A_2"}, "2"),
    ({"AccessionNumber": "A_*"}, "2"),
    ({"AccessionNumber": "*_*"}, "2"),
    ({"AccessionNumber": "A%3"}, "3"),
    ({"AccessionNumber": "*%*"}, "3"),
    ({"AccessionNumber": "_234"}, ""),
    ({"AccessionNumber": "%234"}, ""),
    ({"AccessionNumber": "?234"}, "6"),
    ({"StudyDescription": "*% dose"}, "3"),
    ({"StudyDescription": "[chest]"}, "4"),
    ({"StudyDescription": "[c*"}, "4"),
    ({"StudyDescription": "*[chest]*"}, "4"),
    ({"StudyDescription": "[a-z]*"}, ""),
]


def test_c81_percent_underscore_and_brackets_are_literal(studies: Ask) -> None:
    found = [(keys, "".join(studies(**keys))) for keys, _expected in LITERAL]
    assert found == LITERAL


def test_c81_backslash_in_a_value_is_literal(finder: Finder) -> None:
    # In a text VR a backslash separates values; as a value of its own it comes from elsewhere.
    asked = Query(Level.STUDY, {tag_of("AccessionNumber"): Single("A\\4")})
    assert [one.values[STUDY_UID] for one in finder.find(asked)] == ["1.2.4"]


def test_c81_identifier_with_a_backslash_is_found_by_itself(studies: Ask) -> None:
    # Such as DOMAIN\4711 of an office system; who copies it from a list asks for it as it stands.
    assert studies(AccessionNumber="A\\4") == ["4"]
    assert studies(AccessionNumber="A\\5") == []


def test_sql_means_what_matching_says(finder: Finder, studies: Ask) -> None:
    everything = list(
        finder.find(
            query(
                returns=tuple(map(tag_of, ("PatientName", "PatientID", "StudyDate", "StudyTime")))
            )
        )
    )
    asked = {
        "PatientName": [
            *("doe*", "*e^j*", "??e^john", "山田*", "*郎"),
            *("m*=*", "yamada^tarou=*=*", "*=*"),
        ],
        "PatientID": ["P1", "p*", "*", "?1"],
        "StudyDate": ["20240105", "20240105-20240106", "-20231231"],
        "StudyTime": ["10", "1015", "093000-101500", "-10", "2359-", "2359-10"],
    }  # fmt: skip
    for keyword, texts in asked.items():
        tag = tag_of(keyword)
        for text in texts:
            criterion = parse_criterion(tag, vr_of(tag), text)
            expected = sorted(
                one.values[STUDY_UID].rpartition(".")[2]
                for one in everything
                if matches(criterion, one.values[tag], vr_of(tag))
            )
            assert studies(**{keyword: text}) == expected, (keyword, text)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("Maier^Hans", "5"),
        ("hans meyer", "5"),
        ("jhon doe", "1"),
        ("Mueller", "3"),
        ("*eyer*", "5"),
        ("o'niel", "6"),
        ("yam", "4"),
        ("xyz", ""),
    ],
)
def test_c12_fuzzy_names_are_found_as_they_were_heard(
    studies: Ask, typed: str, expected: str
) -> None:
    assert "".join(studies(PatientName=typed, fuzzy=True)) == expected


def test_fuzzy_search_knows_names_that_came_since(index: Any, studies: Ask) -> None:
    assert studies(PatientName="Schmitt", fuzzy=True) == []
    index.study("1.2.9", patient_name="SCHMIDT^EVA", patient_id="P9")
    assert studies(PatientName="Schmitt", fuzzy=True) == ["9"]


def test_combined_date_and_time_are_one_moment(studies: Ask) -> None:
    keys = {"StudyDate": "20231231-20240105", "StudyTime": "1000-1000"}
    assert studies(**keys) == []
    assert studies(**keys, combined_datetime=True) == ["3", "4", "6"]
    later = {"StudyDate": "20240105-20240106", "StudyTime": "1000-1000"}
    assert studies(**later, combined_datetime=True) == ["1", "2", "4"]


def test_request_attributes_match_inside_their_sequence(finder: Finder) -> None:
    inside = SequenceMatch({tag_of("RequestedProcedureID"): Single("RP2")})
    asked = Query(Level.SERIES, {tag_of("RequestAttributesSequence"): inside})
    assert [one.values[SERIES_UID] for one in finder.find(asked)] == ["1.2.3.1", "1.2.3.2"]
    assert unsupported(asked) == ()


def test_c73_keys_that_cannot_restrict_are_named() -> None:
    asked = query(
        keys={
            "PatientName": "x",
            "StudyDate": "",
            "CodeValue": "T1",
            "BodyPartThickness": "3",
            "TimezoneOffsetFromUTC": "+0100",
        }
    )
    assert unsupported(asked) == (tag_of("CodeValue"), tag_of("BodyPartThickness"))


def test_c79_computed_attributes_are_returned(finder: Finder) -> None:
    names = (
        "ModalitiesInStudy", "SOPClassesInStudy", "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances",
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "InstanceAvailability",
    )  # fmt: skip
    tags = tuple(map(tag_of, names))
    (one,) = finder.find(query(keys={"StudyInstanceUID": "1.2.2"}, returns=tags))
    assert [one.values[tag] for tag in tags] == [
        "MR\\SR", "1.2.840.10008.5.1.4.1.1.2", "1", "1", "2", "1", "2", "ONLINE",
    ]  # fmt: skip
    (patient,) = finder.find(query(Level.PATIENT, keys={"PatientID": "P3"}, returns=tags))
    assert [patient.values.get(tag) for tag in tags] == [
        None, None, "1", "1", "3", None, None, "ONLINE",
    ]  # fmt: skip
    (series,) = finder.find(
        query(Level.SERIES, keys={"SeriesInstanceUID": "1.2.2.1"}, returns=(*tags, 0x00201209))
    )
    assert series.values[0x00201209] == "1"
    assert series.values[tag_of("NumberOfStudyRelatedInstances")] == "2"


def test_c06_attributes_below_are_returned_where_all_agree(finder: Finder) -> None:
    tags = (MODALITY, tag_of("InstitutionName"), tag_of("SOPClassUID"))
    (one,) = finder.find(query(keys={"StudyInstanceUID": "1.2.1"}, returns=tags))
    assert one.values[MODALITY] == ""
    assert one.values[tag_of("InstitutionName")] == "St. Elsewhere"
    assert one.values[tag_of("SOPClassUID")] == "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(
    ("level", "keys", "expected"),
    [
        (Level.PATIENT, {"PatientName": "doe*"}, ["P2", "P1"]),
        (Level.PATIENT, {"StudyDate": "20240106"}, ["P2"]),
        (Level.PATIENT, {"Modality": "US"}, ["P5"]),
        (Level.PATIENT, {"SOPInstanceUID": "1.2.3.1.1"}, ["P3"]),
    ],
)
def test_patients_are_found_by_their_own_and_by_lower_attributes(
    finder: Finder, level: Level, keys: dict[str, str], expected: list[str]
) -> None:
    found = finder.find(query(level, keys=keys))
    assert [one.values[tag_of("PatientID")] for one in found] == expected


def test_series_and_instances_are_found_by_keys_of_levels_above(finder: Finder) -> None:
    series = finder.find(query(Level.SERIES, keys={"PatientName": "doe^j*", "Modality": "SR"}))
    assert [one.values[SERIES_UID] for one in series] == ["1.2.2.2", "1.2.1.2"]
    images = finder.find(query(Level.IMAGE, keys={"StudyInstanceUID": "1.2.1", "Modality": "CT"}))
    assert [one.values[SOP_UID] for one in images] == ["1.2.1.1.1"]


def test_rejected_instances_are_invisible(index: Any, finder: Finder) -> None:
    key = index.study("1.3", patient_id="P7", number_of_study_related_instances=0)
    series = index.series("1.3.1", key, number_of_series_related_instances=0)
    index.instance("1.3.1.1", series, rejected_for="113001^DCM")
    assert list(finder.find(query(keys={"StudyInstanceUID": "1.3"}))) == []
    assert list(finder.find(query(Level.PATIENT, keys={"PatientID": "P7"}))) == []
    assert list(finder.find(query(Level.SERIES, keys={"SeriesInstanceUID": "1.3.1"}))) == []
    assert list(finder.find(query(Level.IMAGE, keys={"SOPInstanceUID": "1.3.1.1"}))) == []
    assert list(finder.find(query(keys={"SOPInstanceUID": "1.3.1.1"}))) == []


def test_c80_a_list_of_five_thousand_uids_is_one_query(finder: Finder) -> None:
    uids = "\\".join([*(f"1.2.840.{n}" for n in range(5000)), "1.2.1", "1.2.6"])
    found = finder.find(query(keys={"StudyInstanceUID": uids}))
    assert sorted(one.values[STUDY_UID] for one in found) == ["1.2.1", "1.2.6"]


def test_c21_pages_are_a_total_order_without_gaps_or_overlaps(index: Any, finder: Finder) -> None:
    for n in range(30):
        index.study(f"1.4.{n}", patient_id="SAME", study_date="20200101", study_time="10")
    asked = {"PatientID": "SAME"}
    whole = [one.values[STUDY_UID] for one in finder.find(query(keys=asked))]
    paged: list[str] = []
    offset = 0
    while page := list(finder.find(query(keys=asked, limit=7, offset=offset))):
        paged += [one.values[STUDY_UID] for one in page]
        offset += 7
    assert paged == whole
    assert len(set(paged)) == 30


def test_long_answers_come_in_chunks_and_whole(
    index: Any, finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "CHUNK", 20)
    for n in range(53):
        index.study(f"1.5.{n}", patient_id="MANY", study_date=f"2020{n % 12 + 1:02}01")

    def ask(**page: int) -> list[str]:
        found = finder.find(query(keys={"PatientID": "MANY"}, **page))
        return [one.values[STUDY_UID] for one in found]

    whole = ask()
    assert len(whole) == len(set(whole)) == 53
    assert ask(limit=45, offset=2) == whole[2:47]
    assert ask(limit=20, offset=30) == whole[30:50]
    assert ask(limit=20) == whole[:20]
    assert ask(limit=21) == whole[:21]
    assert ask(limit=0) == []
    assert ask(offset=53) == []
    assert ask(offset=50) == whole[50:]


def test_c22_filters_apply_before_limit_and_offset(finder: Finder) -> None:
    asked = query(keys={"ModalitiesInStudy": "CT"}, limit=1, offset=1)
    assert [one.values[STUDY_UID] for one in finder.find(asked)] == ["1.2.6"]
    assert finder.count(asked) == 3


def test_answers_are_ordered_as_asked(finder: Finder) -> None:
    by_name = query(order_by=((tag_of("PatientName"), False),))
    assert [one.values[STUDY_UID][-1] for one in finder.find(by_name)] == list("215364")
    by_count = query(order_by=((tag_of("NumberOfStudyRelatedInstances"), True),), limit=2)
    assert [one.values[STUDY_UID][-1] for one in finder.find(by_count)] == ["6", "5"]
    newest_first = [one.values[STUDY_UID][-1] for one in finder.find(query())]
    assert newest_first == list("216435")


def test_an_order_by_something_unknown_is_refused(finder: Finder) -> None:
    with pytest.raises(Invalid, match="cannot be ordered"):
        list(finder.find(query(order_by=((MODALITY, False),))))


def test_texts_that_no_database_can_hold_match_nothing(finder: Finder) -> None:
    for text in ("a\0b", "\ud800", "*\0*", "x\0*"):
        asked = Query(Level.STUDY, {tag_of("PatientID"): Single(text)})
        assert list(finder.find(asked)) == []
        assert list(finder.find(Query(Level.STUDY, {tag_of("PatientName"): Single(text)}))) == []


def test_a_query_that_takes_too_long_is_stopped(database: Database, index: Any) -> None:
    for n in range(300):
        index.study(f"1.6.{n}", patient_id="ONE PATIENT, MANY STUDIES")
    asked = query(keys={"NumberOfPatientRelatedStudies": "9", "NumberOfPatientRelatedSeries": "9"})
    patient = Finder(database, NameBook(ManualClock().monotonic), timeout_s=30)
    assert list(patient.find(asked)) == []
    hurried = Finder(database, NameBook(ManualClock().monotonic), timeout_s=0.001)
    with pytest.raises(Exhausted, match="stopped"):
        list(hurried.find(asked))
    # The connection goes back to the pool without its alarm.
    assert list(patient.find(asked)) == []


PLANS: list[tuple[Level, dict[str, str], str]] = [
    (Level.STUDY, {"PatientID": "P1"}, "ix_study_patient_id (patient_id=?)"),
    (Level.STUDY, {"AccessionNumber": "A1"}, "ix_study_accession_number (accession_number=?)"),
    (Level.STUDY, {"StudyInstanceUID": "1.2"}, "(study_instance_uid=?)"),
    (Level.STUDY, {"StudyInstanceUID": "1.2,1.3"}, "(study_instance_uid=?)"),
    (Level.STUDY, {"PatientName": "doe^john"}, "(patient_name_words=?)"),
    (Level.STUDY, {"PatientName": "doe^j*"}, "(patient_name_words>? AND"),
    (Level.STUDY, {"PatientName": "*smith*"}, "study_trigrams"),
    (Level.STUDY, {"PatientID": "*4711*"}, "study_trigrams"),
    (Level.STUDY, {"AccessionNumber": "*4711*"}, "study_trigrams"),
    (Level.STUDY, {"StudyDescription": "*abdomen*"}, "study_trigrams"),
    (Level.STUDY, {"StudyDate": "20240105"}, "(study_date=?)"),
    (Level.STUDY, {"StudyDate": "20240105-20240107"}, "(study_date>? AND study_date<?)"),
    (Level.STUDY, {"StudyDate": "20240105", "Modality": "CT"}, "(study_date=?)"),
    (Level.STUDY, {"SOPInstanceUID": "1.2"}, "(sop_instance_uid=?)"),
    (Level.STUDY, {}, "SCAN study USING INDEX ix_study_study_date_study_time_study_key"),
    (Level.PATIENT, {"PatientID": "P1"}, "(patient_id=?)"),
    (Level.PATIENT, {"PatientName": "doe*"}, "(patient_name_words>? AND"),
    (Level.SERIES, {"StudyInstanceUID": "1.2"}, "(study_instance_uid=?)"),
    (Level.SERIES, {"SeriesInstanceUID": "1.2"}, "(series_instance_uid=?)"),
    (Level.IMAGE, {"SeriesInstanceUID": "1.2"}, "(series_instance_uid=?)"),
    (Level.IMAGE, {"SOPInstanceUID": "1.2"}, "(sop_instance_uid=?)"),
]


def test_usual_queries_are_served_by_an_index(finder: Finder, database: Database) -> None:
    for level, keys, expected in PLANS:
        plan = finder.explain(query(level, keys=keys))
        if database.is_sqlite:
            assert expected in plan, keys
            scans = [line for line in plan.splitlines() if line.startswith("SCAN study ")]
            assert all("USING INDEX" in line for line in scans), keys
        else:
            # PostgreSQL reads so few rows through; that it takes the statement is enough here.
            assert "Scan" in plan
