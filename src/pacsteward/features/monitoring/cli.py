"""``pacsteward monitoring …``: ask how the house is."""

from __future__ import annotations

from pacsteward.feature import Command, House
from pacsteward.features.monitoring.health import Answered, ask_all


def check(house: House) -> list[Answered]:
    """Ask every check of the house; the worst findings come first."""
    return ask_all(house)


COMMANDS = (Command("check", check),)
