"""Long answers to searches are written a few at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from starlette.requests import Request

from pacsteward.archive import Match
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query
from pacsteward.dicom.tags import STUDY_INSTANCE_UID
from pacsteward.dicom.web.streaming import PiecesAnswer
from pacsteward.feature import House
from pacsteward.features.query import dicomweb


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


def test_no_event_loop_waits_for_a_turn(
    house: House, asked_by_web: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How few answers it gives is the archive's to say, and may become more than are short."""
    matches = [Match({STUDY_INSTANCE_UID: f"1.2.{number}"}) for number in range(3)]
    monkeypatch.setattr(house.archive, "find_at_once", lambda _query: matches)
    monkeypatch.setattr(dicomweb, "LONG", 2)
    # What asks for a turn fails, rather than wait for ever.
    monkeypatch.setattr(dicomweb, "_LONG_ANSWERS", None)
    answer = dicomweb.search_at_once(Level.STUDY)(house, asked_by_web)
    assert isinstance(answer, PiecesAnswer)
    studies = json.loads(b"".join(answer.pieces))
    assert [study["0020000D"]["Value"] for study in studies] == [["1.2.0"], ["1.2.1"], ["1.2.2"]]
