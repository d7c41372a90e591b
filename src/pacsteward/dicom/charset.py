"""Text in and out of the character sets of DICOM.

Specific Character Set (0008,0005) names either one repertoire, or several between which escape
sequences switch inside a value (ISO 2022). Decoding never fails: names that cannot be read must
still be seen, so bytes without meaning become U+FFFD followed by their two hexadecimal digits, and
a character set that is missing, misspelt or wrong is made good where that is possible with
certainty. Encoding is exact or refused.

References
----------
PS3.3 C.12.1.1.2 (defined terms); PS3.5 6.1 (repertoires and code extension), Annexes H to K.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from pacsteward.base.errors import Invalid, Unsupported

UTF_8: Final = "ISO_IR 192"
LATIN_1: Final = "ISO_IR 100"

DEFINED_TERMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "ascii",
        "ISO_IR 6": "ascii",
        LATIN_1: "latin-1",
        "ISO_IR 101": "iso8859-2",
        "ISO_IR 109": "iso8859-3",
        "ISO_IR 110": "iso8859-4",
        "ISO_IR 126": "iso8859-7",
        "ISO_IR 127": "iso8859-6",
        "ISO_IR 138": "iso8859-8",
        "ISO_IR 144": "iso8859-5",
        "ISO_IR 148": "iso8859-9",
        "ISO_IR 166": "iso8859-11",
        "ISO_IR 203": "iso8859-15",
        "ISO_IR 13": "shift_jis",
        UTF_8: "utf-8",
        "GB18030": "gb18030",
        "GBK": "gbk",
        "ISO 2022 IR 6": "ascii",
        "ISO 2022 IR 100": "latin-1",
        "ISO 2022 IR 101": "iso8859-2",
        "ISO 2022 IR 109": "iso8859-3",
        "ISO 2022 IR 110": "iso8859-4",
        "ISO 2022 IR 126": "iso8859-7",
        "ISO 2022 IR 127": "iso8859-6",
        "ISO 2022 IR 138": "iso8859-8",
        "ISO 2022 IR 144": "iso8859-5",
        "ISO 2022 IR 148": "iso8859-9",
        "ISO 2022 IR 166": "iso8859-11",
        "ISO 2022 IR 203": "iso8859-15",
        "ISO 2022 IR 13": "shift_jis",
        "ISO 2022 IR 87": "iso2022_jp",
        "ISO 2022 IR 159": "iso2022_jp_1",
        "ISO 2022 IR 149": "euc_kr",
        "ISO 2022 IR 58": "gb2312",
    }
)
"""Defined terms of PS3.3 tables C.12-2 to C.12-5, and Python's codec for each."""


def decode(value: bytes, character_sets: Sequence[str] | str, is_person_name: bool = False) -> str:
    """Return a value as text; never fails.

    Parameters
    ----------
    value
        As encoded, padding included; it stays.
    character_sets
        Value of Specific Character Set (0008,0005): one text with backslashes, or its values.
    is_person_name
        Whether "^" and "=" end the effect of escape sequences (PS3.5 6.1.2.5.3).
    """
    if b"\x1b" not in value and value.isascii():
        return value.decode("ascii")
    terms = _terms(character_sets)
    if b"\x1b" in value:
        return _decode_with_escapes(value, terms, is_person_name=is_person_name)
    return _decode_plainly(value, _likely_term(terms))


