"""Asking every check of the house, and reading every figure.

A check that cannot be answered is a finding of its own: what nobody could look at may be anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pacsteward.base.checks import Finding
from pacsteward.base.errors import PacstewardError
from pacsteward.feature import House

logger = logging.getLogger(__name__)

ORDER = ("critical", "unknown", "warning", "ok")


@dataclass(frozen=True, slots=True)
class Answered:
    """One check with its answer."""

    room: str
    name: str
    title: str
    status: str
    what: str
    why: str
    remedy: str


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
    return sorted(answers, key=lambda one: (ORDER.index(one.status), one.room, one.name))


def _answers(house: House) -> Iterator[Answered]:
    for room in house.rooms:
        for one in room.checks:
            finding = _ask(house, one.ask, one.check.name)
            yield Answered(
                room=room.title,
                name=one.check.name,
                title=one.check.title,
                status=finding.status,
                what=finding.what,
                why=finding.why,
                remedy="" if finding.status == "ok" else finding.remedy or one.check.remedy,
            )


def _ask(house: House, ask: Any, name: str) -> Finding:
    try:
        finding: Finding = ask(house)
    except PacstewardError as error:
        return Finding("unknown", error.what, error.why, error.remedy)
    except Exception:
        # One check that fails must not hide the answers of the others.
        logger.exception("check failed", extra={"check": name})
        return Finding("unknown", "The question could not be answered.", "See the log.")
    return finding


def read_figures(house: House) -> list[FigureRow]:
    """Read every figure of every room."""
    return [
        FigureRow(figure.name, figure.title, figure.read(house), figure.link)
        for room in house.rooms
        for figure in room.figures
    ]
