"""R12: little that becomes much costs little, is answered soon, and keeps nobody waiting.

Here are some of the bombs; `make prove ONLY=Bombs` throws all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from tests.hardness import bombs
from tests.hardness.bombs import Bomb
from tests.hardness.strain import Strain, strained
from tests.hardness.target import GROWTH_MAX_BYTES, Target


def faults(bomb: Bomb, seen: Strain) -> Iterator[str]:
    """Say what was not as it must be."""
    if seen.heard not in bomb.expected:
        yield f"{bomb.name}: {seen.heard}"
    if seen.peak_bytes > GROWTH_MAX_BYTES:
        yield f"{bomb.name}: {seen.peak_bytes >> 20} MiB"
    if seen.echo_s == math.inf:
        yield f"{bomb.name}: no C-ECHO beside it"


@pytest.mark.parametrize(
    "some", [bombs.wire_bombs, bombs.questions, bombs.bodies], ids=lambda some: some.__name__
)
def test_r12_a_bomb_is_answered_and_takes_little_memory(
    target: Target, some: Callable[[], Iterator[Bomb]]
) -> None:
    with target.unharmed():
        chosen = list(some())[:: 2 if some is bombs.questions else 1]
        found = [fault for bomb in chosen for fault in faults(bomb, strained(target, bomb.throw))]
        assert not found, "\n".join(found)


def test_r12_an_object_that_is_a_bomb_can_be_asked_for_in_every_way(target: Target) -> None:
    with target.unharmed():
        found = [
            fault
            for one in islice(bombs.claims(), 0, None, 3)
            for bomb in bombs.stored_bombs(one)
            for fault in faults(bomb, strained(target, bomb.throw))
        ]
        assert not found, "\n".join(found)
