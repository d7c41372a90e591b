"""What a promise is: a name, a sentence, and a function that puts it to the proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scale:
    """How much to do, and where."""

    is_quick: bool
    """The short form: minutes for all promises together. Its figures count for less."""
    folder: Path
    """An empty folder for this promise alone; removed afterwards."""
    seed: int
    """Where all chance comes from, so that a failure can be had again."""
    say: Callable[[str], None]
    """Tell who waits how far it is: one short line."""


@dataclass(frozen=True)
class Outcome:
    """How it went."""

    passed: bool
    figure: str
    """What the table prints: what was done, and what was counted."""
    details: dict[str, object]
    """The raw numbers, as JSON can hold them."""


def together(outcomes: Mapping[str, Outcome]) -> Outcome:
    """Join what came of several turns of one proof, each by its name."""
    return Outcome(
        all(outcome.passed for outcome in outcomes.values()),
        "; ".join(f"{name}: {outcome.figure}" for name, outcome in outcomes.items()),
        {name: outcome.details for name, outcome in outcomes.items()},
    )


@dataclass(frozen=True)
class Promise:
    """One promise."""

    name: str
    """How it is chosen and listed: ``R1``."""
    title: str
    """What is done, in a line; the promise itself is that nothing bad comes of it."""
    prove: Callable[[Scale], Outcome]
    """An exception out of it is a failure as well, and its words are the reason."""
