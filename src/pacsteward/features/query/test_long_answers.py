"""Long answers to searches are written a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from starlette.requests import Request

from pacsteward.archive import Match
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query
from pacsteward.features.query import dicomweb
from pacsteward.features.query.resources import STUDY_INSTANCE_UID


@pytest.mark.parametrize("count", [0, 1, dicomweb.LONG, dicomweb.LONG + 7])
@pytest.mark.parametrize("limit", [None, 3, dicomweb.LONG + 5])
def test_all_that_is_wanted_is_written_and_a_long_answer_in_its_turn(
    count: int, limit: int | None
) -> None:
    free = dicomweb._LONG_ANSWERS._value

    def matches() -> Iterator[Match]:
        for number in range(count):
            taken = free - dicomweb._LONG_ANSWERS._value
            assert taken == (number >= dicomweb.LONG)
            yield Match({STUDY_INSTANCE_UID: f"1.2.{number}"})

    host = (b"host", b"pacs.example")
    request = Request({"type": "http", "scheme": "https", "path": "/", "headers": [host]})
    query = Query(Level.STUDY, {}, returns=(STUDY_INSTANCE_UID,), limit=limit)
    with ExitStack() as turn:
        written = dicomweb._written(request, query, matches(), turn)
    assert len(written) == (count if limit is None else min(count, limit))
    assert all(f"1.2.{number}" in text for number, text in enumerate(written))
    assert dicomweb._LONG_ANSWERS._value == free
