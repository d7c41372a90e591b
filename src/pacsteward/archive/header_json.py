"""The metadata of stored objects as DICOM JSON text.

Two slices of a series differ in ten attributes of a hundred: the numbers, the places, their own
UID. So whoever makes the metadata of a series keeps what each attribute became under the bytes
that it was made of, and decodes only those that it has not met (`HeaderTexts`). To find them costs
a microsecond, to decode them fifteen.

What an attribute becomes depends on its own bytes, and on a few others that say how texts, words
and private elements are read: the *companions*. What is kept is kept for headers that have the same
ones.

References
----------
PS3.18 F.2 (DICOM JSON), F.2.6 (BulkDataURI); PS3.5 6.2.2 (unknown representations), 7.8 (private
elements), A.1 (words in implicit VR).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from pacsteward.archive.bulk import format_path
from pacsteward.archive.headers import Walked, parse, walk_header
from pacsteward.archive.model import Instance
from pacsteward.archive.read import StoredObject
from pacsteward.base.errors import Exhausted, Invalid, PacstewardError, Unsupported
from pacsteward.dicom import vrs
from pacsteward.dicom.attributes import is_private_creator
from pacsteward.dicom.dicomjson import Path, dumps, key, to_json
from pacsteward.dicom.elements import Encoding
from pacsteward.dicom.tags import (
    AVAILABLE_TRANSFER_SYNTAX_UID,
    BITS_ALLOCATED,
    LUT_DESCRIPTOR,
    PIXEL_REPRESENTATION,
    SPECIFIC_CHARACTER_SET,
    WAVEFORM_BITS_ALLOCATED,
)

KNOWN_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of attributes and what they became, kept while the metadata of one series are made."""

BEFORE_BYTES_MAX: Final = 1024 * 1024
"""A header that takes more is not compared with the next one."""

_COMPANIONS: Final = frozenset({
    SPECIFIC_CHARACTER_SET,
    BITS_ALLOCATED,
    PIXEL_REPRESENTATION,
    LUT_DESCRIPTOR,
    WAVEFORM_BITS_ALLOCATED,
})  # fmt: skip
"""Attributes that others are read by; the creators of private blocks are, too."""


class HeaderTexts:
    """Makes the metadata of objects, one after the other; for one thread.

    Parameters
    ----------
    inline_limit_bytes
        Binary values up to this size stand in the JSON.
    """

    def __init__(self, inline_limit_bytes: int) -> None:
        self._inline_limit_bytes = inline_limit_bytes
        self._known: dict[tuple[bool, bool, bytes], dict[bytes, bytes]] = {}
        self._room_bytes = KNOWN_BYTES_MAX
        self._before: Walked | None = None

    def text(self, stored: StoredObject, *, bulk_data_prefix: str) -> bytes:
        """Return the metadata of a stored object as a DICOM JSON object, complete, in tag order.

        What cannot be read of a damaged object is left out, but never its UIDs, which the index
        knows: one damaged instance does not hide the series that it is in.

        Parameters
        ----------
        bulk_data_prefix
            What the path of a value is put behind to make its BulkDataURI.
        """
        instance = stored.instance
        known = known_json(instance)
        try:
            walked = walk_header(stored, self._before)
            members = self._members(walked, bulk_data_prefix)
        except (Invalid, Exhausted, Unsupported):
            return dumps(known)
        self._before = walked if walked.size_bytes <= BEFORE_BYTES_MAX else None
        for tag, vr in walked.left_out:
            uri = bulk_data_prefix + format_path((tag,))
            members[tag] = _member(key(tag), {"vr": vr, "BulkDataURI": uri})
        # What an object says of this itself is that of its sender.
        members.pop(AVAILABLE_TRANSFER_SYNTAX_UID, None)
        for name, attribute in known.items():
            if int(name, 16) not in members:
                members[int(name, 16)] = _member(name, attribute)
        return b"{%b}" % b",".join([members[tag] for tag in sorted(members)])

    def _members(self, walked: Walked, bulk_data_prefix: str) -> dict[int, bytes]:
        """Return what each attribute becomes; one that has no place in JSON becomes nothing."""
        encoding = walked.encoding
        # Of an attribute that stands there twice the last one counts, as for pydicom.
        written = {tag: raw for tag, _, raw in walked.elements}
        companions = [tag for tag in written if tag in _COMPANIONS or is_private_creator(tag)]
        context = (*encoding, b"".join([written[tag] for tag in companions]))
        known = self._known_in(context)
        members = {tag: known.get(raw) for tag, raw in written.items()}
        unknown = {tag for tag, member in members.items() if member is None}
        wanted = unknown.union(companions)
        made = _Made(bulk_data_prefix, self._inline_limit_bytes)
        if not _is_plain(walked) or not made.convert(
            b"".join([raw for tag, raw in written.items() if tag in wanted]),
            encoding,
            expected=wanted,
            skip=wanted - unknown,
        ):
            # Where the walk and pydicom do not agree on what is an element, nothing is kept.
            made.convert(walked.data, encoding)
            return made.members
        for tag in unknown:
            members[tag] = member = made.members.get(tag, b"")
            if tag not in made.with_uri:
                self._remember(known, written[tag], member)
        return {tag: member for tag, member in members.items() if member}

    def _known_in(self, context: tuple[bool, bool, bytes]) -> dict[bytes, bytes]:
        """Return what attributes became in headers with the same companions."""
        known = self._known.get(context)
        if known is None:
            known = {}
            # A series may have other companions in each of its headers, and long ones.
            self._room_bytes -= len(context[-1])
            if self._room_bytes > 0:
                self._known[context] = known
        return known

    def _remember(self, known: dict[bytes, bytes], raw: bytes, member: bytes) -> None:
        self._room_bytes -= len(raw) + len(member)
        if self._room_bytes > 0:
            known[raw] = member


