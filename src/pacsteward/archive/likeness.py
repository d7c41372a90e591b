"""Names that are like what somebody typed, for fuzzy semantic matching.

The database cannot judge likeness, and asking `names.fuzzy_matches` about every patient would take
seconds. So a process that is asked keeps the distinct names of the index in memory, about 80 bytes
each, with a list of the names that hold each word: the words of a million patients are some tens of
thousands, quickly compared. What is found here is a list of names; the query then asks for those.

References
----------
PS3.4 C.2.2.2.1.1; PS3.18 8.3.4.2.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from rapidfuzz import process
from rapidfuzz.distance import DamerauLevenshtein
from sqlalchemy import Connection

from pacsteward.archive.columns import Place
from pacsteward.dicom.names import fuzzy_matches, normalise, sound

FRESH_S = 600.0
"""Names of studies that were added are read before each answer; corrected ones after so long."""

_SEPARATORS = re.compile(r"[\^= \\.]+")


class NameBook:
    """The distinct patient names of the index; share one in a process.

    Parameters
    ----------
    monotonic
        Seconds on a scale that never jumps.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._names: list[str] = []
        self._known: set[str] = set()
        self._of_word: defaultdict[str, array[int]] = defaultdict(lambda: array("I"))
        self._of_sound: defaultdict[str, list[str]] = defaultdict(list)
        self._last_key = 0
        self._began_at = self._monotonic()

    def like(self, connection: Connection, place: Place, wanted: str) -> list[str]:
        """Return the names in a column, in normal form, that somebody may have meant.

        Parameters
        ----------
        connection
            Reads the index.
        place
            Of an attribute of VR PN.
        wanted
            What was typed.
        """
        column = place.words or place.column
        if not column.endswith(".patient_name_words"):
            return _like_in_column(connection, column, wanted)
        with self._lock:
            self._read_on(connection)
            return [name for name in self._candidates(wanted) if fuzzy_matches(wanted, name)]

    def _read_on(self, connection: Connection) -> None:
        if self._monotonic() - self._began_at > FRESH_S:
            self._clear()
        rows = connection.exec_driver_sql(
            f"SELECT study_key, patient_name_words FROM study WHERE study_key > {self._last_key} "  # noqa: S608
            "ORDER BY study_key"
        )
        for key, name in rows:
            self._last_key = key
            if name and name not in self._known:
                self._add(name)

    def _add(self, name: str) -> None:
        number = len(self._names)
        self._names.append(name)
        self._known.add(name)
        for word in set(_words(name)):
            if word not in self._of_word:
                self._of_sound[sound(word)].append(word)
            self._of_word[word].append(number)

    def _candidates(self, wanted: str) -> Iterable[str]:
        """Give the names that hold, for each word asked for, a word that may stand for it."""
        found: set[int] | None = None
        for word in _words(_without_wildcards(wanted)):
            numbers = {
                number
                for candidate in self._words_like(word)
                for number in self._of_word[candidate]
            }
            found = numbers if found is None else found & numbers
            if not found:
                return []
        return [self._names[number] for number in sorted(found or ())]

    def _words_like(self, word: str) -> set[str]:
        """Give at least the words that `names.fuzzy_matches` can accept for `word`."""
        words = {candidate for candidate in self._of_word if candidate.startswith(word)}
        if len(word) < 4:
            return words
        words.update(self._of_sound.get(sound(word), ()))
        slips = process.extract_iter(
            word, self._of_word.keys(), scorer=DamerauLevenshtein.distance, score_cutoff=2
        )
        words.update(candidate for candidate, _distance, _key in slips)
        return words


def _like_in_column(connection: Connection, column: str, wanted: str) -> list[str]:
    """Judge every distinct name of a column: physicians and operators are not many."""
    table = column.partition(".")[0]
    rows = connection.exec_driver_sql(f"SELECT DISTINCT {column} FROM {table}")  # noqa: S608
    return [name for (name,) in rows if name and fuzzy_matches(wanted, name)]


def _words(name: str) -> Iterator[str]:
    return filter(None, _SEPARATORS.split(name))


def _without_wildcards(text: str) -> str:
    return normalise(text.replace("*", " ").replace("?", " "))
