"""The log and the ledger again, in the order in which they happened.

After a stop or a crash only the end of both is read, in a rebuild all of it. A decision of the
ledger comes after everything that had landed when it was made, and before what landed later; so
what was deleted stays deleted, and what was stored anew after that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pacsteward.archive.landing import Landed
from pacsteward.archive.ledger import LedgerEntry

BATCH_MAX: Final = 500


def replay(
    landed: Iterable[Landed],
    entries: Sequence[LedgerEntry],
    *,
    index: Callable[[Sequence[Landed]], None],
    decide: Callable[[LedgerEntry], None],
) -> None:
    """Give instances and decisions to `index` and `decide` in their order.

    Parameters
    ----------
    landed
        In the order of the log.
    entries
        In the order of the ledger.
    """
    waiting = list(reversed(entries))
    batch: list[Landed] = []

    def flush() -> None:
        if batch:
            index(tuple(batch))
            batch.clear()

    for one in landed:
        while waiting and waiting[-1].landed_sequence < one.sequence:
            flush()
            decide(waiting.pop())
        batch.append(one)
        if len(batch) >= BATCH_MAX:
            flush()
    flush()
    while waiting:
        decide(waiting.pop())
