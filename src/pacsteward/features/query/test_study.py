"""A header in full: every attribute, every item, nothing that is too long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pacsteward.archive import Selection
from pacsteward.base.errors import NotFound, Unavailable
from pacsteward.features.query.report import LINES_MAX
from pacsteward.features.query.study import (
    Places,
    header_lines,
    places_of,
    read_data_set,
)


@dataclass(frozen=True)
class Stored:
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str = "1.2.3"


class Holding:
    """Stands for the archive: gives the metadata of one instance, and some instances."""

    def __init__(self, model: dict[str, Any] | None = None) -> None:
        self._model = model

    def instances(self, selection: Selection) -> list[Stored]:
        """Give what the index knows."""
        assert len(selection.sop_instance_uids) <= 500
        unknown = (".404", ".503", ".5")
        return [
            Stored(uid, "1.2") for uid in selection.sop_instance_uids if not uid.endswith(unknown)
        ]

    def instance(self, _study: str, _series: str, uid: str) -> Stored:
        """Answer by the last part of the UID."""
        if uid.endswith(".404"):
            raise NotFound(f"Instance {uid} was not found.")
        if uid.endswith(".503"):
            raise Unavailable("The database does not answer.")
        return Stored(uid, "" if uid.endswith(".5") else "1.2")

    def metadata(self, *_uids: str, base_url: str) -> tuple[str, Iterator[bytes]]:
        return "etag", iter([json.dumps([self._model]).encode()])


def lines(model: dict[str, Any]) -> list[tuple[int, str, str]]:
    read = read_data_set(Holding(model), "1", "2", "3")  # type: ignore[arg-type]
    return [(line.depth, line.keyword, line.value) for line in header_lines(read)]


def test_sequences_are_shown_item_by_item() -> None:
    assert lines(
        {
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]},
            "00400275": {
                "vr": "SQ",
                "Value": [{"00401001": {"vr": "SH", "Value": ["R1"]}}, {}],
            },
        }
    ) == [
        (0, "PatientName", "Doe, Jane"),
        (0, "RequestAttributesSequence", "2 items"),
        (1, "Item 1", ""),
        (1, "RequestedProcedureID", "R1"),
        (1, "Item 2", ""),
    ]


def test_what_is_long_or_binary_is_described() -> None:
    shown = {
        keyword: value
        for _depth, keyword, value in lines(
            {
                "7FE00010": {"vr": "OW", "BulkDataURI": "x"},
                "00091001": {"vr": "UN", "InlineBinary": "AAAA"},
                "00280030": {"vr": "DS", "Value": [1.5, None, "0.50"]},
                "00104000": {"vr": "LT", "Value": ["a" * 5000]},
                "00080050": {"vr": "SH"},
            }
        )
    }
    assert shown["PixelData"].startswith("(kept apart")
    assert shown["private"] == "(binary, 3 bytes)"
    assert shown["PixelSpacing"] == "1.5\\\\0.50"
    assert len(shown["PatientComments"]) < 2100
    assert shown["AccessionNumber"] == ""


def places(*uids: str) -> Places:
    return places_of(Holding(), uids)  # type: ignore[arg-type]


def test_all_that_a_report_can_show_is_looked_for() -> None:
    many = [f"1.2.3.{number}" for number in range(1_000, 1_000 + LINES_MAX)]
    found = places("1.404", "no UID.404", *many, "1.4.404")
    assert found.absent == {"1.404", "no UID.404", "1.4.404"}
    assert found.pages == {uid: f"/studies/1.2/series/1.2.3/instances/{uid}" for uid in many}


def test_an_instance_of_no_study_has_no_page_and_is_not_absent() -> None:
    assert places("1.2.5") == Places({}, frozenset())


def test_nothing_is_called_absent_while_it_cannot_be_looked_for() -> None:
    with pytest.raises(Unavailable):
        places("1.404", "1.503")
