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
    at_most, at_least
        Bound of the figure itself, in its unit.
    cpu_ms
        Bound of the CPU time for each instance.
    """

    times: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    cpu_ms: float | None = None

    def text(self, unit: str) -> str:
        """Say the goal in words."""
        said = []
        if self.times is not None:
            said.append(f"≥ {self.times:g} ×")
        if self.at_most is not None:
            said.append(f"≤ {self.at_most:g} {unit}")
        if self.at_least is not None:
            said.append(f"≥ {self.at_least:g} {unit}")
        if self.cpu_ms is not None:
            said.append(f"≤ {self.cpu_ms:g} ms CPU")
        return ", ".join(said)

    def is_met(self, ours: Figure, ratio: float | None) -> bool | None:
        """Say whether it is met; None when what it is compared with was not measured."""
        answers: list[bool | None] = []
        if self.times is not None:
            answers.append(None if ratio is None else ratio >= self.times)
        if self.at_most is not None:
            answers.append(ours.value <= self.at_most)
        if self.at_least is not None:
            answers.append(ours.value >= self.at_least)
        if self.cpu_ms is not None:
            answers.append(None if ours.cpu_ms is None else ours.cpu_ms <= self.cpu_ms)
        if False in answers:
            return False
        return None if None in answers else True


def ratio_of(ours: Figure, peer: Figure | None) -> float | None:
    """Return how many times better ours is than the peer's; None without a peer."""
    if peer is None or not ours.value or not peer.value:
        return None
    return ours.value / peer.value if ours.is_more_better else peer.value / ours.value


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Return values with as many digits as mean anything."""
    return tuple(float(f"{value:.4g}") for value in values)
