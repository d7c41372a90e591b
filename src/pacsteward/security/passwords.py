"""Passwords: what is asked of them, and how they are kept.

References
----------
RFC 9106 — Argon2; NIST SP 800-63B 5.1.1.2 — length counts, composition rules do not; Unicode is
normalised before hashing.
"""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pacsteward.base.errors import Invalid
from pacsteward.base.ids import new_secret

LENGTH_MAX = 256
"""Longer ones would only make the hash work."""


class Passwords:
    """Hashes and checks passwords, a few at a time.

    Parameters
    ----------
    length_min
        Shortest password that may be chosen, in characters.
    checks_max
        How many are hashed at once; each takes 64 MiB and a sixth of a second.
    """

    def __init__(self, *, length_min: int, checks_max: int) -> None:
        self._length_min = length_min
        self._slots = threading.BoundedSemaphore(checks_max)
        self._hasher = PasswordHasher()
        self._nobody = ""

    def hash(self, password: str) -> str:
        """Return what is kept of `password`."""
        with self._slots:
            return self._hasher.hash(_normal(password))

    def is_right(self, kept: str, password: str) -> bool:
        """Say whether `password` is the one that `kept` was made of.

        An empty `kept`, for a person who does not exist, takes as long as a wrong password, so
        that nobody learns by the clock which names exist.
        """
        if len(password) > LENGTH_MAX:
            return False
        if not kept:
            self._nobody = self._nobody or self.hash(new_secret())
        with self._slots:
            try:
                return self._hasher.verify(kept or self._nobody, _normal(password)) and bool(kept)
            except (VerificationError, InvalidHashError):
                return False

    def is_outdated(self, kept: str) -> bool:
        """Say whether `kept` was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(kept)

    def check_choice(self, name: str, password: str) -> None:
        """Raise `Invalid` when `password` is too easy for the person called `name`."""
        faults = {
            f"It has {len(password)} characters.": len(password) < self._length_min,
            f"It is longer than {LENGTH_MAX} characters.": len(password) > LENGTH_MAX,
            "It holds the person's own name.": len(name) > 3 and name in password.lower(),
            "It is made of very few different characters.": len(set(password)) < 5,
        }
        for why, is_so in faults.items():
            if is_so:
                raise Invalid(
                    "That password cannot be taken.",
                    why=why,
                    remedy=f"Take at least {self._length_min} characters; a few words do well.",
                )


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)
