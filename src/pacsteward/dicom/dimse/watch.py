"""The timers of an association: who is silent for too long is cut.

Three of them: ARTIM, where the standard has it; the data set timer in the middle of a message; the
idle timer between two. Only whole PDUs count as signs of life, so dripping bytes does not help, and
while it is our turn nobody is hurried.

References
----------
PS3.8 9.1.5 (ARTIM).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from pacsteward.dicom.dimse.limits import Limits

_PARTING_S = 0.05  # for the A-ABORT to a silent peer


class Watched(Protocol):
    """The association that is looked at."""

    @property
    def ended_how(self) -> str | None:
        """Why it is over; None while it is not."""
        ...

    @property
    def quiet_s(self) -> float:
        """Seconds since the last sign of life."""
        ...

    @property
    def is_inside(self) -> bool:
        """Whether a message has begun to come and is not whole."""
        ...

    @property
    def is_our_turn(self) -> bool:
        """Whether the peer waits for us, or a wait has a timer of its own."""
        ...

    def abort(self, how: str) -> None:
        """End it at once."""
        ...

    def artim_expired(self) -> None:
        """End it: the peer did not do what it had to do in time."""
        ...


class Watch:
    """Looks at one association now and then.

    Parameters
    ----------
    close
        Closes the connection of a peer that was cut.
    """

    def __init__(self, link: Watched, limits: Limits, close: Callable[[], None]) -> None:
        self._link = link
        self._limits = limits
        self._close = close
        self._loop = asyncio.get_running_loop()
        self._artim: asyncio.TimerHandle | None = None
        self._next_look: asyncio.TimerHandle | None = None

    def start_artim(self) -> None:
        """Start the timer of the standard, or start it again."""
        self.stop_artim()
        self._artim = self._loop.call_later(self._limits.artim_s, self._link.artim_expired)

    def stop_artim(self) -> None:
        """Stop the timer of the standard."""
        if self._artim is not None:
            self._artim.cancel()
            self._artim = None

    def stop(self) -> None:
        """Stop all timers; the connection is gone."""
        self.stop_artim()
        if self._next_look is not None:
            self._next_look.cancel()

    def look(self) -> None:
        """Cut an association that shows no sign of life; look again soon if it does."""
        link, limits = self._link, self._limits
        if link.ended_how is not None:
            return
        again_s = min(limits.data_set_idle_s, limits.association_idle_s) / 20
        if not link.is_our_turn:
            quiet_s, is_inside = link.quiet_s, link.is_inside
            left_s = (limits.data_set_idle_s if is_inside else limits.association_idle_s) - quiet_s
            if left_s <= 0 and is_inside:
                self._cut(f"cut: silent for {quiet_s:.0f} s in the middle of a message")
                return
            if left_s <= 0:
                self._cut(f"cut: idle for {quiet_s:.0f} s")
                return
            # Not a twentieth later than was said.
            again_s = min(again_s, left_s)
        self._next_look = self._loop.call_later(max(again_s, 0.01), self.look)

    def _cut(self, how: str) -> None:
        """End an association whose peer is silent, and its connection soon after.

        Who was silent for so long will not close it either (PS3.8 9.1.5 gives it time for that).
        """
        self._link.abort(how)
        self._loop.call_later(_PARTING_S, self._close)
