"""Promises of matching.py."""

from __future__ import annotations

import datetime as dt
import fnmatch
import re
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.matching import (
    UNIVERSAL,
    MultiValue,
    Range,
    SequenceMatch,
    Single,
    UidList,
    Universal,
    Wildcard,
    canonical,
    combine_date_time,
    like_pattern,
    matches,
    matches_pattern,
    parse_criterion,
    sequence_criterion,
)

STUDY_DATE, STUDY_TIME, ACQUISITION_DATETIME = 0x00080020, 0x00080030, 0x0008002A
PATIENT_ID, PATIENT_NAME, STUDY_UID, MODALITY = 0x00100020, 0x00100010, 0x0020000D, 0x00080060


@pytest.mark.parametrize("vr", ["LO", "UI", "DA", "TM", "DT", "PN", "IS", "SQ", "OB", "US"])
@pytest.mark.parametrize("text", ["", "  ", "\0", "*", "**"])
def test_an_empty_key_and_a_lone_star_match_everything(vr: str, text: str) -> None:
    criterion = parse_criterion(PATIENT_ID, vr, text)
    assert criterion == Universal()
    assert matches(criterion, "", vr)
    assert matches(criterion, "anything", vr)


def test_c10_uids_are_listed_with_backslash_or_comma() -> None:
    assert parse_criterion(STUDY_UID, "UI", "1.2.3") == Single("1.2.3")
    assert parse_criterion(STUDY_UID, "UI", "1.2\\1.3\\1.2") == UidList(("1.2", "1.3"))
    assert parse_criterion(STUDY_UID, "UI", "1.2,1.3\0") == UidList(("1.2", "1.3"))
    assert parse_criterion(STUDY_UID, "UI", "\\") == UNIVERSAL


def test_c80_a_list_of_more_than_a_thousand_uids_is_understood() -> None:
    uids = [f"1.2.840.{number}" for number in range(2500)]
    criterion = parse_criterion(STUDY_UID, "UI", "\\".join(uids))
    assert criterion == UidList(tuple(uids))
    assert matches(criterion, "1.2.840.2499", "UI")
    assert not matches(criterion, "1.2.840.2500", "UI")


@pytest.mark.parametrize("text", ["1.2-1.3", "1.2.*", "abc", "1" * 65])
def test_nonsense_among_uids_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_criterion(STUDY_UID, "UI", text)


@pytest.mark.parametrize(
    ("text", "criterion"),
    [
        ("20240229", Single("20240229")),
        ("1993.08.22", Single("19930822")),
        ("20240101-20241231", Range("20240101", "20241231")),
        ("20240101 - 20241231", Range("20240101", "20241231")),
        ("20240101-", Range("20240101", None)),
        ("-20241231", Range(None, "20241231")),
        ("1993.01.01-1993.08.22", Range("19930101", "19930822")),
        ("-", UNIVERSAL),
    ],
)
def test_c04_dates_and_ranges_of_dates(text: str, criterion: object) -> None:
    assert parse_criterion(STUDY_DATE, "DA", text) == criterion


@pytest.mark.parametrize(
    "text",
    ["20230229", "20241301", "2024", "yesterday", "20240101-20240102-20240103", "20241231-20240101",
     "2024-01-01", "20240101\\20240102"],
)  # fmt: skip
def test_a_bad_date_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_criterion(STUDY_DATE, "DA", text)
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "criterion"),
    [
        ("10", Range("10", "105959.999999")),
        ("1015", Range("1015", "101559.999999")),
        ("101530", Range("101530", "101530.999999")),
        ("101530.5", Range("101530.5", "101530.599999")),
        ("100000", Range("10", "100000.999999")),
        ("000000", Range("00", "000000.999999")),
        ("10-12", Range("10", "125959.999999")),
        ("080000-", Range("08", None)),
        ("-1200", Range(None, "120059.999999")),
        ("10:15:00-11:30", Range("1015", "113059.999999")),
    ],
)
def test_a_partial_time_means_all_that_it_leaves_open(text: str, criterion: object) -> None:
    assert parse_criterion(STUDY_TIME, "TM", text) == criterion


@pytest.mark.parametrize("text", ["24", "1060", "1", "10:1500", "noon", "1-2-3", "10*"])
def test_a_bad_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_criterion(STUDY_TIME, "TM", text)


