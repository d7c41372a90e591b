"""Query parameters as real clients write them."""

from __future__ import annotations

import contextlib
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import (
    MultiValue,
    Range,
    SequenceMatch,
    Single,
    UidList,
    Universal,
    Wildcard,
)
from pacsteward.dicom.web.parameters import Search, read_search


def search(text: str, *, max_results: int | None = 1000) -> Search:
    return read_search(
        Level.STUDY,
        parse_qsl(text, keep_blank_values=True),
        returns=(0x0020000D,),
        max_results=max_results,
    )


def test_c01_all_of_what_ohif_sends_is_understood_at_once() -> None:
    found = search(
        "limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090"
        "%2C00100030&PatientName=*DOE*&00100020=*17*&AccessionNumber=*A*&StudyDescription=*HEAD*"
        "&ModalitiesInStudy=CT&StudyDate=19700102-20260101&StudyInstanceUID=1.2"
    )
    assert found.query.criteria == {
        0x00100010: Wildcard("*DOE*"),
        0x00100020: Wildcard("*17*"),
        0x00080050: Wildcard("*A*"),
        0x00081030: Wildcard("*HEAD*"),
        0x00080061: Single("CT"),
        0x00080020: Range("19700102", "20260101"),
        0x0020000D: Single("1.2"),
    }
    assert (found.query.limit, found.query.offset, found.query.fuzzy) == (101, 0, False)
    assert {0x00081030, 0x00080060, 0x00080090, 0x00100030} <= set(found.query.returns)
    assert found.warnings == ()


@pytest.mark.parametrize("key", ["PatientID", "patientid", "PATIENTID", "00100020"])
def test_c02_keyword_and_tag_are_the_same_key_in_any_case(key: str) -> None:
    assert search(f"{key}=17").query.criteria == {0x00100020: Single("17")}


def test_c02_hex_digits_may_be_small() -> None:
    assert search("0020000d=1.2").query.criteria == {0x0020000D: Single("1.2")}


@pytest.mark.parametrize(
    "text",
    [
        "includefield=00081030,00080060",
        "includefield=00081030%2C00080060",
        "includefield=StudyDescription&includefield=Modality",
        "includefield=StudyDescription, Modality",
    ],
)
def test_c05_fields_come_as_a_list_and_repeated(text: str) -> None:
    assert search(text).query.returns == (0x0020000D, 0x00081030, 0x00080060)


@pytest.mark.parametrize("text", ["1.2%5C1.3", "1.2,1.3", "1.2%2C1.3"])
def test_c10_lists_of_uids_are_separated_by_backslash_or_comma(text: str) -> None:
    assert search(f"StudyInstanceUID={text}").query.criteria[0x0020000D] == UidList(("1.2", "1.3"))


def test_codes_are_listed_with_a_comma_too() -> None:
    either = MultiValue((Single("CT"), Single("MR")))
    assert search("ModalitiesInStudy=CT,MR").query.criteria[0x00080061] == either
    assert search("PatientID=A,B").query.criteria[0x00100020] == Single("A,B")


def test_a_date_and_its_time_are_one_moment() -> None:
    assert search("StudyDate=20240101-20240103&StudyTime=10-12").query.combined_datetime


def test_a_key_that_comes_twice_asks_for_either() -> None:
    assert search("ModalitiesInStudy=CT&ModalitiesInStudy=MR").query.criteria[
        0x00080061
    ] == MultiValue((Single("CT"), Single("MR")))


def test_c13_the_limit_of_ohif_is_honoured_up_to_our_own() -> None:
    assert search("limit=101").query.limit == 101
    assert search("limit=5000").query.limit == 1000
    assert search("").query.limit == 1000


def test_c16_without_a_cap_all_are_given() -> None:
    assert search("", max_results=None).query.limit is None


def test_c26_the_time_zone_is_no_filter() -> None:
    found = search("TimezoneOffsetFromUTC=%2B0100")
    assert found.query.criteria == {0x00080201: Universal()}
    assert 0x00080201 in found.query.returns


def test_a_key_is_returned_as_well() -> None:
    assert 0x00080090 in search("ReferringPhysicianName=A*").query.returns


def test_f045_a_path_matches_inside_a_sequence_and_returns_it() -> None:
    found = search(
        "00400275.00400009=S1&RequestAttributesSequence.RequestedProcedureID=R1"
        "&includefield=00081110.00081155"
    )
    assert found.query.criteria == {
        0x00400275: SequenceMatch({0x00400009: Single("S1"), 0x00401001: Single("R1")})
    }
    assert {0x00400275, 0x00081110} <= set(found.query.returns)


def test_f046_order_is_read_with_its_direction() -> None:
    assert search("orderby=-StudyDate,PatientName").query.order_by == (
        (0x00080020, True),
        (0x00100010, False),
    )


def test_f044_all_fields_may_be_asked_for() -> None:
    assert search("includefield=all").wants_all
    assert search("includefield=00081030,ALL").wants_all


def test_unknown_parameters_are_told_and_ignored() -> None:
    found = search("colour=blue&00091001=x&includefield=Nonsense")
    assert found.query.criteria == {0x00091001: Universal()}
    assert "colour" in found.warnings[0]
    assert "Nonsense" in found.warnings[0]
    assert "00091001" in found.warnings[1]


@pytest.mark.parametrize(
    "text",
    [
        "limit=0",
        "limit=-1",
        "limit=ten",
        "limit=1e3",
        "offset=-1",
        "offset=x",
        "limit=99999999999999999999",
        "fuzzymatching=perhaps",
        "StudyDate=yesterday",
        "StudyInstanceUID=abc",
        "orderby=nothing",
        "PatientName.PatientID=1",
    ],
)
def test_values_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        search(text)


@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=60)), max_size=8))
def test_any_parameters_are_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    with contextlib.suppress(PacstewardError):
        read_search(Level.SERIES, pairs, returns=(), max_results=10)
