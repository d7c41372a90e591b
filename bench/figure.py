"""One measured figure, and the goal that it has to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

Unit = Literal["/s", "MB/s", "ms", "s", "MB", "KB"]

MORE_IS_BETTER: Final = frozenset({"/s", "MB/s"})


@dataclass(frozen=True, slots=True)
class Figure:
    """What one server did in one kind of work: the median of its rounds, and the rounds.

    Parameters
    ----------
    kind
        The group it belongs to: "store", "retrieve" and so on.
    cpu_ms
        CPU time of the server's whole process tree for each instance or request; None where
        there is nothing to divide by.
    memory_mb
        Of the whole process tree when the work was done, shared pages counted once.
    safe
        What was safe when Success was sent; empty for work that stores nothing.
    compared
        How many objects were read back and found equal, byte for byte.
    """

    kind: str
    work: str
    server: str
    unit: Unit
    rounds: tuple[float, ...]
    cpu_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    memory_mb: float | None = None
    safe: str = ""
    errors: int = 0
    compared: int = 0

    @property
    def value(self) -> float:
        """Return the median."""
        return median(self.rounds)

    @property
    def is_more_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self.unit in MORE_IS_BETTER


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is to reach.

    Parameters
    ----------
    times
        Times as fast as Orthanc in the same run.
    at_most
        Bound of the figure itself, in its unit.
    cpu_ms
        Bound of the CPU time for each instance or request.
    p95_ms
        Bound of the time within which 95 of 100 requests are answered.
    share, beside
        At least this share of the speed of another work of ours, named by `beside`.
    """

    times: float | None = None
    at_most: float | None = None
    cpu_ms: float | None = None
    p95_ms: float | None = None
    share: float | None = None
    beside: str = ""

    def text(self, unit: str) -> str:
        """Say the goal in words."""
        said = (
            (self.times, "≥ {:g} ×"),
            (self.at_most, "≤ {:g} " + unit),
            (self.cpu_ms, "≤ {:g} ms CPU"),
            (self.p95_ms, "p95 ≤ {:g} ms"),
            (self.share, "≥ {:.2g} × " + self.beside),
        )
        return ", ".join(words.format(bound) for bound, words in said if bound is not None)

    def is_met(self, ours: Figure, ratio: float | None, other: Figure | None) -> bool | None:
        """Say whether it is met; None when what it is compared with was not measured."""
        answers = [
            _compare(bound, value, is_floor=is_floor)
            for bound, value, is_floor in (
                (self.times, ratio, True),
                (self.at_most, ours.value, False),
                (self.cpu_ms, ours.cpu_ms, False),
                (self.p95_ms, ours.p95_ms, False),
                (self.share, ratio_of(ours, other), True),
            )
            if bound is not None
        ]
        if False in answers:
            return False
        return None if None in answers else True


def _compare(bound: float, value: float | None, *, is_floor: bool) -> bool | None:
    if value is None:
        return None
    return value >= bound if is_floor else value <= bound


def ratio_of(ours: Figure, peer: Figure | None) -> float | None:
    """Return how many times better ours is than the peer's; None without a peer."""
    if peer is None or not ours.value or not peer.value:
        return None
    return ours.value / peer.value if ours.is_more_better else peer.value / ours.value


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Return values with as many digits as mean anything."""
    return tuple(float(f"{value:.4g}") for value in values)
