"""Value representations: what PS3.5 6.2 says of each, as tables that several modules share."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

TEXT: Final = frozenset(
    {
        "AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI",
        "UR", "UT",
    }
)  # fmt: skip
"""Values are characters."""

INTEGERS: Final = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
FLOATS: Final = frozenset({"FL", "FD"})
BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Values are bytes or words without a form of their own."""

ALL: Final = TEXT | INTEGERS | FLOATS | BINARY | {"AT", "SQ"}

NUMBER_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
)
"""Codes of `struct` for binary numbers."""

WORD_SIZES: Final[Mapping[str, int]] = MappingProxyType(
    {"OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2}
)
"""Bytes of one word of those binary values that have a byte order."""

VALUE_SIZES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "AT": 4,
        **WORD_SIZES,
        **{vr: struct.calcsize(f"<{code}") for vr, code in NUMBER_CODES.items()},
    }
)
"""Bytes of one value, or word, of those that are neither characters nor single bytes."""

SINGLE_VALUED: Final = frozenset({"LT", "ST", "UT", "UR"})
"""A backslash is a letter in these, and leading spaces count (6.2, 6.4)."""

CHARACTER_SET: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Specific Character Set governs these; the others are of the default repertoire (6.1.2.2)."""

SHORT_LENGTH: Final = frozenset(
    {
        "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO", "LT", "PN", "SH", "SL",
        "SS", "ST", "TM", "UI", "UL", "US",
    }
)  # fmt: skip
"""In explicit VR the length has 16 bits; all others, those to come included, have two reserved
bytes and 32 bits (7.1.2)."""
