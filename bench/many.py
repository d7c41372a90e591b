"""A catalogue of a million studies: searching it, and storing beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from bench import query, store
from bench.figure import Figure, Goal
from bench.scale import Scale
from bench.servers import Server, Start, fresh

KIND: Final = "many"

STORED: Final = ("C-STORE W1 x4", "C-STORE W2 x4")
EMPTY: Final = ", archive empty"


def _beside(studies: int) -> str:
    return f", beside {studies:,} studies"


def goals(studies: int) -> dict[str, Goal]:
    """Return the goals of storing beside the catalogue."""
    return {work + _beside(studies): Goal(share=0.8, beside=work + EMPTY) for work in STORED}


def measure(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Store into an empty archive, then beside the catalogue, then search that."""
    studies = scale.many_studies
    with fresh(start) as server:
        yield from _stored(server, scale, pattern, EMPTY)
    with fresh(start, studies=studies) as server:
        yield from _stored(server, scale, pattern, _beside(studies))
        yield from query.over(server, scale, pattern, studies, KIND)


def _stored(server: Server, scale: Scale, pattern: str, words: str) -> Iterator[Figure]:
    for index, work in enumerate(_works()):
        if pattern in work.name + words:
            figure = store.measure_work(server, scale, index, work)
            yield replace(figure, kind=KIND, work=work.name + words)


def _works() -> Sequence[store.Work]:
    return [work for work in store.WORKS if work.name in STORED]
