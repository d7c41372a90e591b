"""A header in full: every attribute, every item, nothing that is too long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pacsteward.features.query.study import header_lines, read_data_set


class Holding:
    """Stands for the archive: gives the metadata of one instance."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = model

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
