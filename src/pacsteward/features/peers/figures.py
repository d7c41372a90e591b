"""Who knocks at the door, as a number that overviews show."""

from __future__ import annotations

from pacsteward.feature import Figure, House


def unknown_callers(house: House) -> int:
    """Count the callers that nobody has registered."""
    return len(house.peers.unknown_callers())


FIGURES = (Figure("unknown_callers", "Unknown callers", unknown_callers, "/peers"),)