@pytest.mark.parametrize(
    "stored", ["10", "1015", "101500", "101500.000000", "10:15:00", "105959.999999"]
)
def test_ten_oclock_finds_every_time_of_that_hour(stored: str) -> None:
    assert matches(parse_criterion(STUDY_TIME, "TM", "10"), stored, "TM")


@pytest.mark.parametrize(
    ("stored", "is_found"),
    [("2315", True), ("000000", True), ("005959", True), ("1200", False), ("0100", True),
     ("010100", False), ("225959.9", False), ("", False)],
)  # fmt: skip
def test_a_range_of_times_may_cross_midnight(stored: str, is_found: bool) -> None:
    assert matches(parse_criterion(STUDY_TIME, "TM", "23-0100"), stored, "TM") is is_found


@pytest.mark.parametrize("stored", ["095959.999999", "11", "110000", "", "garbage"])
def test_ten_oclock_finds_no_other_time(stored: str) -> None:
    assert not matches(parse_criterion(STUDY_TIME, "TM", "10"), stored, "TM")


@settings(deadline=None, derandomize=True)
@given(st.times(), st.times(), st.times())
def test_ends_of_a_time_range_compare_as_text(
    one: dt.time, other: dt.time, stored: dt.time
) -> None:
    low, high = sorted(f"{moment:%H%M%S.%f}" for moment in (one, other))
    text = f"{stored:%H%M%S.%f}"
    criterion = parse_criterion(STUDY_TIME, "TM", f"{low}-{high}")
    assert isinstance(criterion, Range)
    assert criterion.low is not None
    assert criterion.high is not None
    assert (criterion.low <= text <= criterion.high) is (low <= text <= high)
    assert matches(criterion, text, "TM") is (low <= text <= high)


@pytest.mark.parametrize(
    ("text", "criterion"),
    [
        ("2024", Range("2024", "20241231235959.999999")),
        ("202402", Range("202402", "20240229235959.999999")),
        ("20240229101500", Range("202402291015", "20240229101500.999999")),
        ("20240101-20240131", Range("20240101", "20240131235959.999999")),
        ("2023-2024", Range("2023", "20241231235959.999999")),
        ("20240101-0500", Range("20240101-0500", "20240101235959.999999-0500")),
        ("20240101+0100-20240102+0100", Range("20240101+0100", "20240102235959.999999+0100")),
        ("20240101-0500-20240102-0500", Range("20240101-0500", "20240102235959.999999-0500")),
        ("20240101-", Range("20240101", None)),
        ("-20240101", Range(None, "20240101235959.999999")),
    ],
)
def test_date_times_and_the_two_meanings_of_a_hyphen(text: str, criterion: object) -> None:
    assert parse_criterion(ACQUISITION_DATETIME, "DT", text) == criterion


@pytest.mark.parametrize(
    "text", ["20240230", "20241301", "now", "202", "20240102-20240101", "2024+1500"]
)
def test_a_bad_date_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_criterion(ACQUISITION_DATETIME, "DT", text)


def test_offsets_from_utc_count_where_both_sides_have_one() -> None:
    noon_utc = parse_criterion(ACQUISITION_DATETIME, "DT", "202401011200+0000")
    assert matches(noon_utc, "20240101130000+0100", "DT")
    assert not matches(noon_utc, "20240101120000+0100", "DT")
    assert matches(noon_utc, "20240101120000", "DT")
    assert not matches(noon_utc, "", "DT")


@pytest.mark.parametrize("value", ["1234", "_1234", "%1234", "\\1234"])
def test_c81_percent_underscore_and_backslash_are_literals(value: str) -> None:
    """Three patients with these IDs are three patients."""
    everyone = ["1234", "_1234", "%1234", "\\1234", "x1234"]
    criterion = parse_criterion(PATIENT_ID, "LT", value)
    assert [one for one in everyone if matches(criterion, one, "LT")] == [value]
    with sqlite3.connect(":memory:") as db:
        db.execute("create table p (id text)")
        db.executemany("insert into p values (?)", [(one,) for one in everyone])
        rows = db.execute(
            "select id from p where id like ? escape '\\'", (like_pattern(value + "*"),)
        ).fetchall()
    db.close()
    assert rows == [(value,)]


