"""Promises of resources.py: a result is the same whichever way it is written."""

from __future__ import annotations

import json

import pytest
from pydicom import Dataset

from pacsteward.archive import Match
from pacsteward.dicom.attributes import Level
from pacsteward.features.query.resources import (
    ResultWriter,
    every_attribute,
    result,
    returned,
)

URL = "https://here/dicom-web"
UIDS = {0x0020000D: "1.2.3", 0x0020000E: "1.2.3.4", 0x00080018: "1.2.3.4.5"}

READ_FROM_AN_OBJECT = Dataset()
READ_FROM_AN_OBJECT.add_new(0x00180060, "DS", "120")


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES, Level.IMAGE])
@pytest.mark.parametrize("wants_all", [False, True])
@pytest.mark.parametrize(
    "match",
    [
        Match(UIDS),
        Match(
            {
                **UIDS,
                **{0x00100010: "Müller^Jörg=山田^太郎", 0x00100020: 'P"1\\2', 0x00080020: ""},
                **{0x00080061: "CT\\MR\\", 0x00201208: "12", 0x00081030: "Thorax\tand\u2028more"},
                **{0x00280010: "512", 0x00080201: "+0100", 0x00080005: "ISO_IR 100"},
                **{0x00200013: "no number", 0x00100030: "\ud800", 0x00080056: "OFFLINE"},
            }
        ),
        *(
            Match({**UIDS, 0x00100010: name, 0x00201208: number, 0x00200011: number})
            for name, number in (
                ("Doe^John^^ ", "007"),
                ("^^", "0"),
                (" ", "-5"),
                ('O"Neil^A\\B', "1.5"),
                ("=山田^太郎", "12345678901234567890"),
                ("Doe\x07^J", "+7"),
                ("Doe", "\u0661"),
            )
        ),
        Match({**UIDS, 0x00080201: "", 0x00209999: "not in the dictionary"}),
        Match(UIDS, READ_FROM_AN_OBJECT),
    ],
)
def test_a_result_is_the_same_whichever_way_it_is_written(
    match: Match, level: Level, wants_all: bool
) -> None:
    returns = (*returned(level, path_has=frozenset()), 0x00180060, 0x00209999, 0x00091001)
    if wants_all:
        returns = tuple(dict.fromkeys((*returns, *every_attribute(level))))
    expected = json.dumps(
        result(match, level, returns, URL), ensure_ascii=False, separators=(",", ":")
    )
    assert ResultWriter(level, returns, URL).write(match) == expected
    assert len(json.loads(expected)) > 3
