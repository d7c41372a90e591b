"""Promises of charset.py, with the examples of PS3.5 Annexes H to K."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacsteward.base.errors import Invalid, Unsupported
from pacsteward.dicom.charset import (
    DEFINED_TERMS,
    LATIN_1,
    UTF_8,
    character_set_for,
    decode,
    encode,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1b"), max_size=10)

NAMES = {
    "H.3.1": (
        "\\ISO 2022 IR 87",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "59616d6164615e5461726f753d1b24423b3345441b28425e1b244242404f3a1b28423d"
        "1b24422464245e24401b28425e1b2442243f246d24261b2842",
    ),
    "H.3.2": (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        "d4cfc0de5ec0dbb33d1b24423b3345441b284a5e1b244242404f3a1b284a3d"
        "1b24422464245e24401b284a5e1b2442243f246d24261b284a",
    ),
    "I.2": (
        "\\ISO 2022 IR 149",
        "Hong^Gildong=洪^吉洞=홍^길동",
        "486f6e675e47696c646f6e673d1b242943fbf35e1b242943d1ced4d73d1b242943c8ab5e1b242943b1e6b5bf",
    ),
    "J.1": (
        "ISO_IR 192",
        "Wang^XiaoDong=王^小東=",
        "57616e675e5869616f446f6e673de78e8b5ee5b08fe69db13d",
    ),
    "J.3": ("GB18030", "Wang^XiaoDong=王^小东=", "57616e675e5869616f446f6e673dcdf55ed0a1b6ab3d"),
    "K.2": (
        "\\ISO 2022 IR 58",
        "Zhang^XiaoDong=张^小东=",
        "5a68616e675e5869616f446f6e673d1b242941d5c55e1b242941d0a1b6ab3d",
    ),
    "Latin-1": ("ISO_IR 100", "Buc^Jérôme", "4275635e4ae972f46d65"),
    "Latin-2": ("ISO_IR 101", "Wałęsa", "5761b3ea7361"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг", "bbeeda6365dcd17970d3"),
    "Greek": ("ISO_IR 126", "Διονυσιος", "c4e9efedf5f3e9eff2"),
    "Arabic": ("ISO_IR 127", "قباني^لنزار", "e2c8c7e6ea5ee4e6d2c7d1"),
    "Hebrew": ("ISO_IR 138", "שרון^דבורה", "f9f8e5ef5ee3e1e5f8e4"),
    "Thai": ("ISO_IR 166", "ชื่อ", "aad7e8cd"),
    "Turkish": ("ISO_IR 148", "Çavuşoğlu", "c7617675fe6ff06c75"),
    "Latin-9": ("ISO_IR 203", "Œuvre €", "bc7576726520a4"),
    "Katakana": ("ISO_IR 13", "ﾔﾏﾀﾞ", "d4cfc0de"),
    "GBK": ("GBK", "王^小东", "cdf55ed0a1b6ab"),
    "mixed": (
        "ISO 2022 IR 100\\ISO 2022 IR 144",
        "Jérôme=Люк",
        "4ae972f46d653d1b2d4cbbeeda",
    ),
}


@pytest.mark.parametrize("example", NAMES)
def test_names_of_the_standard_are_read(example: str) -> None:
    character_set, text, encoded = NAMES[example]
    assert decode(bytes.fromhex(encoded), character_set, is_person_name=True) == text
    assert decode(bytes.fromhex(encoded), character_set.split("\\"), is_person_name=True) == text


@pytest.mark.parametrize("example", NAMES)
def test_names_of_the_standard_are_written_as_in_the_standard(example: str) -> None:
    character_set, text, encoded = NAMES[example]
    assert encode(text, character_set).hex() == encoded


def test_text_of_annex_i_switches_back_at_the_end_of_a_line() -> None:
    text = b"\x1b$)C\xb1\xe6\xc1\xd8\r\n\x1b$)C\xb1\xe6 plain"
    assert decode(text, "\\ISO 2022 IR 149") == "길준\r\n길 plain"


def test_half_of_a_kanji_is_no_delimiter() -> None:
    """In JIS X 0208 the second byte of some characters is that of a backslash or a caret."""
    for text in ("構\\造", "予^定", "＝=＝"):
        encoded = encode(text, "\\ISO 2022 IR 87")
        assert decode(encoded, "\\ISO 2022 IR 87") == text


def test_supplementary_kanji_are_read_and_written() -> None:
    character_set = "\\ISO 2022 IR 87\\ISO 2022 IR 159"
    assert decode(encode("山丂", character_set), character_set) == "山丂"


@pytest.mark.parametrize(
    ("value", "character_set", "text"),
    [
        ("Jérôme".encode(), "", "Jérôme"),
        (b"J\xe9r\xf4me", "", "Jérôme"),
        (b"J\xe9r\xf4me", "ISO_IR 192", "Jérôme"),
        ("Jérôme".encode(), "ISO_IR 6", "Jérôme"),
        (b"J\xe9r\xf4me", "ISO IR 100", "Jérôme"),
        ("Jérôme".encode(), "utf-8", "Jérôme"),
        (b"J\xe9r\xf4me", "ISO-8859-77", "Jérôme"),
        (b"it\x92s", "ISO_IR 100", "it’s"),
        ("MÜLLER^Jürgen".encode(), "ISO_IR 100", "MÜLLER^Jürgen"),
        (b"it\x92s", "", "it’s"),
        ("山田".encode(), "GB18030\\nonsense", "山田"),
        (b"\xc8\xab", "\\ISO 2022 IR 149", "홍"),
        (b"\xbb\xb3\xc5\xc4", "\\ISO 2022 IR 87", "山田"),
        (b"\x1b$B;3ED\x1b(B", "", "山田"),
        (b"Yamada=\x1b$B;3ED\x1b(B", "ISO_IR 100", "Yamada=山田"),
    ],
)
def test_a_missing_or_wrong_character_set_is_made_good(
    value: bytes, character_set: str, text: str
) -> None:
    if character_set.startswith("GB18030"):
        assert decode("山田".encode("gb18030"), character_set) == text
    else:
        assert decode(value, character_set) == text


@pytest.mark.parametrize(
    ("value", "character_set", "text"),
    [
        (b"A\xaeB", "ISO_IR 127", "A\ufffdAEB"),
        (b"ok \x1bQ", "\\ISO 2022 IR 87", "ok \ufffd1BQ"),
        ("Jérôme Léa é".encode()[:-1], "ISO_IR 192", "Jérôme Léa \ufffdC3"),
        (b"\x1b$B;3\x7f\x1b(B", "\\ISO 2022 IR 87", "山\ufffd7F"),
    ],
)
def test_bytes_without_meaning_stay_visible(value: bytes, character_set: str, text: str) -> None:
    assert decode(value, character_set) == text


@settings(deadline=None, derandomize=True)
@given(
    st.binary(max_size=40),
    st.lists(st.sampled_from([*DEFINED_TERMS, "nonsense"]), max_size=3),
    st.booleans(),
)
def test_decoding_never_fails(value: bytes, terms: list[str], is_person_name: bool) -> None:
    assert isinstance(decode(value, terms, is_person_name), str)
    assert isinstance(decode(b"\x1b$B" + value + b"\x1b$)C" + value, terms), str)


@settings(deadline=None, derandomize=True)
@given(
    st.text("aZ ^=\\é山田ﾔ홍Люк€", max_size=20),
    st.sampled_from(
        ["ISO_IR 192", "GB18030", "ISO_IR 100", "\\ISO 2022 IR 87", "\\ISO 2022 IR 149",
         "ISO 2022 IR 13\\ISO 2022 IR 87", "ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 87"]
    ),
)  # fmt: skip
def test_what_can_be_written_is_read_back(text: str, character_set: str) -> None:
    try:
        encoded = encode(text, character_set)
    except Invalid:
        return
    assert decode(encoded, character_set, is_person_name=True) == text
    assert decode(encoded, character_set) == text


def test_what_does_not_fit_is_refused_and_not_named() -> None:
    with pytest.raises(Invalid) as refused:
        encode("Łukasz", LATIN_1)
    assert "ukasz" not in str(refused.value)
    with pytest.raises(Unsupported):
        encode("é", "nonsense")
    with pytest.raises(Invalid):
        encode("山", "ISO_IR 13")


@pytest.mark.parametrize(
    ("texts", "wanted", "answer"),
    [
        (["DOE^JOHN"], "", ""),
        (["DOE^JOHN"], "ISO_IR 100", "ISO_IR 100"),
        (["DOE^JOHN"], "nonsense", ""),
        (["Jérôme", "DOE"], "", "ISO_IR 100"),
        (["Jérôme"], "ISO_IR 192", "ISO_IR 192"),
        (["Jérôme"], "ISO_IR 144", "ISO_IR 100"),
        (["Łukasz"], "ISO_IR 101", "ISO_IR 101"),
        (["Łukasz"], "ISO_IR 100", "ISO_IR 192"),
        (["Łukasz", "Jérôme", "山田"], "", "ISO_IR 192"),
        (["山田"], "\\ISO 2022 IR 87", "\\ISO 2022 IR 87"),
        (["山田", "홍"], "\\ISO 2022 IR 87", "ISO_IR 192"),
        ([], "", ""),
    ],
)
def test_c82_the_answers_character_set_can_represent_every_value(
    texts: list[str], wanted: str, answer: str
) -> None:
    chosen = character_set_for(texts, wanted)
    assert chosen == answer
    for text in texts:
        assert decode(encode(text, chosen), chosen) == text


@settings(deadline=None, derandomize=True)
@given(
    st.lists(TEXTS, max_size=4), st.sampled_from([*DEFINED_TERMS, "\\ISO 2022 IR 87", "nonsense"])
)
def test_c82_holds_for_any_text(texts: list[str], wanted: str) -> None:
    chosen = character_set_for(texts, wanted)
    for text in texts:
        encode(text, chosen)
    assert chosen in ("", wanted, LATIN_1, UTF_8)
