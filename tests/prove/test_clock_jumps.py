"""R8, the short form; sessions that end meanwhile: src/pacsteward/security/test_access.py."""

from __future__ import annotations

import pytest
from prove.clock_jumps import NotInstalled, jump
from prove.promise import Scale

pytestmark = pytest.mark.timeout(300)


def test_r8_a_clock_that_jumps_harms_nobody(scale: Scale) -> None:
    try:
        outcome = jump(scale, (1, -1, 0), 1.0)
    except NotInstalled as error:
        pytest.skip(str(error))
    assert outcome.passed, outcome.details
