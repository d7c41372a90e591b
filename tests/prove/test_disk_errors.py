"""R4 in short: a call to the disk fails, the sender hears of it, and nothing is half there."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prove.disk_errors import WAYS, Way, fail_call

from tests.support.databases import sqlite_template

STRIDE = 13


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_r4_a_call_that_fails_is_a_refusal_and_never_a_success(tmp_path: Path, way: Way) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with sqlite_template(tmp_path) as template:
            refusals, first = 0, 3
            while True:
                told, disk = fail_call(template, tmp_path / f"{first}", first, way)
                assert told.wrong == [], disk.calls[-1:]
                refusals += told.refusals.total()
                if not disk.was_reached:
                    break
                first += STRIDE
    finally:
        logging.disable(logging.NOTSET)
    assert refusals
    assert first > 3 * STRIDE
