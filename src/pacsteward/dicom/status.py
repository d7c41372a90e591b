"""DIMSE statuses: the standard's numbers, and which one tells an error of ours.

The rest of the house raises one of eight kinds of error; this is the one place where a kind
becomes a number. C-STORE and the query and retrieve services have sections of their own in PS3.4
that name more exact statuses than PS3.7 has, so there are three columns.

A sender's behaviour hangs on the first digit: most devices send again after Axxx, and give up and
show a fault after Cxxx, 01xx and 02xx. So what a sender could only repeat in vain is not answered
with A700.

References
----------
PS3.7 Annex C (statuses), 9.1 and 10.1 (which service may use which); PS3.4 B.2.3 (C-STORE),
C.4.1.1.4, C.4.2.1.5 and C.4.3.1.4 (C-FIND, C-MOVE, C-GET), J.3 (storage commitment).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pacsteward.base.errors import Kind, PacstewardError

SUCCESS: Final = 0x0000
CANCEL: Final = 0xFE00
PENDING: Final = 0xFF00
PENDING_WARNING: Final = 0xFF01
"""One or more optional keys were not supported (PS3.4 C.4.1.1.4)."""

# Of DIMSE itself, PS3.7 Annex C.
ATTRIBUTE_LIST_ERROR: Final = 0x0107
ATTRIBUTE_VALUE_OUT_OF_RANGE: Final = 0x0116
CLASS_INSTANCE_CONFLICT: Final = 0x0119
DUPLICATE_INVOCATION: Final = 0x0210
DUPLICATE_SOP_INSTANCE: Final = 0x0111
INVALID_ARGUMENT_VALUE: Final = 0x0115
INVALID_ATTRIBUTE_VALUE: Final = 0x0106
INVALID_SOP_INSTANCE: Final = 0x0117
MISSING_ATTRIBUTE: Final = 0x0120
MISSING_ATTRIBUTE_VALUE: Final = 0x0121
MISTYPED_ARGUMENT: Final = 0x0212
NO_SUCH_ACTION_TYPE: Final = 0x0123
NO_SUCH_ARGUMENT: Final = 0x0114
NO_SUCH_ATTRIBUTE: Final = 0x0105
NO_SUCH_EVENT_TYPE: Final = 0x0113
NO_SUCH_SOP_CLASS: Final = 0x0118
NO_SUCH_SOP_INSTANCE: Final = 0x0112
NOT_AUTHORIZED: Final = 0x0124
PROCESSING_FAILURE: Final = 0x0110
RESOURCE_LIMITATION: Final = 0x0213
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
UNRECOGNIZED_OPERATION: Final = 0x0211

# Of the storage service, PS3.4 B.2.3.
OUT_OF_RESOURCES: Final = 0xA700
DATA_SET_DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
WARNING_COERCION: Final = 0xB000
WARNING_ELEMENTS_DISCARDED: Final = 0xB006
WARNING_DATA_SET_DOES_NOT_MATCH: Final = 0xB007

# Of query and retrieve, PS3.4 C.4.
OUT_OF_RESOURCES_MATCHES: Final = 0xA701
"""The number of matches cannot be calculated."""
OUT_OF_RESOURCES_SUBOPS: Final = 0xA702
"""Sub-operations cannot be performed."""
MOVE_DESTINATION_UNKNOWN: Final = 0xA801
IDENTIFIER_DOES_NOT_MATCH: Final = 0xA900
UNABLE_TO_PROCESS: Final = 0xC000
WARNING_SUBOPS: Final = 0xB000
"""Sub-operations are complete, and at least one failed or had a warning."""


def store_status(error: BaseException) -> int:
    """Return the status with which C-STORE tells an error (PS3.4 B.2.3)."""
    return _STORE[_kind(error)]


def query_status(error: BaseException) -> int:
    """Return the status with which C-FIND, C-MOVE and C-GET tell an error (PS3.4 C.4)."""
    return _QUERY[_kind(error)]


def status(error: BaseException) -> int:
    """Return the status with which any other service tells an error (PS3.7 Annex C)."""
    return _OTHER[_kind(error)]


class Category(StrEnum):
    """What a status means for the one who asked (PS3.7 Annex C)."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"


def category(value: int) -> Category:
    """Return what a peer's status means; one that nobody has defined is a failure."""
    if value == SUCCESS:
        return Category.SUCCESS
    if value in (PENDING, PENDING_WARNING):
        return Category.PENDING
    if value == CANCEL:
        return Category.CANCEL
    if value & 0xF000 == 0xB000 or value in _WARNINGS:
        return Category.WARNING
    return Category.FAILURE


# PS3.7 C.4: 0001 is a warning of DIMSE in general, 0107 and 0116 those of N-CREATE and N-SET.
_WARNINGS: Final = frozenset({0x0001, ATTRIBUTE_LIST_ERROR, ATTRIBUTE_VALUE_OUT_OF_RANGE})

_OTHER: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        Kind.INVALID: CANNOT_UNDERSTAND,
        Kind.UNSUPPORTED: SOP_CLASS_NOT_SUPPORTED,
        Kind.NOT_FOUND: NO_SUCH_SOP_INSTANCE,
        Kind.CONFLICT: DATA_SET_DOES_NOT_MATCH,
        Kind.FORBIDDEN: NOT_AUTHORIZED,
        Kind.EXHAUSTED: RESOURCE_LIMITATION,
        Kind.UNAVAILABLE: PROCESSING_FAILURE,
        Kind.BROKEN: PROCESSING_FAILURE,
    }
)
_STORE: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        **_OTHER,
        Kind.INVALID: DATA_SET_DOES_NOT_MATCH,
        Kind.CONFLICT: DUPLICATE_SOP_INSTANCE,
        Kind.EXHAUSTED: OUT_OF_RESOURCES,
        Kind.UNAVAILABLE: OUT_OF_RESOURCES,
    }
)
_QUERY: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        **_OTHER,
        Kind.INVALID: IDENTIFIER_DOES_NOT_MATCH,
        # PS3.4 C.4 has neither 0112 nor 0110 for these services; "unable to process" it has.
        Kind.NOT_FOUND: UNABLE_TO_PROCESS,
        Kind.EXHAUSTED: OUT_OF_RESOURCES,
        Kind.UNAVAILABLE: OUT_OF_RESOURCES,
        Kind.BROKEN: UNABLE_TO_PROCESS,
    }
)


def _kind(error: BaseException) -> Kind:
    """Return the kind of an error; what is not one of ours is our own fault."""
    return error.kind if isinstance(error, PacstewardError) else Kind.BROKEN
