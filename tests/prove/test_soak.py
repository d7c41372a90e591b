"""What R15 calls flat, and what it calls a leak: series of memory in MiB, one value a minute."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from prove.soak import GROWTH_MAX_MIB, growth

# fmt: off
BUSY = [
    212.0, 241.0, 244.0, 244.0, 250.0, 252.0, 243.0, 244.0, 261.0, 248.0, 264.0, 247.0, 247.0,
    248.0, 269.0, 267.0, 248.0, 269.0, 248.0, 252.0, 249.0, 249.0, 269.0, 270.0, 250.0, 270.0,
]
# fmt: on
"""Of a busy machine: a helper of some 20 MiB comes and goes, more often towards the end."""


def is_flat(values: list[float]) -> bool:
    return growth(values).of_floor <= GROWTH_MAX_MIB


def with_helpers(values: list[float]) -> list[float]:
    """Have helpers of 20 MiB come and go over it."""
    chance = random.Random(7)
    return [value + chance.choice((0, 0, 20)) for value in values]


def test_a_helper_that_comes_and_goes_is_no_leak() -> None:
    found = growth(BUSY)
    assert (found.first.floor, found.last.ceiling) == (243, 270)
    assert found.of_floor == 7
    assert is_flat(BUSY)


@pytest.mark.parametrize(
    ("mib_per_h", "minutes"), [(40, 60), (60, 30), (20, 120)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("noise", [list, with_helpers])
def test_a_leak_is_seen_through_whatever_comes_and_goes(
    mib_per_h: int, minutes: int, noise: Callable[[list[float]], list[float]]
) -> None:
    leaking = [250 + mib_per_h * minute / 60 for minute in range(minutes + 1)]
    assert not is_flat(noise(leaking))
    assert is_flat(noise([250.0] * (minutes + 1)))


def test_a_step_counts_as_growth_unless_it_is_in_the_warm_up_or_small() -> None:
    assert not is_flat([250.0] * 15 + [270.0] * 15)
    assert is_flat([250.0] * 15 + [262.0] * 15)
    assert is_flat([200.0] * 5 + [270.0] * 25)


def test_a_sawtooth_is_flat_and_one_that_rises_is_not() -> None:
    teeth = [4.0 * (minute % 6) for minute in range(60)]
    assert is_flat([250 + tooth for tooth in teeth])
    assert not is_flat([250 + tooth + 40 * minute / 60 for minute, tooth in enumerate(teeth)])
