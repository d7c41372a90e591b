"""Asking every check of the house, and reading every figure.

A check that cannot be answered is a finding of its own: what nobody could look at may be anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pacsteward.base.checks import Status, answer, gravity
from pacsteward.base.errors import PacstewardError
from pacsteward.feature import Figure, House

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """One check with its answer."""

    room: str
    name: str
    title: str
    status: Status
    what: str
    why: str
    remedy: str
    link: str


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One figure with its present value."""

    name: str
    title: str
    value: Any
    link: str


def ask_all(house: House) -> list[Answered]:
    """Ask every check of every room; the worst answers come first."""
    answers = list(_answers(house))
    return sorted(answers, key=lambda one: (-gravity(one.status), one.room, one.name))


def _answers(house: House) -> Iterator[Answered]:
    for room in house.rooms:
        for one in room.checks:
            finding = answer(one.check, partial(one.ask, house))
            yield Answered(
                room=room.title,
                name=one.check.name,
                title=one.check.title,
                status=finding.status,
                what=finding.what,
                why=finding.why,
                remedy="" if finding.status == "ok" else finding.remedy,
                link=finding.link,
            )


def read_figures(house: House) -> list[FigureRow]:
    """Read every figure of every room."""
    return [
        FigureRow(figure.name, figure.title, _read(house, figure), figure.link)
        for room in house.rooms
        for figure in room.figures
    ]


def _read(house: House, figure: Figure) -> Any:
    """Read a figure; None where it cannot be had, so that the others are shown all the same."""
    try:
        return figure.read(house)
    except PacstewardError as error:
        logger.warning(
            "A figure could not be read.", extra={"figure": figure.name, "why": str(error)}
        )
        return None
