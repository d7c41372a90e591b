"""How much is measured: everything, or what fits into three minutes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the work.

    Parameters
    ----------
    studies
        Of the catalogue that both servers are asked about.
    many_studies
        Of the catalogue that ours alone is asked about, which is no part of the short form.
    big_bytes
        Size of the big multi-frame object.
    budget_s
        How long the whole run may take, in seconds. Each kind of work has its share of what is
        left; what a slow machine does not get done in it is left out, and said to be.
    """

    is_quick: bool
    rounds: int
    studies: int
    many_studies: int
    big_bytes: int
    budget_s: float


FULL = Scale(
    is_quick=False,
    rounds=3,
    studies=20_000,
    many_studies=1_000_000,
    big_bytes=2_000_000_000,
    budget_s=50 * 60,
)
QUICK = Scale(
    is_quick=True,
    rounds=2,
    studies=1_000,
    many_studies=0,
    big_bytes=200_000_000,
    budget_s=170,
)
