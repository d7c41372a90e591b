"""Questions about the health of the house, and the answers.

A `Check` is a question that the health page and monitoring ask; a `Finding` is the answer,
with the cause and what to do. A question that could not be answered is itself a finding
(``unknown``): it may hide anything, so it ranks above a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pacsteward.base.errors import PacstewardError

logger = logging.getLogger(__name__)

Status = Literal["ok", "warning", "critical", "unknown"]

_GRAVITY: dict[Status, int] = {"ok": 0, "warning": 1, "unknown": 2, "critical": 3}


@dataclass(frozen=True, slots=True)
class Check:
    """A question, asked as ``is_…`` or ``has_…``.

    Parameters
    ----------
    name
        Word for commands and figures, e.g. ``"is_disk_roomy"``; unique in the house.
    title
        The question as a person would ask it.
    remedy
        What to do when the answer is bad and the finding has nothing more exact to say.
    """

    name: str
    title: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer.

    Parameters
    ----------
    status
        How bad it is.
    what
        One sentence: what was found, with its number and unit.
    why
        One sentence: the cause, as far as it is known.
    remedy
        One sentence: what to do; empty takes the check's own.
    link
        Address of the console's page that lists what was found; empty where there is none.
    """

    status: Status
    what: str
    why: str = ""
    remedy: str = ""
    link: str = ""


def answer(check: Check, ask: Callable[[], Finding]) -> Finding:
    """Ask, and make an answer of a failure to answer.

    One check that cannot be asked must not take the others' answers away, so every exception
    becomes a finding here. The words of an error that is not ours are left out: nobody knows what
    they quote; where it happened stands in the log.
    """
    try:
        finding = ask()
    except PacstewardError as error:
        return Finding("unknown", error.what, error.why, error.remedy or check.remedy)
    except Exception as error:
        logger.exception("A check could not be answered.", extra={"check": check.name})
        return Finding(
            "unknown",
            f"Nobody could answer: {check.title}",
            f"{type(error).__name__} was raised while asking.",
            "See the log for the cause.",
        )
    if finding.remedy or finding.status == "ok":
        return finding
    return replace(finding, remedy=check.remedy)


def gravity(status: Status) -> int:
    """Return how grave a status is: 0 for ``ok``, more for worse; to show the worst first."""
    return _GRAVITY[status]
