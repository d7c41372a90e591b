"""``pacsteward monitoring …``: ask how the house is."""

from __future__ import annotations

from pacsteward.base.checks import gravity
from pacsteward.feature import Command, House
from pacsteward.features.monitoring.health import Answered, ask_all


class Answers(tuple[Answered, ...]):
    """What `check` prints."""

    __slots__ = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is critical, or may be for all that is known."""
        return all(gravity(one.status) < gravity("unknown") for one in self)


def check(house: House) -> Answers:
    """Ask every check; ends with 9 if one is critical or cannot be answered, not for warnings."""
    return Answers(ask_all(house))


COMMANDS = (Command("check", check),)
