r"""One record of the landing log: an instance with all that the index, facts and audit need.

Format 2. All numbers are little endian. A record begins at a multiple of 4096 bytes::

    offset  size
         0     8  magic 89 50 73 52 65 63 0D 0A ("\x89PsRec\r\n")
         8     2  version of the record format: 2
        10     2  kind: 1 the data set follows, 2 the data set is a file of its own ("object")
        12     4  size of the description
        16     8  generation of the segment (random, never 0)
        24     8  sequence: counts up by 1 through all segments
        32     8  safe sequence: what had been synced when this was written
        40     8  size of the data set
        48     4  size of the file meta
        52     4  crc32 of the data set
        56     4  check of the record before (of the segment's head for the first)
        60     4  check: crc32 of generation and sequence, these 60 bytes, description, file meta
        64        description (JSON, UTF-8), file meta (group 2, PS3.10), data set, zeros up to 4096

So a record is whole blocks of the disk: it can be written past the page cache, and a block with
something acknowledged in it is never written again. (In format 1 records began at multiples of 8.)

The check is seeded with generation and sequence, so what a recycled segment held before never
passes for new; and it names the check of the record before, so a record that was written but never
synced does not become the successor of another one that takes its predecessor's place. The data
set has a check of its own, which is also what the index keeps and every read compares.

References
----------
PS3.10 7.1 (file meta information).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from isal.isal_zlib import crc32

from pacsteward.archive.model import Origin
from pacsteward.dicom.fragments import Fragments

VERSION: Final = 2
INSTANCE: Final = 1
OBJECT: Final = 2

MAGIC: Final = b"\x89PsRec\r\n"
_HEAD: Final = struct.Struct("<8sHHIQQQQIII")
_SEED: Final = struct.Struct("<QQ")
_CHECK: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CHECK.size
ALIGNMENT: Final = 4096
"""The largest block that disks are written by."""

_ALIGNMENT_OF: Final = {1: 8, 2: ALIGNMENT}
DESCRIPTION_MAX: Final = 1 << 20
"""A longer description is no description; file meta has the same bound."""

_USUAL_BYTES: Final = 2048
"""What stands before a data set hardly ever takes more."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Description:
    """What a record says of its instance besides the bytes.

    Parameters
    ----------
    is_conflict
        Other content is stored under the UID; this is the second.
    object_container, object_offset
        Of a big object: its file, and where in it the data set begins.
    """

    received_at: datetime
    origin: Origin
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    is_conflict: bool = False
    object_container: str = ""
    object_offset: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was found in a segment.

    Parameters
    ----------
    offset, data_offset, end
        Where in the segment it begins, where its data set begins, and where the next record does.
    data_size
        Of the data set, also when that is a file of its own.
    """

    kind: int
    generation: int
    sequence: int
    safe_sequence: int
    data_size: int
    data_checksum: int
    previous: int
    check: int
    description: Description
    file_meta: bytes
    offset: int
    data_offset: int
    end: int


def encode(
    description: Description,
    file_meta: bytes,
    *,
    generation: int,
    sequence: int,
    safe_sequence: int,
    data_size: int,
    data_checksum: int,
    previous: int,
) -> tuple[bytes, int]:
    """Return all of a record that stands before its data set, and its check."""
    text = _to_json(description)
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        OBJECT if description.object_container else INSTANCE,
        len(text),
        generation,
        sequence,
        safe_sequence,
        data_size,
        len(file_meta),
        data_checksum,
        previous,
    )
    rest = text + file_meta
    check = crc32(rest, crc32(_SEED.pack(generation, sequence) + head))
    return b"".join((head, _CHECK.pack(check), rest)), check


def decode(segment: Fragments, offset: int) -> Record | None:
    """Return the record at `offset`, or None when there is no sound one.

    Only what stands before the data set is looked at; `checksum_of` checks that.

    Raises
    ------
    FormatIsNewer
        A sound record of a format that this version does not know.
    """
    found = segment.window(offset, _USUAL_BYTES)
    if len(found) < HEAD_BYTES or not found.startswith(MAGIC):
        return None
    (
        _magic,
        version,
        kind,
        text_size,
        generation,
        sequence,
        safe_sequence,
        data_size,
        file_meta_size,
        data_checksum,
        previous,
    ) = _HEAD.unpack_from(found)
    if text_size > DESCRIPTION_MAX or file_meta_size > DESCRIPTION_MAX:
        return None
    file_meta_at = HEAD_BYTES + text_size
    data_at = file_meta_at + file_meta_size
    if data_at > len(found):
        found = segment.window(offset, data_at)
        if len(found) < data_at:
            return None
    alignment = _ALIGNMENT_OF.get(version, ALIGNMENT)
    end = aligned(offset + data_at + (data_size if kind == INSTANCE else 0), alignment)
    if end > aligned(segment.size, alignment):
        return None
    text = found[HEAD_BYTES:file_meta_at]
    file_meta = found[file_meta_at:data_at]
    (check,) = _CHECK.unpack_from(found, _HEAD.size)
    if check != _check(generation, sequence, found[: _HEAD.size], text, file_meta):
        return None
    if version not in _ALIGNMENT_OF:
        raise FormatIsNewer(version)
    return Record(
        kind=kind,
        generation=generation,
        sequence=sequence,
        safe_sequence=safe_sequence,
        data_size=data_size,
        data_checksum=data_checksum,
        previous=previous,
        check=check,
        description=_from_json(text),
        file_meta=file_meta,
        offset=offset,
        data_offset=offset + data_at,
        end=end,
    )


class FormatIsNewer(Exception):
    """A record is sound and of a format that only a later version knows."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


