"""R12: a reader of foreign bytes returns or raises what it documents, soon, in little memory."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.damage import EDITS, damaged
from tests.fuzz.targets import ALL, Target
from tests.fuzz.watch import watched

EXAMPLES = 120


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_r12_sound_bytes_are_read(target: Target) -> None:
    """A seed that is refused at the door damages nothing behind it: most must be good."""
    refused = 0
    for seed in target.seeds():
        try:
            watched(target, seed)
            target.read(seed)
        except target.may_raise:
            refused += 1
    assert refused <= len(target.seeds()) * 0.4


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_r12_damaged_bytes_are_read_or_refused(target: Target) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(seed=st.sampled_from(list(target.seeds())), edits=EDITS)
    def fuzz(seed: bytes, edits: list) -> None:
        watched(target, damaged(seed, edits))

    fuzz()
