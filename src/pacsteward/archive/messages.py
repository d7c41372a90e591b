"""What the keeper and other processes say to each other: heads, results, errors.

Who speaks, and with whom::

    what associations bring   arriving ─┐
                                        ├ hand_in ─ line ◀─ memory ─▶ sharing ─┐
    what STOW-RS brings       courier ──┘           (arena)       transfers    ├ keeper
    all else, and verbs       client ◀────── copied by a socket ──▶ handover ──┘

On the left are other processes. `arriving` and `courier` receive into an `arena`, memory that the
keeper has mapped; `hand_in` examines what is whole, `ready` writes down what was found and where it
lies, and the `line` carries that. `sharing` is the other end of a line; it makes a ticket of each
message for the keeper's committer, and leaves to `transfers` what is too big to be whole in memory.
The way without shared memory, from `client` to `handover`, has the data set in the message.

Each message begins with a head of twelve bytes, big endian: size of the text (4), and a number (8)
whose meaning `handover.py` and `sharing.py` give. The text is JSON, or what `ready.py` says, or
`STORED`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from pacsteward.archive.model import DoesNotMatch, Outcome, StoreResult
from pacsteward.base.errors import Broken, PacstewardError, Unavailable

TEXT_MAX: Final = 1 << 20
"""Of what is said in shared memory: places of an instance in the smallest pieces, and more."""

HEAD: Final = struct.Struct(">IQ")

STORED: Final = b"S"
"""Text of the answer to an instance that was stored, about which there is nothing else to say."""

_MISMATCH: Final = "does_not_match"
_KINDS: Final[Mapping[str, type[PacstewardError]]] = {
    **{kind.kind.value: kind for kind in PacstewardError.__subclasses__()},
    _MISMATCH: DoesNotMatch,
}


def result_fields(result: StoreResult) -> dict[str, Any]:
    """Return a result as it is told to another process."""
    return {
        "outcome": result.outcome.value,
        "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "study_instance_uid": result.study_instance_uid,
        "series_instance_uid": result.series_instance_uid,
        "warnings": result.warnings,
        "shortage": result.shortage,
    }


def result_of(fields: Mapping[str, Any]) -> StoreResult:
    """Return the result that another process told."""
    return StoreResult(
        outcome=Outcome(fields["outcome"]),
        sop_class_uid=fields["sop_class_uid"],
        sop_instance_uid=fields["sop_instance_uid"],
        study_instance_uid=fields["study_instance_uid"],
        series_instance_uid=fields["series_instance_uid"],
        warnings=tuple(fields["warnings"]),
        shortage=fields["shortage"],
    )


def error_fields(error: PacstewardError) -> dict[str, str]:
    """Return an error as it is told to another process."""
    return {
        "kind": _MISMATCH if isinstance(error, DoesNotMatch) else error.kind.value,
        "what": error.what,
        "why": error.why,
        "remedy": error.remedy,
    }


def error_of(fields: Mapping[str, str]) -> PacstewardError:
    """Return the error that another process told."""
    kind = _KINDS.get(fields["kind"], Broken)
    return kind(fields["what"], why=fields["why"], remedy=fields["remedy"])


def keeper_is_away() -> Unavailable:
    """Return what is to be said when nobody answers."""
    return Unavailable(
        "The archive's keeper does not answer.",
        why="The keeper's process is not running, or is just being restarted.",
        remedy="Start it, or try again in a moment.",
    )


def not_understood(error: Exception) -> Unavailable:
    """Return what is to be said to a request that makes no sense."""
    # Not `Invalid`: a sender would take that for the last word on its object.
    return Unavailable(
        "A request to the keeper was not understood.",
        why=f"{type(error).__name__}.",
        remedy="See that all processes are of one version.",
    )
