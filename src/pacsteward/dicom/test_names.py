"""Promises of names.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacsteward.dicom.names import (
    ComponentGroup,
    PersonName,
    display,
    fuzzy_matches,
    normalise,
    parse,
)

# PS3.5 6.2.1.1, H.3, I.2 and J.3.
ADAMS = "Adams^John Robert Quincy^^Rev.^B.A. M.Div."
YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"
HONG = "Hong^Gildong=洪^吉洞=홍^길동"


def test_components_are_those_of_the_standard() -> None:
    name = parse(ADAMS).alphabetic
    assert name == ComponentGroup("Adams", "John Robert Quincy", "", "Rev.", "B.A. M.Div.")
    assert parse("Morrison-Jones^Susan^^^Ph.D., Chief Executive Officer").alphabetic == (
        ComponentGroup("Morrison-Jones", "Susan", "", "", "Ph.D., Chief Executive Officer")
    )


@pytest.mark.parametrize(
    "text", [ADAMS, YAMADA, HONG, "ABC Farms^Running on Water", "=山田^太郎", ""]
)
def test_a_parsed_name_is_written_as_it_was(text: str) -> None:
    assert str(parse(text)) == text


def test_groups_are_alphabetic_ideographic_phonetic() -> None:
    name = parse(YAMADA)
    assert name.alphabetic.family_name == "Yamada"
    assert name.ideographic.given_name == "太郎"
    assert name.phonetic == ComponentGroup("やまだ", "たろう")
    assert bool(name)
    assert not PersonName()


def test_a_name_that_breaks_the_rules_is_kept_whole() -> None:
    name = parse("A^B^C^D^E^F=x=y=z")
    assert name.alphabetic.name_suffix == "E F"
    assert str(name.phonetic) == "y=z"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Doe^John^Q^Dr.", "Doe, Dr. John Q"),
        ("Doe", "Doe"),
        ("^Cher", "Cher"),
        (YAMADA, "Yamada, Tarou (山田 太郎, やまだ たろう)"),
        ("=山田^太郎", "山田, 太郎"),
        ("", ""),
        ("^^^^", ""),
    ],
)
def test_a_name_is_shown_family_name_first(text: str, shown: str) -> None:
    assert display(text) == shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MÜLLER^JÜRGEN", "Muller^Jurgen"),
        ("Strauß^Änne", "STRAUSS^ANNE"),
        ("O'Brien^Seán", "OBRIEN^SEAN"),
        ("Ærø^Bjørn", "AERO^BJORN"),
        ("Łukasz^Đorđe", "lukasz^dorde"),
        ("Doe^John^^^", "DOE^JOHN"),
        ("Doe ^ John", "DOE^JOHN"),
        ("Smith-Jones^A", "SMITH JONES^A"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ヤマダ^タロウ"),
        ("ＹＡＭＡＤＡ", "yamada"),
        ("Doe^John==", "Doe^John"),
        ("Люкceмбypг^Йo", "люкceмбypг^иo"),
    ],
)
def test_spellings_of_one_name_share_a_normal_form(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


def test_normal_form_keeps_groups_components_and_wild_cards() -> None:
    assert normalise(YAMADA) == "yamada^tarou=山田^太郎=やまだ^たろう"
    assert normalise("Mü*^J?") == "mu*^j?"
    assert normalise("A^B\\C^D^^") == "a^b\\c^d"


def test_voice_marks_of_kana_are_not_accents() -> None:
    assert normalise("はな") != normalise("ばな")
    assert normalise("홍^길동") == "홍^길동"


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_normal_form_is_stable(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("John Doe", "DOE^JOHN"),
        ("doe jo", "DOE^JOHN^^DR"),
        ("Meyer", "MAIER^HANS"),
        ("Schmidt", "SCHMITT^EVA"),
        ("Mueller", "Müller^Ute"),
        ("Jonson", "JOHNSON^BEN"),
        ("Stephen", "KING^STEVEN"),
        ("Andersno", "ANDERSON^P"),
        ("山田", YAMADA),
        ("やまだ", YAMADA),
        ("D*", "DOE^JOHN"),
        ("", "DOE^JOHN"),
    ],
)
def test_fuzzy_matching_forgives(query: str, name: str) -> None:
    assert fuzzy_matches(query, name)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("Doe", "ROE^JANE"),
        ("Miller", "TILLER^JOHN"),
        ("Kowalski", "NOWAK^JAN"),
        ("Li", "LAU^A"),
        ("John John", "DOE^JOHN"),
        ("Doe Jane", "DOE^JOHN"),
        ("Yamada 太郎", YAMADA),
        ("Doe", ""),
    ],
)
def test_fuzzy_matching_does_not_bring_strangers(query: str, name: str) -> None:
    assert not fuzzy_matches(query, name)


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=30), st.text(max_size=30))
def test_fuzzy_matching_never_fails(query: str, name: str) -> None:
    assert isinstance(fuzzy_matches(query, name), bool)