def aligned(offset: int, alignment: int = ALIGNMENT) -> int:
    """Return the next offset at which a record may begin."""
    return (offset + alignment - 1) & -alignment


def checksum_of(data: Buffer, seed: int = 0) -> int:
    """Return crc32 of a data set; `seed` is that of what came before."""
    return crc32(data, seed)


def _check(generation: int, sequence: int, head: bytes, text: bytes, file_meta: bytes) -> int:
    seed = crc32(_SEED.pack(generation, sequence))
    return crc32(file_meta, crc32(text, crc32(head, seed)))


def _to_json(description: Description) -> bytes:
    # Written out, since one is made for every instance: all but the origin's words are UIDs and
    # names of ours, which need no escapes. `json.dumps` takes three times as long.
    text = (
        f'{{"received_at":"{description.received_at.isoformat()}"'
        f',"sop_class_uid":"{description.sop_class_uid}"'
        f',"sop_instance_uid":"{description.sop_instance_uid}"'
        f',"study_instance_uid":"{description.study_instance_uid}"'
        f',"series_instance_uid":"{description.series_instance_uid}"'
        f',"transfer_syntax_uid":"{description.transfer_syntax_uid}"'
        f",{_origin_json(description.origin)}"
    )
    if description.is_conflict:
        text += ',"is_conflict":1'
    if description.object_container:
        text += (
            f',"object_container":"{description.object_container}"'
            f',"object_offset":{description.object_offset}'
        )
    return (text + "}").encode("ascii")


@lru_cache(maxsize=1024)
def _origin_json(origin: Origin) -> str:
    """Return the fields of an origin, without braces; one serves a whole association."""
    fields = {
        "door": origin.door,
        "actor": origin.actor,
        "actor_kind": origin.actor_kind,
    }
    optional = {
        "address": origin.address,
        "association_id": origin.association_id,
        "called_ae_title": origin.called_ae_title,
        "default_issuer_of_patient_id": origin.default_issuer_of_patient_id,
    }
    fields |= {name: value for name, value in optional.items() if value}
    return json.dumps(fields, separators=(",", ":"))[1:-1]


def _from_json(text: bytes) -> Description:
    fields = json.loads(text)
    return Description(
        received_at=datetime.fromisoformat(fields["received_at"]),
        origin=Origin(
            door=fields["door"],
            actor=fields["actor"],
            actor_kind=fields["actor_kind"],
            address=fields.get("address", ""),
            association_id=fields.get("association_id", ""),
            called_ae_title=fields.get("called_ae_title", ""),
            default_issuer_of_patient_id=fields.get("default_issuer_of_patient_id", ""),
        ),
        sop_class_uid=fields["sop_class_uid"],
        sop_instance_uid=fields["sop_instance_uid"],
        study_instance_uid=fields["study_instance_uid"],
        series_instance_uid=fields["series_instance_uid"],
        transfer_syntax_uid=fields["transfer_syntax_uid"],
        is_conflict=bool(fields.get("is_conflict", 0)),
        object_container=fields.get("object_container", ""),
        object_offset=fields.get("object_offset", 0),
    )
