"""The story of a day, a line for each act: time of day, who, what, and what the archive said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime


class Story:
    """Collects lines, and says each one as it comes.

    Parameters
    ----------
    say
        Given each line.
    """

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self.lines: list[str] = []
        self._say = say

    def tell(self, at: datetime, who: str, what: str, answer: str = "") -> None:
        """Add a line."""
        line = f"{at:%H:%M:%S}  {who:<14} {what}"
        if answer:
            line = f"{line:<76}  {answer}"
        self.lines.append(line)
        self._say(line)
