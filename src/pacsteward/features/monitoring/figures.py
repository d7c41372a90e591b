"""How much room there is, as overviews show it."""

from __future__ import annotations

from pacsteward.feature import Figure, House

GIB = 1024**3


def free_gib(house: House) -> float:
    """Return the free space of the archive's disk, in GiB."""
    return round(house.archive.space().free_bytes / GIB, 1)


FIGURES = (Figure("free_gib", "GiB free", free_gib, "/health"),)
