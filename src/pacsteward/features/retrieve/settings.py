"""What the retrieve room can be told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pacsteward.base.settings import Section


class RetrieveSettings(Section):
    """How objects leave."""

    section: ClassVar[str] = "retrieve"

    pending_interval_s: float = Field(
        0.2,
        description="C-MOVE and C-GET callers hear of progress at least this often while objects "
        "are on their way, so that they do not give up waiting. Seconds.",
        gt=0,
    )
    max_parallel: int = Field(
        2,
        description="Associations that one C-MOVE opens to its destination at once, unless the "
        "destination's registration says otherwise. Associations.",
        ge=1,
        le=16,
    )
    connect_timeout_s: float = Field(
        10.0, description="How long a C-MOVE destination may take to answer a call. Seconds.", gt=0
    )
    read_ahead: int = Field(
        3,
        description="Objects that are read from the disk while another is on the wire. Objects.",
        ge=1,
        le=64,
    )
    rendered_pixels_max: int = Field(
        100_000_000,
        description="A frame of more pixels is not drawn. Pixels.",
        ge=65_536,
        le=100_000_000,
    )
    decoder_memory_bytes: int = Field(
        512 * 1024**2,
        description="Memory of one decoder beyond what it takes to start; one that needs more is "
        "ended, and its frame is not decoded. Bytes.",
        ge=64 * 1024**2,
        le=16 * 1024**3,
    )
    decoder_time_s: float = Field(
        10.0,
        description="How long a decoder may take for one frame before it is ended. Seconds.",
        gt=0,
        le=300,
    )
    whole_bytes: int = Field(
        16 * 1024**2,
        description="Objects up to this size are read whole and checked against their checksum "
        "before the first byte is sent; larger ones stream. Bytes.",
        ge=1024**2,
    )
