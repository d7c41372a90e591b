"""R5, the short form."""

from __future__ import annotations

import pytest
from prove.full_disk import MIB, fill_up
from prove.promise import Scale

pytestmark = pytest.mark.timeout(300)


def test_r5_a_full_disk_keeps_nobody_from_reading_and_loses_nothing(scale: Scale) -> None:
    try:
        outcome = fill_up(scale, 64 * MIB, 3)
    except PermissionError as error:
        pytest.skip(str(error))
    assert outcome.passed, outcome.details
