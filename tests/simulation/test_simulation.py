"""Ten days in a faulty world, and one of them told twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.runs import Stage, replay_command

SEEDS = range(1, 11)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_day_in_a_faulty_world_loses_nothing_and_does_nothing_twice(
    stage: Stage, seed: int
) -> None:
    result = stage.live(seed)
    assert not result.broken, (
        f"Seed {seed}, after {result.lines[-1]}\n{result.broken}\nTell it again: "
        f"{replay_command(seed)}"
    )


@pytest.mark.timeout(300)
def test_a_seed_tells_the_same_story_each_time(stage: Stage) -> None:
    first, second = stage.live(1), stage.live(1)
    assert first.lines == second.lines