class _Made:
    """What attributes became, and which of them say where their instance lies."""

    def __init__(self, bulk_data_prefix: str, inline_limit_bytes: int) -> None:
        self.members: dict[int, bytes] = {}
        self.with_uri: set[int] = set()
        self._bulk_data_prefix = bulk_data_prefix
        self._inline_limit_bytes = inline_limit_bytes

    def convert(
        self,
        data: bytes,
        encoding: Encoding,
        *,
        expected: Collection[int] | None = None,
        skip: Collection[int] = (),
    ) -> bool:
        """Convert elements; do nothing and say no where they are not those that were expected."""
        dataset = parse(data, encoding)
        if expected is not None and set(map(int, dataset.keys())) != expected:
            return False
        try:
            model = to_json(
                dataset,
                bulk_data_uri=self._uri,
                inline_limit_bytes=self._inline_limit_bytes,
                skip=skip,
            )
        except PacstewardError:
            raise
        except Exception as error:
            # Elements that were never elements: the rest of a damaged data set read as one.
            raise Invalid(
                "The header was not converted.",
                why=f"{type(error).__name__} while it was decoded.",
                remedy="Have it corrected where it was made.",
            ) from error
        self.members = {int(name, 16): _member(name, one) for name, one in model.items()}
        return True

    def _uri(self, path: Path) -> str:
        self.with_uri.add(path[0])
        return self._bulk_data_prefix + format_path(path)


def _is_plain(walked: Walked) -> bool:
    """Whether all representations are known: of others pydicom takes another length."""
    return walked.encoding.is_implicit or all(vr in vrs.ALL for _, vr, _ in walked.elements)


def _member(name: str, attribute: dict[str, Any]) -> bytes:
    return b'"%b":%b' % (name.encode(), dumps(attribute))


def known_json(instance: Instance) -> dict[str, Any]:
    """Return what the index knows of an instance, as a DICOM JSON object in tag order."""
    return {
        "00080016": _uid(instance.sop_class_uid),
        "00080018": _uid(instance.sop_instance_uid),
        "00083002": _uid(instance.transfer_syntax_uid),
        "0020000D": _uid(instance.study_instance_uid),
        "0020000E": _uid(instance.series_instance_uid),
    }


def _uid(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]}
