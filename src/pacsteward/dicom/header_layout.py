"""How one object is laid out, so that the next that is like it need not be walked.

The images of a series have the same elements, and mostly values of the same lengths. A `Layout` has
the place of each element at the top level of such an object. Where another object has the same
bytes in all element heads, a walk over it would go the same way: its values lie in the same places,
and are taken out in one step.

What a walk looks into must be the same, byte for byte: sequences of undefined length, and Request
Attributes Sequence. So must be the values that say how others are read, and what is known of the
pixels. Objects with anything out of the ordinary have no layout; nor have those that are encoded in
big endian, or deflated, or have encapsulated pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from pacsteward.dicom import header_tables as tables
from pacsteward.dicom import tags
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header_tables import LITTLE, UNDEFINED, swap
from pacsteward.dicom.header_texts import are_plain, texts_of
from pacsteward.dicom.header_walk import Found, HeaderWalk
from pacsteward.dicom.uids import transfer_syntax

_FILE_MARK_END: Final = 132
_REACH_MAX: Final = 16384
"""Elements before the pixels that take more than this are walked."""
_CREDIT: Final = 8
"""So many more objects of its kind may differ from a layout than agree with it."""
_CREDIT_MAX: Final = 64

_SAME: Final = frozenset(
    {
        tags.SPECIFIC_CHARACTER_SET,
        tags.SOP_CLASS_UID,
        tags.SAMPLES_PER_PIXEL,
        tags.PHOTOMETRIC_INTERPRETATION,
        tags.NUMBER_OF_FRAMES,
        tags.ROWS,
        tags.COLUMNS,
        tags.BITS_ALLOCATED,
    }
)
"""Elements whose values must be the same, too."""
_NEVER: Final = frozenset(
    {tags.ITEM, tags.ITEM_DELIMITATION_ITEM, tags.SEQUENCE_DELIMITATION_ITEM, 0}
)
"""Tags that are no element's."""


class Walked(Protocol):
    """What was read of an object by walking over it."""

    @property
    def specific_character_set(self) -> str:
        """As encoded."""
        ...

    @property
    def values(self) -> Mapping[int, str]:
        """The indexed ones."""
        ...

    @property
    def is_implicit_vr(self) -> bool:
        """How it really reads."""
        ...

    @property
    def transfer_syntax_uid(self) -> str:
        """As it was announced."""
        ...


class _Element(NamedTuple):
    """One at the top level; `letters` are its VR as it unpacks."""

    tag: int
    letters: int
    value: int
    length: int


class Layout:
    """Where the elements of an object lie.

    Parameters
    ----------
    window
        The beginning of the object.
    same
        Places whose bytes must be the same, as (begin, end), in order.
    elements
        Those that are wanted.
    """

    def __init__(
        self,
        window: bytes,
        same: list[tuple[int, int]],
        elements: list[_Element],
        header: Walked,
    ) -> None:
        # To where a file says that it is one, at least.
        self._reach = max(_FILE_MARK_END, _reach(same, elements))
        self._same = _struct(same)
        self._expected = self._same.unpack_from(window)
        self._constant = {
            one.tag: (one.letters, window[one.value : one.value + one.length])
            for one in elements
            if one.tag in _SAME
        }
        others = [one for one in elements if one.tag not in _SAME]
        self._others = _struct([(one.value, one.value + one.length) for one in others])
        self._tags = tuple((one.tag, one.letters) for one in others)
        self._character_set = header.specific_character_set
        self._not_indexed = [one.tag for one in elements if one.tag not in tables.INDEX_TAGS]
        self._credit = _CREDIT
        raws = self._others.unpack_from(window)
        is_plain = are_plain(self._constant | self._found(raws))
        # Of the last object; most values of the next are equal. One thing, since several threads
        # may read at the same time.
        self._last = (raws, dict(header.values), is_plain)

    def has_credit(self) -> bool:
        """Whether it is still worth keeping."""
        return self._credit > 0

    def read(self, data: Fragments) -> dict[int, str] | None:
        """Return the indexed values of an object of the same size; None if it differs.

        The result is shared: it must not be changed.
        """
        window = data.window(0, self._reach)
        # Whoever sends files for data sets is told so by the walk.
        if self._same.unpack_from(window) != self._expected or window[128:132] == b"DICM":
            self._credit -= 1
            return None
        self._credit = min(self._credit + 1, _CREDIT_MAX)
        raws = self._others.unpack_from(window)
        last_raws, values, was_plain = self._last
        if raws == last_raws:
            return values
        found = {
            tag: (letters, raw)
            for (tag, letters), raw, last in zip(self._tags, raws, last_raws, strict=True)
            if raw != last
        }
        # A value outside of ASCII may change how all of them are decoded.
        is_plain = was_plain and are_plain(found)
        if not is_plain:
            found = self._constant | self._found(raws)
            is_plain = are_plain(found)
        values = values | texts_of(found, self._character_set, LITTLE)
        for tag in self._not_indexed:
            values.pop(tag, None)
        self._last = (raws, values, is_plain)
        return values

    def _found(self, raws: tuple[bytes, ...]) -> Found:
        return {tag: (letters, raw) for (tag, letters), raw in zip(self._tags, raws, strict=True)}


