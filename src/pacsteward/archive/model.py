"""The values that the archive takes and gives. No protocol, no SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

from pacsteward.base.errors import Invalid, PacstewardError

if TYPE_CHECKING:
    from pydicom import Dataset


class DoesNotMatch(Invalid):
    """The data set is of another object than the one that was announced with it."""


class Outcome(StrEnum):
    """What became of an instance that was handed in."""

    STORED = "stored"
    ALREADY_HERE = "already_here"
    """The same content was here before; no second copy was made."""
    CONFLICT = "conflict"
    """Other content is stored under this UID; both are kept and a human sees the conflict."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who hands an instance in, and how.

    Parameters
    ----------
    door
        ``"dimse"``, ``"stow"`` or ``"import"``.
    actor
        Name for the audit: AE title of the peer, or name of the person or token.
    address
        IP address, as text; empty for the machine itself.
    association_id
        Ties log lines, facts and audit entries of one conversation.
    default_issuer_of_patient_id
        Issuer for patient IDs that come without one, from the peer's registration.
    actor_kind
        What sort of somebody `actor` is, for the audit.
    """

    door: str
    actor: str
    address: str = ""
    association_id: str = ""
    called_ae_title: str = ""
    default_issuer_of_patient_id: str = ""
    actor_kind: Literal["person", "token", "peer", "house"] = "peer"


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The answer to an instance handed in; when it exists, the bytes are safe.

    Parameters
    ----------
    shortage
        What pixels an image lacks that its header speaks of; "" for none.
    """

    outcome: Outcome
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    warnings: tuple[str, ...] = ()
    shortage: str = ""


class Incoming(Protocol):
    """An instance that is arriving. Exactly one of `finish` and `abandon` is called."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set; `fragment` stays unchanged until the end."""
        ...

    def is_behind(self) -> bool:
        """Whether nothing more should be read from the network for now."""
        ...

    async def catch_up(self) -> None:
        """Wait until more may be written."""
        ...

    async def finish(self) -> StoreResult:
        """Return once the whole is safe.

        Raises
        ------
        Invalid
            The data set is cut short, or names no instance.
        Exhausted, Unavailable
            It could not be kept; the sender should try again.
        """
        ...

    def abandon(self) -> None:
        """Leave nothing behind."""
        ...


class PromptIncoming(Incoming, Protocol):
    """An `Incoming` that can often say what became of it without a task that waits for that."""

    def hand_in(self, tell: Callable[[StoreResult | PacstewardError], None]) -> bool:
        """All bytes were given; call `tell` once the whole is safe, or with what `finish` raises.

        False when it is nothing for this way, or will be refused: then `finish` is to be called.
        """
        ...


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of one copy are; see `tables.LOCATION`."""

    container_kind: str
    container: str
    generation: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One stored SOP instance, as the index knows it."""

    instance_key: int
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    instance_number: str
    number_of_frames: str
    rows: str
    columns: str
    modality: str
    patient_id: str
    issuer_of_patient_id: str
    has_pixel_data: bool
    size_bytes: int
    checksum: int
    location: Location
    file_meta: bytes
    received_at: datetime
    series_version: int
    rejected_for: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which instances: all that bear every UID given. Lists are alternatives.

    An empty tuple does not restrict.
    """

    patient_ids: tuple[str, ...] = ()
    study_instance_uids: tuple[str, ...] = ()
    series_instance_uids: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """One answer to a query.

    Parameters
    ----------
    values
        Text by tag, for attributes of the index and computed ones; several values are joined with
        backslashes. An attribute that is known to be empty is there as "".
    more
        Attributes that were asked for and are not in the index, read from one of the objects.
    """

    values: Mapping[int, str]
    more: Dataset | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """Room on the disk that holds the archive, in bytes."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int

    @property
    def is_full(self) -> bool:
        """Whether nothing more is taken."""
        return self.free_bytes <= self.reserve_bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that `verify` found."""

    sop_instance_uid: str
    what: str
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What one pass over all bytes found.

    Parameters
    ----------
    unnamed_files
        Files of big objects, by their path below the data folder, that neither index nor log names:
        a crash or a failing disk left them when such an object could not be stored. Nobody was
        told that it was, so they are no damage, and may be removed.
    """

    instances: int
    bytes_read: int
    damages: tuple[Damage, ...] = field(default=())
    unnamed_files: tuple[str, ...] = field(default=())

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found; a command that returns it ends with 9 if not."""
        return not self.damages
