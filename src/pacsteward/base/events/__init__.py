"""What happened, kept in the transaction that made it true, and told to who listens."""

from pacsteward.base.events.dispatch import CursorView, Dispatcher, Subscriber, cursors, skip
from pacsteward.base.events.log import Entry, Fact, FactLog, Position
from pacsteward.base.events.tables import FACT, FACT_CURSOR

__all__ = [
    "FACT",
    "FACT_CURSOR",
    "CursorView",
    "Dispatcher",
    "Entry",
    "Fact",
    "FactLog",
    "Position",
    "Subscriber",
    "cursors",
    "skip",
]
