"""Ten days in a faulty world, and one of them told twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.simulation.day import Result
from tests.simulation.runs import Stage, replay_command

SEEDS = range(1, 11)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="module")
def first_told(stage: Stage) -> Callable[[int], Result]:
    """Live the day of a seed, or tell what was told when it was lived."""
    return cache(stage.live)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_day_in_a_faulty_world_loses_nothing_and_does_nothing_twice(
    first_told: Callable[[int], Result], seed: int
) -> None:
    result = first_told(seed)
    assert not result.broken, (
        f"Seed {seed}, after {result.lines[-1]}\n{result.broken}\nTell it again: "
        f"{replay_command(seed)}"
    )


@pytest.mark.timeout(300)
def test_a_seed_tells_the_same_story_each_time(
    stage: Stage, first_told: Callable[[int], Result]
) -> None:
    assert first_told(1).lines == stage.live(1).lines
