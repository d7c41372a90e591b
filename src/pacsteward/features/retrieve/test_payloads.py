"""Objects on their way out: what is held in memory, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pacsteward.archive import Enclosed
from pacsteward.base.errors import WouldWait
from pacsteward.dicom.web.multipart import Writer
from pacsteward.dicom.web.negotiation import DICOM
from pacsteward.features.retrieve.payloads import SMALL_BYTES, ObjectsPart, parted
from pacsteward.features.retrieve.together import TOGETHER_BYTES


class Asked(Exception):
    """The bytes were asked for at once."""


class Prompt:
    def joined(self, parts: Sequence[Enclosed]) -> Any:
        raise Asked(parts)


def planned(size: int, *, is_as_stored: bool = True, container: str = "1") -> Any:
    return SimpleNamespace(
        is_as_stored=is_as_stored,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance=SimpleNamespace(
            size_bytes=size,
            file_meta=b"meta",
            location=SimpleNamespace(
                container_kind="landing", container=container, generation=1, length=size
            ),
        ),
    )


def part(*together: Any) -> ObjectsPart:
    archive = SimpleNamespace(prompt=Prompt())
    return ObjectsPart(cast(Any, archive), together, Writer(DICOM), cast(Any, None))


@pytest.mark.parametrize(
    ("size", "is_as_stored", "expected"),
    [(SMALL_BYTES, True, Asked), (SMALL_BYTES + 1, True, WouldWait), (10, False, WouldWait)],
)
def test_only_small_objects_are_read_on_the_event_loop(
    size: int, is_as_stored: bool, expected: type[Exception]
) -> None:
    """An object of gigabytes would be in memory as a whole, once for each who asks for it."""
    with pytest.raises(expected):
        part(planned(size, is_as_stored=is_as_stored)).at_once()


def test_objects_that_are_read_together_are_parts_of_their_own() -> None:
    first, second = planned(10), planned(20)
    one = part(first, second)
    with pytest.raises(Asked) as asked:
        one.at_once()
    (parts,) = asked.value.args
    before = one.writer.head(
        {"Content-Type": "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"}
    )
    head = before + bytes(128) + b"DICM" + b"meta"
    assert parts == [(head, first.instance, b"\r\n"), (head, second.instance, b"\r\n")]


def test_objects_go_together_while_they_are_small_and_lie_together() -> None:
    ct = TOGETHER_BYTES // 2
    plan = [
        *(planned(ct), planned(ct), planned(ct)),
        *(planned(1, container="2"), planned(1, container="2"), planned(TOGETHER_BYTES + 1)),
        *(planned(1), planned(1, is_as_stored=False), planned(1, is_as_stored=False), planned(1)),
    ]
    groups = list(parted(plan))
    assert [len(group) for group in groups] == [2, 1, 2, 1, 1, 1, 1, 1]
    assert [id(one) for group in groups for one in group] == [id(one) for one in plan]
    assert list(parted([])) == []
