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
        Of the catalogue that ours alone is asked about; 0 for none.
    big_bytes
        Size of the big multi-frame object.
    """

    is_quick: bool
    rounds: int
    studies: int
    many_studies: int
    big_bytes: int


FULL = Scale(
    is_quick=False, rounds=3, studies=20_000, many_studies=1_000_000, big_bytes=2_000_000_000
)
QUICK = Scale(is_quick=True, rounds=2, studies=1_000, many_studies=0, big_bytes=200_000_000)
