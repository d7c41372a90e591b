"""Which SOP Instance UIDs the index surely lacks, without asking it for each.

An index is a sorted list, and what arrives together mostly lies between two neighbours in it: the
slices of a series that nobody has seen differ in their last component. So when the index is asked
for a UID that it lacks, it also says which UIDs stand before and behind it. Nothing lay in that gap
at that moment; what has come to the index since came through us, and is remembered. Any other UID
in the gap is new.

This is true for ever where nobody else writes to the index: on SQLite, whose file lies in the data
folder that one keeper has locked. Several nodes may share a PostgreSQL, and what another one writes
does not come through us. There a gap is good for a second; what another node stores in that second
is found when the index is written, as what it stores between an answer and the index always was
(`index_batch.py`). A deletion does no harm: it makes a gap wider than we know. And what does not
lie in a gap that is known is asked for, as are UIDs that are made by chance and come to lie
anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

REMEMBERED_MAX: Final = 20_000
"""UIDs that are remembered, or series, before all is forgotten and learnt anew: up to 12 MB."""

SHARED_S: Final = 1.0
"""How long a gap is good in an index to which others may write."""


class Gap(NamedTuple):
    """Two UIDs that stood beside each other in the index, or its ends."""

    below: str
    above: str


class Gaps:
    """The gaps in which the UIDs of some series lie; for one thread.

    Parameters
    ----------
    on_their_way
        Gives the UIDs that were let through and may not be in the index yet.
    good_for_s
        How long what was learnt can be relied on, in seconds; None is for ever.
    now
        A clock that never jumps, in seconds.
    """

    def __init__(
        self,
        on_their_way: Callable[[], Iterable[str]],
        *,
        good_for_s: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_their_way = on_their_way
        self._good_for_s = good_for_s
        self._now = now
        self._of_series: dict[str, Gap] = {}
        self._learnt_at: dict[str, float] = {}
        self._let_through: set[str] = set()
        self._remembered_max = REMEMBERED_MAX

    def has(self, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Whether the index surely lacks a UID of this series."""
        gap = self._of_series.get(series_instance_uid)
        return (
            gap is not None
            and gap[0] < sop_instance_uid < gap[1]
            and sop_instance_uid not in self._let_through
            and self._is_good(series_instance_uid)
        )

    def _is_good(self, series_instance_uid: str) -> bool:
        if self._good_for_s is None:
            return True
        return self._now() - self._learnt_at[series_instance_uid] < self._good_for_s

    def now(self) -> float:
        """Return the moment, before the index is asked."""
        return self._now()

    def learn(self, series_instance_uid: str, gap: Gap, asked_at: float) -> None:
        """Remember between which neighbours of the index a UID of this series lay then."""
        self._of_series[series_instance_uid] = gap
        if self._good_for_s is not None:
            self._learnt_at[series_instance_uid] = asked_at
        if len(self._of_series) > self._remembered_max:
            self._forget()

    def let_through(self, sop_instance_uids: Iterable[str]) -> None:
        """Remember what goes to the index from now on; before anybody asks `has` again."""
        self._let_through.update(sop_instance_uids)
        if len(self._let_through) > self._remembered_max:
            self._forget()

    def _forget(self) -> None:
        """Begin anew; what is on its way might come to lie in a gap that is learnt before it."""
        self._of_series.clear()
        self._learnt_at.clear()
        self._let_through = set(self._on_their_way())
        # While the index lags behind there may be many, and forgetting must stay rare.
        self._remembered_max = len(self._let_through) + REMEMBERED_MAX
