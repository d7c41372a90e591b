"""The query/retrieve information models and the rules of their levels.

References
----------
PS3.4 C.6.1 and C.6.2 — Patient Root and Study Root; C.4.1.1.3.1, C.4.2.1.4 — in a hierarchical
question the unique key of every level above the asked one is a single value.
PS3.4 C.6.3 (retired) — Patient/Study Only, which older workstations still ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pacsteward.base.errors import Invalid
from pacsteward.dicom.attributes import Level, keyword_of

UNIQUE_KEYS: Mapping[Level, int] = MappingProxyType(
    {
        Level.PATIENT: 0x00100020,
        Level.STUDY: 0x0020000D,
        Level.SERIES: 0x0020000E,
        Level.IMAGE: 0x00080018,
    }
)


@dataclass(frozen=True, slots=True)
class Model:
    """An information model: its name, and its levels from the root down."""

    name: str
    levels: tuple[Level, ...]

    def level(self, text: str) -> Level:
        """Read Query/Retrieve Level (0008,0052).

        Raises
        ------
        Invalid
            It is missing, or no level of this model.
        """
        word = text.strip().upper()
        if word in self.levels:
            return Level(word)
        found = f"It holds {word[:16]!r}" if word else "It is missing"
        raise Invalid(
            "The Query/Retrieve Level (0008,0052) is not one of this model.",
            why=f"{found}; {self.name} has {', '.join(self.levels)}.",
            remedy="Send one of these levels.",
        )

    def above(self, level: Level) -> tuple[Level, ...]:
        """List the levels above `level`, from the root down."""
        return self.levels[: self.levels.index(level)]

    def check_unique_keys(self, level: Level, keys: Mapping[int, str]) -> None:
        """Insist on one value for the unique key of every level above `level`.

        Raises
        ------
        Invalid
            One is missing, empty, a list or a wildcard.
        """
        for upper in self.above(level):
            tag = UNIQUE_KEYS[upper]
            value = keys.get(tag, "")
            if not value or "\\" in value or (upper is Level.PATIENT and set(value) & set("*?")):
                raise Invalid(
                    f"{keyword_of(tag)} must hold one value in a {level} question.",
                    why="Relational queries were not negotiated, and this one is not hierarchical.",
                    remedy="Name the level above, negotiate relational queries, or let this peer "
                    "leave levels out: Connections → the peer → lenient in levels.",
                )


PATIENT_ROOT = Model("Patient Root", (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE))
STUDY_ROOT = Model("Study Root", (Level.STUDY, Level.SERIES, Level.IMAGE))
PATIENT_STUDY_ONLY = Model("Patient/Study Only", (Level.PATIENT, Level.STUDY))


def _by_uid(last_component: int) -> Mapping[str, Model]:
    roots = ((1, PATIENT_ROOT), (2, STUDY_ROOT), (3, PATIENT_STUDY_ONLY))
    return MappingProxyType(
        {f"1.2.840.10008.5.1.4.1.2.{root}.{last_component}": model for root, model in roots}
    )


FIND_MODELS = _by_uid(1)
MOVE_MODELS = _by_uid(2)
GET_MODELS = _by_uid(3)
"""SOP class UID to model, for each of the three services (PS3.4 C.4, tables C.6-x)."""
