"""What the storage room can be told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pacsteward.base.settings import Section


class StorageSettings(Section):
    """Which objects are taken, and what their senders hear."""

    section: ClassVar[str] = "storage"

    accept_private_sop_classes: bool = Field(
        True,
        description="Whether objects of SOP classes outside the standard are taken; vendors keep "
        "raw data and presentation data in such classes, and lose it if it is refused. Yes or no.",
    )
    accept_sop_classes: tuple[str, ...] = Field(
        (),
        description="SOP classes of the standard that are taken as well although this version does "
        "not know them as storage classes. UIDs.",
    )
    refuse_sop_classes: tuple[str, ...] = Field(
        (), description="SOP classes that are refused at negotiation. UIDs."
    )
    warn_on_doubt: bool = Field(
        False,
        description="Whether the sender of an object with a doubtful patient identity hears status "
        "B000 instead of Success. Many devices treat a warning as a failure. Yes or no.",
    )
    max_parts: int = Field(
        10_000,
        description="Most instances that one STOW-RS request may bring. Parts.",
        ge=1,
        le=1_000_000,
    )
    max_request_bytes: int = Field(
        4 * 1024**3, description="Largest STOW-RS request that is taken. Bytes.", ge=1024
    )