def encode(text: str, character_set: str) -> bytes:
    """Return text in a character set.

    Parameters
    ----------
    text
        With "^", "=" and backslashes where the value has delimiters.
    character_set
        Value of Specific Character Set; several terms are separated by backslashes.

    Raises
    ------
    Invalid
        When a character has no place there; `character_set_for` finds a set that has.
    Unsupported
        When the set is none of the standard.
    """
    if text.isascii():
        # Every repertoire of the standard has these at the same place but for yen and overline.
        return text.encode("ascii")
    terms = character_set.split("\\")
    for term in terms:
        if _known_term(term) is None:
            raise Unsupported(
                "A text was not encoded.",
                why="Its character set is not one of PS3.3 C.12.1.1.2.",
                remedy=f"Use {UTF_8}.",
            )
    known = tuple(map(_canonical_term, terms))
    encoded = (
        _encode_with_escapes(text, known) if len(known) > 1 else _encode_plainly(text, known[0])
    )
    if encoded is None:
        raise Invalid(
            "A text was not encoded.",
            why=f"It has characters that {character_set or 'the default repertoire'} lacks.",
            remedy=f"Use {UTF_8}.",
        )
    return encoded


def character_set_for(texts: Iterable[str], wanted: str = "") -> str:
    """Return a Specific Character Set in which every text can be written.

    Parameters
    ----------
    texts
        All texts of one answer or object.
    wanted
        The one that the asker used; kept if it is able to (PS3.4 C.4.1.1.3.2). Else Latin-1
        where that suffices, since every client knows it, else Unicode.
    """
    special = [text for text in texts if not text.isascii()]
    if not special:
        return wanted if _is_known(wanted) else ""
    for candidate in (wanted, LATIN_1):
        if candidate and _is_known(candidate) and all(_can_encode(t, candidate) for t in special):
            return candidate
    return UTF_8


def _is_known(character_set: str) -> bool:
    return all(_known_term(term) is not None for term in character_set.split("\\"))


def _can_encode(text: str, character_set: str) -> bool:
    try:
        encode(text, character_set)
    except Invalid:
        return False
    return True


# --- terms ---------------------------------------------------------------------------------------

_SPELLING = re.compile(r"ISO[ _-]*(2022)?[ _-]*IR[ _-]*(\d{1,3})", re.IGNORECASE)
_NICKNAMES: Final = {
    "UTF-8": UTF_8,
    "UTF8": UTF_8,
    "UTF 8": UTF_8,
    "ISO_8859-1": LATIN_1,
    "ISO 8859-1": LATIN_1,
    "ISO8859-1": LATIN_1,
    "LATIN1": LATIN_1,
    "ASCII": "ISO_IR 6",
    "GB2312": "GBK",
}


@lru_cache(maxsize=512)
def _known_term(term: str) -> str | None:
    """Return the defined term that a device meant, None where nobody can tell.

    Seen in the field: "ISO IR 100", "ISO-IR 192", "ISO 2022 IR100", "UTF-8", lower case.
    """
    text = term.strip(" \0").upper()
    if text in DEFINED_TERMS:
        return text
    if text in _NICKNAMES:
        return _NICKNAMES[text]
    if spelled := _SPELLING.fullmatch(text):
        number = spelled[2].lstrip("0")
        for candidate in (
            f"ISO 2022 IR {number}" if spelled[1] else f"ISO_IR {number}",
            f"ISO 2022 IR {number}",
        ):
            if candidate in DEFINED_TERMS:
                return candidate
    return None


def _canonical_term(term: str) -> str:
    return _known_term(term) or ""


def _terms(character_sets: Sequence[str] | str) -> tuple[str, ...]:
    """Return the terms as they were meant; an unknown one counts as absent."""
    given = character_sets.split("\\") if isinstance(character_sets, str) else character_sets
    return tuple(map(_canonical_term, given)) or ("",)


# --- without escape sequences --------------------------------------------------------------------

# JIS X 0208, JIS X 0212, KS X 1001 and GB 2312 take part in a value by escape sequences only. As
# a first term they mean ASCII until one comes; as a guess for bytes above 127, EUC.
_MULTI_BYTE_GUESS: Final = {
    "ISO 2022 IR 87": "euc_jp",
    "ISO 2022 IR 159": "euc_jp",
    "ISO 2022 IR 149": "euc_kr",
    "ISO 2022 IR 58": "gb18030",
}
_VISIBLE: Final = "pacsteward-visible"


