"""Objects on their way out: what is held in memory, and what is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pacsteward.base.errors import WouldWait
from pacsteward.dicom.web.multipart import Writer
from pacsteward.dicom.web.negotiation import DICOM
from pacsteward.features.retrieve.payloads import SMALL_BYTES, ObjectPart


class Asked(Exception):
    """The bytes were asked for at once."""


class Prompt:
    def open(self, _instance: Any) -> Any:
        raise Asked


@pytest.mark.parametrize(
    ("size", "is_as_stored", "expected"),
    [(SMALL_BYTES, True, Asked), (SMALL_BYTES + 1, True, WouldWait), (10, False, WouldWait)],
)
def test_only_small_objects_are_read_on_the_event_loop(
    size: int, is_as_stored: bool, expected: type[Exception]
) -> None:
    """An object of gigabytes would be in memory as a whole, once for each who asks for it."""
    planned = SimpleNamespace(
        is_as_stored=is_as_stored,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance=SimpleNamespace(size_bytes=size),
    )
    archive = SimpleNamespace(prompt=Prompt())
    part = ObjectPart(cast(Any, archive), cast(Any, planned), Writer(DICOM), cast(Any, None))
    with pytest.raises(expected):
        part.at_once()
