"""When an association is looked at, and who is cut then, on timers that are turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.watch import Watch

LIMITS = Limits(artim_s=10, data_set_idle_s=30, association_idle_s=600)


@dataclass
class Timer:
    after_s: float
    ring: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Timers:
    """Keeps what was to be called later."""

    all: list[Timer] = field(default_factory=list)

    def call_later(self, after_s: float, ring: Callable[[], None]) -> Timer:
        self.all.append(Timer(after_s, ring))
        return self.all[-1]


@dataclass
class Link:
    """An association as it stands."""

    quiet_s: float = 0.0
    is_inside: bool = False
    is_our_turn: bool = False
    ended_how: str | None = None

    def abort(self, how: str) -> None:
        self.ended_how = how

    def artim_expired(self) -> None:
        self.ended_how = "ARTIM"


def watching(link: Link) -> tuple[Watch, Timers, list[str]]:
    closed: list[str] = []

    async def make() -> Watch:
        return Watch(link, LIMITS, lambda: closed.append("closed"))

    watch, timers = asyncio.run(make()), Timers()
    watch._loop = cast(Any, timers)
    return watch, timers, closed


@pytest.mark.parametrize(
    ("link", "next_look_s"),
    [
        (Link(), 1.5),
        # When it would be cut, and not a twentieth of its time later.
        (Link(quiet_s=29.5, is_inside=True), 0.5),
        (Link(quiet_s=599.0), 1.0),
        # Nobody is hurried while it is our turn.
        (Link(quiet_s=9000.0, is_our_turn=True), 1.5),
    ],
)
def test_who_may_go_on_is_looked_at_again_in_time(link: Link, next_look_s: float) -> None:
    watch, timers, _ = watching(link)
    watch.look()
    assert link.ended_how is None
    assert [timer.after_s for timer in timers.all] == [next_look_s]


@pytest.mark.parametrize(
    ("link", "how"),
    [
        (Link(quiet_s=30.0, is_inside=True), "silent for 30 s in the middle of a message"),
        (Link(quiet_s=600.0), "idle for 600 s"),
    ],
)
def test_who_is_silent_for_too_long_is_cut_and_its_connection_closed_soon(
    link: Link, how: str
) -> None:
    watch, timers, closed = watching(link)
    watch.look()
    assert link.ended_how == f"cut: {how}"
    (only,) = timers.all
    assert only.after_s < 1
    only.ring()
    assert closed == ["closed"]


def test_artim_that_is_started_again_has_the_whole_time() -> None:
    watch, timers, _ = watching(Link())
    watch.start_artim()
    watch.start_artim()
    first, second = timers.all
    assert first.is_cancelled
    assert (second.after_s, second.is_cancelled) == (10, False)
    watch.stop()
    assert second.is_cancelled
