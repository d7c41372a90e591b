"""Sealing the audit book: every hour its end is signed with a key that is not in the database.

Who can write to the database can make a chain that fits together again. The seals are what they
cannot make: they are signed with a file of `secrets`.
"""

from __future__ import annotations

from typing import Final

from pacsteward.feature import House
from pacsteward.security import ChainReport

SEAL_EVERY_S: Final = 3600.0
_KEY: Final = "audit-seal"


def seal(house: House) -> int:
    """Sign the present end of the book; return its number."""
    return house.audit.seal(house.secrets.get_or_create(_KEY))


def verify(house: House, *, newest: int | None = None) -> ChainReport:
    """Walk the chain, or its newest part, and compare it with the seals."""
    return house.audit.verify(seal_key=house.secrets.get_or_create(_KEY), newest=newest)