def layout_of(data: Fragments, header: Walked, *, depth_max: int) -> Layout | None:
    """Return how an object is laid out that was walked without a warning; None if it is special.

    Parameters
    ----------
    depth_max
        Levels of sequences that the walk may go down.
    """
    syntax = transfer_syntax(header.transfer_syntax_uid)
    if syntax.is_deflated or not syntax.is_little_endian or data.size < tables.HEAD:
        return None
    window = data.window(0, _REACH_MAX)
    same: list[tuple[int, int]] = []
    elements: list[_Element] = []
    position, size = 0, data.size
    while position < size:
        if len(window) - position < tables.HEAD:
            return None
        one, is_known = _element_at(window, position, is_implicit=header.is_implicit_vr)
        end = one.value + one.length
        if not is_known or one.tag in _NEVER:
            return None
        if one.tag in tables.PIXEL_TAGS:
            if end != size:  # encapsulated, or not the last
                return None
            same.append((position, one.value))
        elif one.length == UNDEFINED or one.tag == tags.REQUEST_ATTRIBUTES_SEQUENCE:
            walk = HeaderWalk(data, is_big=False, can_look_ahead=True, depth_max=depth_max)
            vr = LITTLE.vrs[one.letters]
            end = walk.end_of_sequence(one.value, one.length, vr, is_implicit=header.is_implicit_vr)
            same.append((position, end))
        elif one.tag in tables.WANTED:
            elements.append(one)
            same.append((position, end if one.tag in _SAME else one.value))
        else:
            same.append((position, one.value))
        position = end
    wanted = [one.tag for one in elements]
    if len(set(wanted)) < len(wanted) or _reach(same, elements) > len(window):
        return None
    return Layout(window, same, elements, header)


def _element_at(window: bytes, at: int, *, is_implicit: bool) -> tuple[_Element, bool]:
    """Return the element whose head is at a place, and whether that is an ordinary one."""
    if is_implicit:
        key, length = LITTLE.implicit.unpack_from(window, at)
        return _Element(swap(key), 0, at + 8, length), True
    key, letters, length = LITTLE.explicit.unpack_from(window, at)
    head = LITTLE.heads[letters]
    if head == tables.HEAD:
        length = LITTLE.long.unpack_from(window, at + 8)[0]
    return _Element(swap(key), letters, at + head, length), head > 0


def _reach(same: list[tuple[int, int]], elements: list[_Element]) -> int:
    """Return the end of what is looked at."""
    return max([same[-1][1], *(one.value + one.length for one in elements[-1:])])


def _struct(places: list[tuple[int, int]]) -> struct.Struct:
    """Return what takes the bytes of these places out of an object."""
    form = ["<"]
    at = 0
    for begin, end in places:
        form.append(f"{begin - at}x{end - begin}s")
        at = end
    return struct.Struct("".join(form))
