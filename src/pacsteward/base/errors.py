"""What went wrong, as a small document: what happened, why, what to do.

Every error that leaves a floor is one of eight kinds. A kind says who has to act, and each door
translates it once into its own protocol: ``dicom/status.py`` (DIMSE status), ``web/problem.py``
(HTTP problem document) and ``output.py`` (exit code). The rest of the house raises the kind and
never thinks about protocols.

No patient data belongs in an error: name objects by UID, peers by AE title.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final


class Kind(StrEnum):
    """Who has to act, in one word."""

    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    FORBIDDEN = "forbidden"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    BROKEN = "broken"


class PacstewardError(Exception):
    """Base of the eight kinds; raise one of its subclasses.

    Parameters
    ----------
    what
        One sentence: what happened, with the identifiers that let a reader find the object.
    why
        One sentence: the cause, with what was found and what was expected.
    remedy
        One sentence: what the reader can do now.
    """

    kind: ClassVar[Kind] = Kind.BROKEN

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.remedy) if part)


class Invalid(PacstewardError):
    """The sender must change what it sent."""

    kind = Kind.INVALID


class Unsupported(PacstewardError):
    """We do not speak that: a SOP class, a transfer syntax, a media type."""

    kind = Kind.UNSUPPORTED


class NotFound(PacstewardError):
    """No such object."""

    kind = Kind.NOT_FOUND


class Conflict(PacstewardError):
    """The request clashes with what is already here."""

    kind = Kind.CONFLICT


class Forbidden(PacstewardError):
    """Not allowed for this actor or peer."""

    kind = Kind.FORBIDDEN


class Exhausted(PacstewardError):
    """Space, a quota or a limit is used up."""

    kind = Kind.EXHAUSTED


class Unavailable(PacstewardError):
    """A thing that is needed is away; the same request may succeed later."""

    kind = Kind.UNAVAILABLE


class Broken(PacstewardError):
    """Our own fault."""

    kind = Kind.BROKEN


CORRECTABLE: Final = (Invalid, NotFound, Conflict, Forbidden)
"""What the one who asks can put right: a form is shown again with the reason. All else, such as a
full disk, is for the door to tell."""


class WouldWait(Exception):
    """What was asked cannot be done at once, and whoever asked may not wait.

    The rule of the event loop, which serves everybody: nothing on it waits, for a disk, a lock, a
    database elsewhere or long work. Yet most of what is asked for lies in memory, and to hand it to
    a thread and back costs more than all that is done for it. So many a function has a namesake
    that ends in `_at_once`, for event loops. It gives the same answer, after the same checks,
    within a few milliseconds; or it raises this, and has changed and told nothing. Then the
    function itself is asked, from a thread. Nothing is wrong, so no door ever tells it.

    What is in error is best left to the thread as well, where it is found again and can be said.
    """
