"""SQL and `matching.matches` mean the same: compared on thousands of odd names and patterns."""

from __future__ import annotations

import random
from typing import Any

from pacsteward.archive.find import Finder
from pacsteward.archive.likeness import NameBook
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.dicom.attributes import Level, tag_of, vr_of
from pacsteward.dicom.matching import Criterion, Query, Single, Wildcard, matches, parse_criterion
from pacsteward.dicom.names import fuzzy_matches, normalise

STUDY_UID = tag_of("StudyInstanceUID")
LETTERS = "abAB éßæÉ^^_%[]-'\"山太郎ー😀\U0010ffff.~"


def odd(dice: random.Random, letters: str, longest: int) -> str:
    return "".join(dice.choice(letters) for _ in range(dice.randint(0, longest))).strip()


def odd_name(dice: random.Random) -> str:
    groups = [odd(dice, LETTERS, 6) for _ in range(dice.choice((1, 1, 1, 2)))]
    return "=".join(groups).strip("=")


def pattern_of(dice: random.Random, values: list[str]) -> str:
    """Make a pattern that may match something: a stored value with holes in it."""
    text = list(dice.choice(values)) if dice.random() < 0.8 else list(odd(dice, LETTERS, 5))
    for _ in range(dice.randint(0, 3)):
        place = dice.randint(0, len(text))
        text[place : place + dice.randint(0, 3)] = [dice.choice("*?*")]
    return "".join(text)


def plain(criterion: Criterion) -> Criterion:
    """Bring a criterion to the form in which descriptions are compared."""
    if isinstance(criterion, Single):
        return Single(normalise(criterion.value))
    if isinstance(criterion, Wildcard):
        return Wildcard(normalise(criterion.pattern))
    return criterion


def test_texts_and_names_match_as_they_should(database: Database, index: Any) -> None:
    dice = random.Random(4711)
    stored: dict[str, dict[str, str]] = {}
    for number in range(60):
        uid = f"1.9.{number}"
        stored[uid] = {
            "PatientName": odd_name(dice),
            "PatientID": odd(dice, LETTERS, 6),
            "AccessionNumber": odd(dice, LETTERS, 6),
            "StudyDescription": odd(dice, LETTERS, 8),
        }
        index.study(
            uid,
            patient_name=stored[uid]["PatientName"],
            patient_id=stored[uid]["PatientID"],
            accession_number=stored[uid]["AccessionNumber"],
            study_description=stored[uid]["StudyDescription"],
        )
    finder = Finder(database, NameBook(ManualClock().monotonic), timeout_s=10)
    hits = 0
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyDescription"):
        tag, vr = tag_of(keyword), vr_of(tag_of(keyword))
        values = [study[keyword] for study in stored.values()]
        for _ in range(120):
            pattern = pattern_of(dice, values)
            criterion = parse_criterion(tag, vr, pattern)
            is_description = keyword == "StudyDescription"
            if not normalise(pattern):
                continue  # nothing to be compared with is left of it
            expected = {
                uid
                for uid, study in stored.items()
                if (
                    matches(plain(criterion), normalise(study[keyword]), vr)
                    if is_description
                    else matches(criterion, study[keyword], vr)
                )
            }
            found = {
                one.values[STUDY_UID] for one in finder.find(Query(Level.STUDY, {tag: criterion}))
            }
            assert found == expected, (keyword, pattern)
            hits += bool(expected)
    assert hits > 200


def test_fuzzy_names_match_as_they_should(database: Database, index: Any) -> None:
    dice = random.Random(11)
    syllables = ("mey", "mai", "er", "schmi", "dt", "tt", "jo", "han", "ann", "e", "li", "ng", "ö")
    names = {
        f"1.8.{number}": "^".join(
            "".join(dice.choice(syllables) for _ in range(dice.randint(1, 3))) for _ in range(2)
        )
        for number in range(150)
    }
    for uid, name in names.items():
        index.study(uid, patient_name=name)
    finder = Finder(database, NameBook(ManualClock().monotonic), timeout_s=10)
    tag = tag_of("PatientName")
    hits = 0
    for _ in range(60):
        letters = list(dice.choice(list(names.values())).replace("^", " "))
        place = dice.randrange(len(letters))
        letters[place : place + 1] = dice.choice(("", "a", "r", "tt", letters[place]))
        wanted = "".join(letters)
        criterion = parse_criterion(tag, "PN", wanted)
        found = {
            one.values[STUDY_UID]
            for one in finder.find(Query(Level.STUDY, {tag: criterion}, fuzzy=True))
        }
        expected = {
            uid
            for uid, name in names.items()
            if fuzzy_matches(wanted, name) or matches(criterion, name, "PN")
        }
        assert found == expected, wanted
        hits += bool(expected)
    assert hits > 30
