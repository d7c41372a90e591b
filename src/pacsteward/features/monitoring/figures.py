"""How much room there is, and how much needs a human, as overviews show it."""

from __future__ import annotations

from pacsteward.feature import Figure, House
from pacsteward.features.monitoring.attention import PATH, count_matters

GIB = 1024**3


def free_gib(house: House) -> float:
    """Return the free space of the archive's disk, in GiB."""
    return round(house.archive.space().free_bytes / GIB, 1)


def needs_a_human(house: House) -> int:
    """Count conflicts, records set aside and studies of doubtful patients."""
    return sum(count_matters(house.archive).values())


FIGURES = (
    Figure("free_gib", "GiB free", free_gib, "/health"),
    Figure("needs_a_human", "Need a human", needs_a_human, PATH),
)
