"""Person names: their parts, their normal form for matching, and a tolerant comparison.

A value of VR PN has up to three component groups (alphabetic, ideographic, phonetic) separated by
"=", each with five components separated by "^" (PS3.5 6.2.1). Machines write them in capitals,
without accents, with the given name first; people look for them as they heard them. So:

- `normalise` gives the form that two spellings of one name share; the index holds it and queries
  are brought to it, so that literal and wild card matching ignore case and accents, as
  PS3.4 C.2.2.2.1 leaves to the provider.
- `fuzzy_matches` is the fuzzy semantic matching that a client may negotiate (PS3.4 C.2.2.2.1.1,
  PS3.18 8.3.4.2): word by word, in any order, a beginning is enough, and a misheard spelling or a
  slip of the keyboard does not hide the patient.
- `display` gives the form for people to read.

References
----------
PS3.5 6.2.1 and Annexes H to J; PS3.4 C.2.2.2.1.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from rapidfuzz.distance import DamerauLevenshtein, JaroWinkler


@dataclass(frozen=True, slots=True)
class ComponentGroup:
    """One way of writing a name; every component may be empty (PS3.5 6.2.1.1)."""

    family_name: str = ""
    given_name: str = ""
    middle_name: str = ""
    name_prefix: str = ""
    name_suffix: str = ""

    def __str__(self) -> str:
        return "^".join(self._components()).rstrip("^")

    def __bool__(self) -> bool:
        return any(self._components())

    def _components(self) -> tuple[str, str, str, str, str]:
        return (
            self.family_name,
            self.given_name,
            self.middle_name,
            self.name_prefix,
            self.name_suffix,
        )


@dataclass(frozen=True, slots=True)
class PersonName:
    """A name in up to three scripts."""

    alphabetic: ComponentGroup = field(default_factory=ComponentGroup)
    ideographic: ComponentGroup = field(default_factory=ComponentGroup)
    phonetic: ComponentGroup = field(default_factory=ComponentGroup)

    def __str__(self) -> str:
        return "=".join(map(str, self.groups)).rstrip("=")

    def __bool__(self) -> bool:
        return any(self.groups)

    @property
    def groups(self) -> tuple[ComponentGroup, ComponentGroup, ComponentGroup]:
        """The groups in the order of the value."""
        return (self.alphabetic, self.ideographic, self.phonetic)


def parse(text: str) -> PersonName:
    """Take a value of VR PN apart. Never fails: what exceeds the form is kept in the last part."""
    groups = [_parse_group(group) for group in text.split("=", 2)]
    return PersonName(*groups)


def _parse_group(text: str) -> ComponentGroup:
    components = [component.strip() for component in text.split("^", 4)]
    # More than five components are not allowed; the surplus stays with the suffix, so that a
    # name is never shown shorter than it was sent.
    if len(components) == 5:
        components[4] = components[4].replace("^", " ").strip()
    return ComponentGroup(*components)


def display(text: str) -> str:
    """Return a name for people: ``DOE, John Q. (山田 太郎)``, "" for an empty one.

    The family name stays in front and is set off by a comma, since a reader must never have to
    guess which of the two words is the family's. In the other groups it always comes first.
    """
    groups = [group for group in parse(text).groups if group]
    if not groups:
        return ""
    first = _display_group(groups[0])
    others = [_display_group(group, set_off=" ") for group in groups[1:]]
    return f"{first} ({', '.join(others)})" if others else first


def _display_group(group: ComponentGroup, set_off: str = ", ") -> str:
    rest = " ".join(
        part
        for part in (group.name_prefix, group.given_name, group.middle_name, group.name_suffix)
        if part
    )
    return set_off.join(part for part in (group.family_name, rest) if part)


# Letters that Unicode does not decompose into a base letter and an accent.
_BASE_LETTERS: Final = str.maketrans(
    {
        "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l",
        "ŋ": "n", "þ": "th", "ŧ": "t", "ĸ": "k",
        "'": None, "’": None, "ʼ": None, "`": None, "´": None,
        "-": " ", "‐": " ", "–": " ", ",": " ",
    }
)  # fmt: skip
_SPACES = re.compile(r"\s+")
_SPACES_AT_DELIMITER = re.compile(r" ?([\^=\\]) ?")
_EMPTY_TAIL = re.compile(r"\^+(?==|\\|$)")


@lru_cache(maxsize=4096)
def normalise(text: str) -> str:
    """Return the form that different spellings of one name share.

    Case, accents, apostrophes, widths of letters and superfluous delimiters and spaces are gone;
    hyphens are spaces. Component ("^"), group ("=") and value delimiters stay, and so do the
    wild cards "*" and "?", so a query pattern is brought to the same form by the same call.
    """
    folded = text.casefold()
    if not folded.isascii():
        # Half-width kana and full-width Latin letters become the usual ones (NFKD). Accents are
        # dropped in the scripts where they are accents (below U+0700); the voice marks of kana
        # and the vowels of Indic scripts are letters and are put together again (NFC).
        letters = (
            letter
            for letter in unicodedata.normalize("NFKD", folded)
            if not (unicodedata.combining(letter) and letter < "\u0700")
        )
        folded = unicodedata.normalize("NFC", "".join(letters)).casefold()
    folded = _SPACES.sub(" ", folded.translate(_BASE_LETTERS)).strip()
    folded = _SPACES_AT_DELIMITER.sub(r"\1", folded)
    return _EMPTY_TAIL.sub("", folded).rstrip("=")


def ways_to_meet(pattern: str) -> tuple[str, ...]:
    """Return the patterns of whole names that meet a pattern, which may name component groups.

    A group that the pattern leaves empty, or gives as nothing but a star, says nothing about that
    group, not even that there is one: who asks for ``Yamada^Tarou=山田^太郎``, ``=山田^太郎`` or
    ``Yamada*=*`` means the patient however the rest is written.

    Parameters
    ----------
    pattern
        From `normalise`.
    """
    if "=" not in pattern:
        return (pattern,)
    groups = [group if group.strip("*") else "" for group in pattern.split("=", 2)]
    while groups and not groups[-1]:
        groups.pop()
    if not groups:
        return ("*",)
    way = "=".join(group or "*" for group in groups)
    if len(groups) == 3 or way.endswith("*"):
        return (way,)
    return way, f"{way}=*"


def fuzzy_matches(query: str, name: str) -> bool:
    """Whether a person may have meant this name (fuzzy semantic matching).

    Every word of the query must find a word of its own in the name, in any order and in one and
    the same component group: as its beginning, by sound, or with a small slip in it. Wild cards
    in the query are ignored, since every word is a beginning already. Titles in the name need not
    be asked for.

    Parameters
    ----------
    query, name
        Values of VR PN, in any spelling.
    """
    wanted = list(_words(normalise(query.replace("*", " ").replace("?", " "))))
    if not wanted:
        return True
    groups = normalise(name).replace("\\", "=").split("=")
    return any(_all_find_a_partner(wanted, list(_words(group))) for group in groups)


def _words(normalised: str) -> Iterator[str]:
    return filter(None, re.split(r"[\^= \\.]+", normalised))


def _all_find_a_partner(wanted: list[str], offered: list[str]) -> bool:
    """Pair each wanted word with a different offered one, the best pairs first."""
    if len(wanted) > len(offered):
        return False
    # Long words say more; let them choose first.
    for word in sorted(wanted, key=len, reverse=True):
        partner = max(offered, key=lambda candidate: _likeness(word, candidate))
        if _likeness(word, partner) < _ENOUGH:
            return False
        offered.remove(partner)
    return True


_ENOUGH: Final = 0.88


def _likeness(word: str, candidate: str) -> float:
    """Return 1.0 for the same word, nearly that for a beginning, 0.0 for another word."""
    if word == candidate:
        return 1.0
    if candidate.startswith(word):
        return 0.99
    if len(word) < 4:
        # Short words (Li, Ng, Ray) have too many neighbours for any tolerance.
        return 0.0
    slips = DamerauLevenshtein.distance(word, candidate)
    # Jane and John sound alike without their vowels; the letters must be near as well.
    if slips <= len(word) // 2 and word.isascii() and sound(word) == sound(candidate):
        return 0.95
    # One slip for four to seven letters, two from eight on; swapped neighbours are one slip.
    # The first letter is the one that people get right.
    if slips <= (1 if len(word) < 8 else 2) and word[0] == candidate[0]:
        return max(_ENOUGH, float(JaroWinkler.similarity(word, candidate)))
    return 0.0


# Spellings of one sound in the languages of European names, longest first.
_SOUNDS: Final = (
    ("tsch", "ç"), ("sch", "s"), ("tch", "ç"), ("chs", "x"), ("ck", "k"), ("cz", "ç"),
    ("cs", "ç"), ("sz", "s"), ("sh", "s"), ("ch", "ç"), ("ce", "se"), ("ci", "si"), ("cy", "si"),
    ("c", "k"), ("ph", "f"), ("th", "t"), ("dt", "t"), ("gh", "g"), ("kn", "n"), ("wr", "r"),
    ("qu", "k"), ("tz", "z"), ("ts", "z"), ("q", "k"), ("w", "f"), ("v", "f"), ("j", "y"),
    ("z", "s"),
)  # fmt: skip
_SILENT_H = re.compile(r"(?<=[aeiouy])h(?![aeiouy])")
_DOUBLE = re.compile(r"(.)\1+")
_INNER_VOWELS = re.compile(r"(?<!^)[aeiouy]+")


@lru_cache(maxsize=4096)
def sound(word: str) -> str:
    """Return a key that words of like sound share: Meyer, Maier, Mayr; Schmidt, Schmitt.

    Only the first vowel is kept, as its class; consonants are brought to one spelling. Made for
    Latin letters; other scripts come back without doubled letters only.
    """
    text = _SILENT_H.sub("", word)
    for spelling, letter in _SOUNDS:
        text = text.replace(spelling, letter)
    text = _DOUBLE.sub(r"\1", text)
    return _DOUBLE.sub(r"\1", _INNER_VOWELS.sub("a", text)).rstrip("a")