def test_wild_cards_become_those_of_sql() -> None:
    assert like_pattern("a*b?c") == "a%b_c"
    assert like_pattern("100%_\\") == "100\\%\\_\\\\"


@pytest.mark.parametrize(
    ("pattern", "value", "is_match"),
    [
        ("AB*", "AB", True),
        ("AB*", "ABC", True),
        ("AB*", "XAB", False),
        ("*12*", "A12B", True),
        ("A?C", "ABC", True),
        ("A?C", "AC", False),
        ("A.C*", "ABC", False),
        ("ab*", "ABC", False),
        ("*a*a", "a", False),
        ("a*a", "aa", True),
    ],
)
def test_c03_wild_cards_match_as_the_standard_says(
    pattern: str, value: str, is_match: bool
) -> None:
    criterion = parse_criterion(PATIENT_ID, "LO", pattern)
    assert criterion == Wildcard(pattern)
    assert matches(criterion, value, "LO") is is_match


def test_a_hostile_pattern_is_answered() -> None:
    """One that tries every way to share the text out would not come to an end."""
    assert not matches_pattern("*a" * 200 + "*b", "a" * 5000)


@settings(deadline=None, derandomize=True)
@given(st.text("ab?*", max_size=8), st.text("ab", max_size=8))
def test_patterns_agree_with_those_of_the_shell(pattern: str, text: str) -> None:
    expected = re.fullmatch(fnmatch.translate(pattern), text) is not None
    assert matches_pattern(pattern, text) is expected


