"""What the DIMSE door can be told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pacsteward.base.settings import Section


class DicomSettings(Section):
    """Our name on the DICOM network, and the limits of the door."""

    section: ClassVar[str] = "dicom"

    ae_title: str = Field(
        "PACSTEWARD",
        min_length=1,
        max_length=16,
        pattern=r"^[ -\[\]-~]+$",
        description="AE title that we answer to and call with. At most 16 characters.",
    )
    further_ae_titles: tuple[str, ...] = Field(
        (),
        description="AE titles that we answer to as well, for instance of the archive before us.",
    )
    answer_any_ae_title: bool = Field(
        True,
        description="Whether callers may call us by any AE title. Devices are often set up with a "
        "wrong one, and who may come in is decided by the caller's, not by ours. Yes or no.",
    )
    associations_max: int = Field(
        1000, ge=2, description="Associations that may be open at once. Associations."
    )
    reserved_for_registered: int = Field(
        10,
        ge=0,
        description="How many of these only registered peers may take. Associations.",
    )
    artim_s: float = Field(
        10.0, gt=0, description="How long a caller may take to ask for its association. Seconds."
    )
    data_set_idle_s: float = Field(
        30.0, gt=0, description="How long a caller may pause in the middle of a message. Seconds."
    )
    association_idle_s: float = Field(
        600.0, gt=0, description="How long a caller may pause between two messages. Seconds."
    )
    pdu_bytes_max: int = Field(
        262_144,
        ge=131_072,
        le=1_000_000,
        description="Longest P-DATA-TF PDU that is taken; what we announce is 131072, and some "
        "senders do not keep to that. A longer length field is answered with A-ABORT before "
        "anything is read for it. Bytes.",
    )
    associate_pdu_bytes_max: int = Field(
        131_072,
        ge=4096,
        le=1_000_000,
        description="Longest A-ASSOCIATE-RQ PDU that is taken, looked at in the same way. Bytes.",
    )
    command_set_bytes_max: int = Field(
        65_536, ge=1024, description="Longest command set of one message. Bytes."
    )
    identifier_bytes_max: int = Field(
        8 * 1024**2,
        ge=4096,
        le=256 * 1024**2,
        description="Longest data set that is kept in memory: of a C-FIND, C-MOVE or C-GET. Bytes.",
    )

    def answers_to(self, called_ae_title: str) -> bool:
        """Say whether a caller that calls us `called_ae_title` has come to the right place."""
        return self.answer_any_ae_title or called_ae_title in (
            self.ae_title,
            *self.further_ae_titles,
        )

    def answers_as(self, called_ae_title: str) -> str:
        """Return the name under which one that calls us `called_ae_title` knows us.

        It is that title where it is one of ours, else our own: a destination that lets in
        registered callers only has never heard of what somebody else typed.
        """
        is_ours = called_ae_title in self.further_ae_titles
        return called_ae_title if is_ours else self.ae_title
