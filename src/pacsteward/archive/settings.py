"""What the archive needs to know before it starts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pacsteward.base.settings import Section
from pacsteward.dicom.header import HeaderLimits

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class ArchiveSettings(Section):
    """Table ``[archive]`` of ``pacsteward.toml``."""

    section: ClassVar[str] = "archive"

    acknowledge: Literal["landed", "indexed"] = Field(
        "landed",
        description=(
            "What Success waits for: `landed` for the bytes on the disk of this machine, which is "
            "enough for one machine; `indexed` for the index as well, which several machines with "
            "one PostgreSQL need."
        ),
    )
    reserve_bytes: int | None = Field(
        None,
        ge=0,
        description=(
            "Room on the disk that is never filled; below it instances are refused with A700 and "
            "the sender tries again. Unset: 2 GiB, or 2 % of the disk where that is less. In bytes."
        ),
    )
    warn_share: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="Share of the disk in use from which on the checks warn. From 0 to 1.",
    )
    segment_bytes: int = Field(
        256 * MIB,
        ge=4 * MIB,
        le=4 * GIB,
        description="Size of one segment of the landing log, in bytes.",
    )
    prepared_segments: int = Field(
        3,
        ge=0,
        le=64,
        description=(
            "Segments that are written with zeros ahead, while nobody sends: to write over them "
            "is twice as fast as to make a file longer. After bursts that use them up, more are "
            "kept, up to four times as many, while the disk has room for three times what they "
            "take; one that is at its reserve gets them back. 0 prepares none. Segments."
        ),
    )
    big_object_bytes: int = Field(
        8 * MIB,
        ge=64 * KIB,
        description=(
            "An object larger than this gets a file of its own while it arrives, so that memory "
            "does not grow with it. In bytes."
        ),
    )
    largest_object_bytes: int = Field(
        4 * GIB,
        ge=1 * MIB,
        description="An object larger than this is refused. In bytes.",
    )
    sequence_depth_max: int = Field(
        64,
        ge=1,
        le=64,
        description=(
            "An object whose sequences are nested deeper is refused; real ones stay below ten. "
            "Levels."
        ),
    )
    inflated_bytes_max: int = Field(
        4 * GIB,
        ge=1 * MIB,
        le=4 * GIB,
        description="A deflated object that becomes larger than this is refused. In bytes.",
    )
    inflated_ratio_max: int = Field(
        400,
        ge=2,
        le=400,
        description=(
            "A deflated object that becomes larger than 64 MiB and than this many times its size "
            "is refused. Times."
        ),
    )
    study_quiet_s: float = Field(
        60.0,
        gt=0,
        description=(
            "A study to which nothing was added for so long is complete: its metadata are prepared "
            "for those who will read it. In seconds."
        ),
    )
    watermark_wait_s: float = Field(
        5.0,
        gt=0,
        description=(
            "How long a query waits until the index has caught up with what was acknowledged "
            "before; then it is answered `unavailable`. In seconds."
        ),
    )
    query_timeout_s: float = Field(
        5.0,
        gt=0,
        description="How long the database may work on one statement of a query, in seconds.",
    )
    metadata_inline_bytes: int = Field(
        1024,
        ge=0,
        description=(
            "Binary values up to this size stand in the metadata themselves; larger ones are "
            "fetched by their BulkDataURI. In bytes."
        ),
    )
    metadata_cache_bytes: int = Field(
        2 * GIB,
        ge=0,
        description=(
            "Room for prepared metadata in the folder `cache`, a 256th of it in each of its "
            "folders; the least recently used goes first, and the newest of each stays. The "
            "folder may be deleted at any time. In bytes; 0 keeps none for long."
        ),
    )

    @property
    def header_limits(self) -> HeaderLimits:
        """How much of an arriving object is looked at before it is refused."""
        return HeaderLimits(
            self.sequence_depth_max, self.inflated_bytes_max, self.inflated_ratio_max
        )

    def reserve_of(self, total_bytes: int) -> int:
        """Return the reserve of a disk of `total_bytes`, in bytes."""
        if self.reserve_bytes is not None:
            return self.reserve_bytes
        return min(2 * GIB, total_bytes // 50)