@pytest.mark.parametrize(
    ("wanted", "stored", "is_match"),
    [
        ("doe^john", "DOE^JOHN", True),
        ("MÜLLER*", "Muller^Anna", True),
        ("*anna*", "Muller^Anna", True),
        ("山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("yamada^tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "YAMADA^TAROU=山田^太郎=やまだ^たろう", True),
        ("Yamada^Tarou=山田^太郎", "YAMADA^TAROU=山田^太郎=やまだ^たろう", True),
        ("=山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("==やまだ*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("=山田", "Yamada^Tarou=山田^太郎", False),
        ("Yamada*=*", "YAMADA^TAROU", True),
        ("YAMADA^TAROU=*=*", "Yamada^Tarou", True),
        ("YAMADA^TAROU=*=*", "Yamada^Tarou=山田^太郎", True),
        ("YAMADA^TAROU=*=*", "Yamada^Tarou^Jirou", False),
        ("*=*", "Doe^John", True),
        ("*=", "Doe^John", True),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou", False),
        ("doe", "DOE^JOHN", False),
        ("*=山田*", "Yamada^Tarou", False),
        ("DOE^JOHN", "", False),
    ],
)
def test_names_match_without_case_and_accents_in_any_script(
    wanted: str, stored: str, is_match: bool
) -> None:
    assert matches(parse_criterion(PATIENT_NAME, "PN", wanted), stored, "PN") is is_match


def test_several_values_ask_for_any_of_them_and_one_stored_value_is_enough() -> None:
    criterion = parse_criterion(MODALITY, "CS", "CT\\M*")
    assert criterion == MultiValue((Single("CT"), Wildcard("M*")))
    assert matches(criterion, "CT", "CS")
    assert matches(criterion, "PR\\MR ", "CS")
    assert not matches(criterion, "US\\PR", "CS")
    assert parse_criterion(MODALITY, "CS", "CT\\") == Single("CT")


@pytest.mark.parametrize(
    ("vr", "wanted", "stored", "is_match"),
    [
        ("IS", "1", "01", True),
        ("IS", "007", "7 ", True),
        ("IS", "1", "10", False),
        ("DS", "1.5", "1.50", True),
        ("US", "512", "512", True),
        ("AT", "(0018,0010)", "00180010", True),
        ("AS", "045Y", "045Y", True),
        ("LT", "a\\b", "a\\b", True),
        ("LT", "a", "a\\b", False),
    ],
)
def test_other_representations_match_by_their_meaning(
    vr: str, wanted: str, stored: str, is_match: bool
) -> None:
    assert matches(parse_criterion(0x00200013, vr, wanted), stored, vr) is is_match


@pytest.mark.parametrize(
    ("vr", "text"), [("IS", "1-5"), ("IS", "1*"), ("DS", "big"), ("US", "1.5"), ("AT", "PatientID"),
                     ("SQ", "text"), ("OB", "x"), ("UN", "x")],
)  # fmt: skip
def test_keys_that_cannot_be_meant_are_refused(vr: str, text: str) -> None:
    with pytest.raises(Invalid):
        parse_criterion(0x00200013, vr, text)


def test_a_sequence_that_asks_nothing_is_universal() -> None:
    assert sequence_criterion({0x00080060: UNIVERSAL}) == UNIVERSAL
    assert sequence_criterion({}) == UNIVERSAL
    inner = {0x00080060: Single("CT"), 0x00400001: UNIVERSAL}
    assert sequence_criterion(inner) == SequenceMatch(inner)


def test_date_and_time_together_form_one_span() -> None:
    days = parse_criterion(STUDY_DATE, "DA", "20240101-20240103")
    hours = parse_criterion(STUDY_TIME, "TM", "10-12")
    assert combine_date_time(days, hours) == Range("2024010110", "20240103125959.999999")
    since = parse_criterion(STUDY_DATE, "DA", "20240101-")
    assert combine_date_time(since, parse_criterion(STUDY_TIME, "TM", "10-")) == Range(
        "2024010110", None
    )
    until = parse_criterion(STUDY_DATE, "DA", "-20240103")
    assert combine_date_time(until, parse_criterion(STUDY_TIME, "TM", "-12")) == (
        Range(None, "20240103125959.999999")
    )
    night = parse_criterion(STUDY_TIME, "TM", "18-10")
    assert combine_date_time(days, night) == Range("2024010118", "20240103105959.999999")
    one_day = parse_criterion(STUDY_DATE, "DA", "20240101")
    assert combine_date_time(one_day, night) is None
    assert combine_date_time(UNIVERSAL, hours) is None
    assert combine_date_time(days, UNIVERSAL) is None


@pytest.mark.parametrize(
    ("days", "hours"),
    [
        ("20240101-20240103", "10"),
        ("20240101-20240103", "10-"),
        ("20240101-20240103", "-10"),
        ("20240101-", "10"),
        ("20240101-", "-10"),
        ("20240101-", "10-12"),
        ("-20240103", "10-"),
        ("20240101", "10-12"),
    ],
)
def test_date_and_time_of_different_forms_keep_their_own_meaning(days: str, hours: str) -> None:
    """At eight on any day of a month is not the whole month."""
    date, time = parse_criterion(STUDY_DATE, "DA", days), parse_criterion(STUDY_TIME, "TM", hours)
    assert combine_date_time(date, time) is None


def test_stored_values_are_brought_to_one_form() -> None:
    assert canonical("DA", "1993.08.22") == "19930822"
    assert canonical("TM", "10:15:00 ") == "101500"
    assert canonical("IS", " 007") == "7"
    assert canonical("IS", "x") == "x"
    assert canonical("LO", " a b \0") == "a b"


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from(["LO", "PN", "DA", "TM", "DT", "UI", "IS", "DS", "AT", "US", "LT", "CS", "SQ"]),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_no_key_and_no_value_brings_matching_down(vr: str, text: str, stored: str) -> None:
    try:
        criterion = parse_criterion(PATIENT_ID, vr, text)
    except PacstewardError:
        return
    assert matches(criterion, stored, vr) in (True, False)


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from(["DA", "TM", "DT", "IS", "DS"]),
    st.text("0123456789-+:. ", max_size=30),
    st.text("0123456789-+:. ", max_size=30),
)
def test_no_date_brings_matching_down(vr: str, text: str, stored: str) -> None:
    try:
        criterion = parse_criterion(PATIENT_ID, vr, text)
    except PacstewardError:
        return
    assert matches(criterion, stored, vr) in (True, False)


@pytest.mark.parametrize(("vr", "most"), [("LO", 100), ("PN", 100), ("IS", 100), ("UI", 50_000)])
def test_a_key_does_not_list_countless_values(vr, most):
    """Each is a condition of its own for the database, which has no end of patience."""
    fitting = "\\".join(str(number) for number in range(1, most + 1))
    assert not isinstance(parse_criterion(0x00100020, vr, fitting), Universal)
    with pytest.raises(Invalid, match="more than"):
        parse_criterion(0x00100020, vr, fitting + "\\999999")