def _show_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(f"\ufffd{byte:02X}" for byte in bad), error.end


codecs.register_error(_VISIBLE, _show_bytes)


def _likely_term(terms: Sequence[str]) -> str:
    """Return the term that bytes above 127 belong to where no escape sequence says so.

    It is the first, unless that is ASCII: then a console forgot its escape sequences.
    """
    if DEFINED_TERMS[terms[0]] == "ascii":
        return next((term for term in terms[1:] if term in _MULTI_BYTE_GUESS), terms[0])
    return terms[0]


def _decode_plainly(value: bytes, term: str) -> str:
    codec = _MULTI_BYTE_GUESS.get(term) or DEFINED_TERMS[term]
    if codec == "ascii":
        return _decode_undeclared(value)
    try:
        text = value.decode(codec)
    except UnicodeDecodeError:
        return _decode_wrongly_declared(value, codec)
    if codec == "latin-1" and _C1_CONTROLS.search(value):
        # The bytes between are controls that no text holds. Programs declare Latin-1 by habit and
        # write the code page of Windows, or the UTF-8 that they were given: MÜLLER has one in it.
        return _decode_undeclared(value)
    return text


_C1_CONTROLS = re.compile(rb"[\x80-\x9f]")


def _decode_undeclared(value: bytes) -> str:
    """Read bytes above 127 of a data set that declares no character set.

    What is well-formed UTF-8 is hardly ever anything else; the rest is Latin-1 most often.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("cp1252" if _C1_CONTROLS.search(value) else "latin-1", _VISIBLE)


def _decode_wrongly_declared(value: bytes, codec: str) -> str:
    """Read a value that its declared character set cannot have."""
    try:
        if codec != "utf-8":
            return value.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if codec == "utf-8":
        # Either cut within a character or another set: then hardly anything of it is UTF-8.
        text = value.decode(codec, _VISIBLE)
        bad = text.count("\ufffd")
        if bad * 2 > sum(not letter.isascii() for letter in text):
            return _decode_undeclared(value)
        return text
    return value.decode(codec, _VISIBLE)


# --- with escape sequences (ISO 2022) ------------------------------------------------------------


class _Set(NamedTuple):
    """A coded character set and how to switch to it (PS3.3 tables C.12-3 and C.12-4)."""

    term: str
    escape: bytes
    is_g1: bool
    """Whether it takes the bytes above 127; else those below."""
    width: int
    """Bytes of one character."""
    to_text: Callable[[bytes], str]
    to_bytes: Callable[[str], bytes]


def _plain(codec: str) -> tuple[Callable[[bytes], str], Callable[[str], bytes]]:
    return (lambda value: value.decode(codec, _VISIBLE)), (lambda text: text.encode(codec))


def _seven_bit(codec: str, escape: bytes) -> tuple[Callable[[bytes], str], Callable[[str], bytes]]:
    """Use a codec of Python that wants the escape sequence with the bytes."""
    back = b"\x1b(B"

    def to_text(value: bytes) -> str:
        try:
            return (escape + value + back).decode(codec)
        except UnicodeDecodeError:
            # Pair by pair, so that one wrong pair does not spoil the rest.
            return "".join(_pair(value[place : place + 2]) for place in range(0, len(value), 2))

    def _pair(pair: bytes) -> str:
        try:
            return (escape + pair + back).decode(codec)
        except UnicodeDecodeError:
            return "".join(f"\ufffd{byte:02X}" for byte in pair)

    def to_bytes(text: str) -> bytes:
        encoded = text.encode(codec)
        if (
            not (encoded.startswith(escape) and encoded.endswith(back))
            or encoded.count(b"\x1b") > 2
        ):
            raise UnicodeEncodeError(codec, text, 0, len(text), "not in this set")
        return encoded[len(escape) : -len(back)]

    return to_text, to_bytes


_SETS: Final[tuple[_Set, ...]] = (
    _Set("ISO 2022 IR 6", b"\x1b(B", False, 1, *_plain("ascii")),
    _Set("ISO 2022 IR 100", b"\x1b-A", True, 1, *_plain("latin-1")),
    _Set("ISO 2022 IR 101", b"\x1b-B", True, 1, *_plain("iso8859-2")),
    _Set("ISO 2022 IR 109", b"\x1b-C", True, 1, *_plain("iso8859-3")),
    _Set("ISO 2022 IR 110", b"\x1b-D", True, 1, *_plain("iso8859-4")),
    _Set("ISO 2022 IR 144", b"\x1b-L", True, 1, *_plain("iso8859-5")),
    _Set("ISO 2022 IR 127", b"\x1b-G", True, 1, *_plain("iso8859-6")),
    _Set("ISO 2022 IR 126", b"\x1b-F", True, 1, *_plain("iso8859-7")),
    _Set("ISO 2022 IR 138", b"\x1b-H", True, 1, *_plain("iso8859-8")),
    _Set("ISO 2022 IR 148", b"\x1b-M", True, 1, *_plain("iso8859-9")),
    _Set("ISO 2022 IR 203", b"\x1b-b", True, 1, *_plain("iso8859-15")),
    _Set("ISO 2022 IR 166", b"\x1b-T", True, 1, *_plain("iso8859-11")),
    _Set("ISO 2022 IR 13", b"\x1b)I", True, 1, *_plain("shift_jis")),
    _Set("ISO 2022 IR 13", b"\x1b(J", False, 1, *_plain("ascii")),
    _Set("ISO 2022 IR 87", b"\x1b$B", False, 2, *_seven_bit("iso2022_jp", b"\x1b$B")),
    _Set("ISO 2022 IR 159", b"\x1b$(D", False, 2, *_seven_bit("iso2022_jp_1", b"\x1b$(D")),
    _Set("ISO 2022 IR 149", b"\x1b$)C", True, 2, *_plain("euc_kr")),
    _Set("ISO 2022 IR 58", b"\x1b$)A", True, 2, *_plain("gb2312")),
    # JIS C 6226-1978, forerunner of JIS X 0208; not in the standard, and sent by old consoles.
    _Set("", b"\x1b$@", False, 2, *_seven_bit("iso2022_jp", b"\x1b$@")),
)
_BY_ESCAPE: Final = {one.escape: one for one in _SETS}
_ESCAPE = re.compile(rb"\x1b(?:\$[()]?[@-~]|[ -/][@-~])")
_ASCII: Final = _BY_ESCAPE[b"\x1b(B"]
_ROMAJI: Final = _BY_ESCAPE[b"\x1b(J"]

# PS3.5 6.1.2.5.3: after these the initial sets hold again.
_RESETTING: Final = frozenset(b"\\\r\n\f\t")
_RESETTING_IN_NAMES: Final = _RESETTING | frozenset(b"^=")


def _initial_g1(terms: Sequence[str]) -> _Set | None:
    """Return the set that has the bytes above 127 before any escape sequence: that of value 1."""
    number = terms[0].rpartition(" ")[2]
    for one in _SETS:
        if one.is_g1 and one.width == 1 and one.term == f"ISO 2022 IR {number}":
            return one
    return None


def _initial_g0(terms: Sequence[str]) -> _Set:
    """Return the set of the bytes below 128 before any escape sequence."""
    return _ROMAJI if terms[0].endswith("IR 13") else _ASCII


def _decode_with_escapes(value: bytes, terms: Sequence[str], *, is_person_name: bool) -> str:
    """Decode run by run. Sets that are used without being declared are understood as well."""
    resetting = _RESETTING_IN_NAMES if is_person_name else _RESETTING
    first_g1 = _initial_g1(terms)
    g0, g1 = _ASCII, first_g1
    texts: list[str] = []
    place = 0
    while place < len(value):
        if value[place] == 0x1B:
            escape = _ESCAPE.match(value, place)
            chosen = _BY_ESCAPE.get(escape[0]) if escape else None
            if chosen is None:
                texts.append("\ufffd1B")
                place += 1
                continue
            if chosen.is_g1:
                g1 = chosen
            else:
                g0 = chosen
            place += len(chosen.escape)
            continue
        end = _end_of_run(value, place, g0)
        run = value[place:end]
        if run[0] >= 0x80:
            texts.append(g1.to_text(run) if g1 else _decode_plainly(run, terms[0]))
        elif g0.width == 2 and run[0] > 0x20:
            texts.append(g0.to_text(run))
        else:
            texts.append(run.decode("ascii"))
            if resetting.intersection(run):
                g0, g1 = _ASCII, first_g1
        place = end
    return "".join(texts)


def _end_of_run(value: bytes, place: int, g0: _Set) -> int:
    """Return where the bytes end that one set decodes: one delimiter, or a run of one kind."""
    first = value[place]
    if first >= 0x80:
        return _HIGH_RUN.match(value, place).end()  # type: ignore[union-attr]
    if g0.width == 2 and first > 0x20:
        # In these sets a byte that looks like a delimiter is half a character.
        run = _PAIRS.match(value, place)
        return run.end() if run else place + 1
    return _LOW_RUN.match(value, place).end() if first not in _STOPS else place + 1  # type: ignore[union-attr]


_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_LOW_RUN = re.compile(rb"[^\x1b\x80-\xff\\\r\n\f\t^=]+")
_STOPS: Final = frozenset(b"\\\r\n\f\t^=")
_PAIRS = re.compile(rb"(?:[\x21-\x7e]{2})+")


def _encode_plainly(text: str, term: str) -> bytes | None:
    if term in _MULTI_BYTE_GUESS:
        # A single term with code extensions is not allowed for these; write as if after ASCII.
        return _encode_with_escapes(text, ("", term))
    try:
        encoded = text.encode(DEFINED_TERMS[term])
    except UnicodeEncodeError:
        return None
    if term.endswith("IR 13") and len(encoded) != len(text):
        return None  # Shift JIS has kanji in two bytes; JIS X 0201 has not.
    return encoded


def _encode_with_escapes(text: str, terms: Sequence[str]) -> bytes | None:
    """Encode with the first declared set that has each character.

    Every delimiter is preceded by a return to the initial state, as PS3.5 6.1.2.5.3 demands of
    the writer; for all delimiters, since the value representation is not known here.
    """
    first_g0, first_g1 = _initial_g0(terms), _initial_g1(terms)
    numbers = {term.rpartition(" ")[2] for term in terms} - {""}
    usable = [one for one in _SETS if one.term.rpartition(" ")[2] in numbers]
    encoded = bytearray()
    g0, g1 = first_g0, first_g1
    for letter in text:
        if letter.isascii():
            if g0 is not first_g0:
                encoded += first_g0.escape
                g0 = first_g0
            encoded += letter.encode()
            if letter in "\\^=\r\n\f\t":
                g1 = first_g1
            continue
        found = _find(letter, usable, first_g1)
        if found is None:
            return None
        one, code = found
        if one.is_g1:
            if one is not g1:
                encoded += one.escape
                g1 = one
        elif one is not g0:
            encoded += one.escape
            g0 = one
        encoded += code
    if g0 is not first_g0:
        encoded += first_g0.escape
    return bytes(encoded)


def _find(letter: str, usable: Sequence[_Set], first: _Set | None) -> tuple[_Set, bytes] | None:
    """Return a set that has a letter, with its bytes; the initial one if it can."""
    for one in sorted(usable, key=lambda candidate: candidate is not first):
        try:
            code = one.to_bytes(letter)
        except UnicodeEncodeError:
            continue
        if len(code) == one.width and (code[0] >= 0x80) is one.is_g1:
            return one, code
    return None
