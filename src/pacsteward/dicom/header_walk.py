"""The walk over the elements of an arriving object, for the header reader.

The two loops are long and alike on purpose: they run a hundred times for every image that a
hospital makes, so nothing in them is called that can be written out. What they meet rarely
(sequences of undefined length, pixel data, padding, heads that break the rules) is `_marked` and
`_odd_head`.

No length is trusted: a value is looked at only within the bytes that are there, every step goes
forward, nesting and the total of bytes looked at are bounded.

References
----------
PS3.5 7.1 (element heads), 7.5 (nested data sets), A.4 (encapsulated pixel data).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pacsteward.base.errors import Invalid
from pacsteward.dicom.attributes import format_tag, name_of
from pacsteward.dicom.fragments import ByteSource
from pacsteward.dicom.header_tables import (
    BIG,
    HEAD,
    LITTLE,
    PIXEL_TAGS,
    UNDEFINED,
    VR_LETTERS,
    Order,
    swap,
)
from pacsteward.dicom.tags import (
    ITEM,
    ITEM_DELIMITATION_ITEM,
    REQUEST_ATTRIBUTES_SEQUENCE,
    SEQUENCE_DELIMITATION_ITEM,
)


class Pixels(NamedTuple):
    """Where the pixel data element lies; see `header.PixelData`."""

    tag: int
    vr: str
    value_offset: int
    value_length: int | None
    end_offset: int
    fragment_count: int


DEPTH_MAX: Final = 64
"""Real objects stay below ten levels of sequences."""
VALUE_MAX: Final = 65536
"""Longer values are not indexed; the longest that PS3.5 allows for an indexed VR is 10,240."""
WALKED_MAX: Final = 128 << 20
"""Bytes of elements that are looked at one by one. A slide with 100,000 frames has some tens of
megabytes of functional groups; more than this is made to keep us busy."""
ITEMS_MAX: Final = 64
"""Items of Request Attributes Sequence that are read."""
_ITEM_COST: Final = 128
"""What an item or a fragment counts of `WALKED_MAX`: passing one takes as long as so many bytes of
elements. An object of more than a million is refused; slides have half of that."""

_WINDOW: Final = 16384


Found = dict[int, tuple[int, bytes]]
"""VR, as it unpacks, and raw value by tag; of a tag that comes twice, the last.

The VR is 0 in implicit VR; `Order.vrs` has its letters."""


class HeaderWalk:
    """One reading of one data set: what was found so far."""

    __slots__ = (
        "_base", "_buffer", "_depth_max", "_grow", "can_look_ahead", "found", "items", "order",
        "pixels", "source", "walked", "warnings",
    )  # fmt: skip

    def __init__(
        self,
        source: ByteSource,
        *,
        is_big: bool,
        can_look_ahead: bool,
        depth_max: int = DEPTH_MAX,
    ) -> None:
        self.source = source
        self.order = BIG if is_big else LITTLE
        self.can_look_ahead = can_look_ahead
        self.found: Found = {}
        self.items: list[Found] = []
        self.pixels: Pixels | None = None
        self.walked = 0
        self.warnings: dict[str, None] = {}
        self._depth_max = depth_max
        self._buffer = b""
        self._base = 0
        self._grow = _WINDOW // 4

    def warn(self, text: str) -> None:
        """Note once what was wrong."""
        self.warnings[text] = None

    def choose_encoding(self, *, is_implicit: bool) -> bool:
        """Return whether the data set is in implicit VR, whatever was announced.

        Where explicit VR has two capital letters, implicit VR has the low half of a length. The
        first element of a data set is short, so the two cannot be mistaken for each other.
        """
        head, _, _, _ = self._load(0, None)
        if head[128:132] == b"DICM":
            raise Invalid(
                "The data set begins with the preamble of a file.",
                why="A data set is sent without preamble and file meta (PS3.10 7.1).",
                remedy="Correct the sender's settings.",
            )
        if self.order is BIG or len(head) < 8:
            return is_implicit
        letters = head[4:6]
        if is_implicit and (letters in VR_LETTERS):
            self.warn("It was announced in implicit VR and is in explicit VR.")
            return False
        if not is_implicit and not letters.isalpha():
            following = 8 + self.order.long.unpack_from(head, 4)[0]
            letters = self.source.window(following + 4, 2)
            if self.source.reaches(following) and not letters.isalpha():
                self.warn("It was announced in explicit VR and is in implicit VR.")
                return True
        return is_implicit

    def run(self, *, is_implicit: bool) -> None:
        """Walk the whole data set."""
        self._walk(0, None, self.found, self.order, 0, is_implicit=is_implicit)

    def end_of_sequence(self, position: int, length: int, vr: str, *, is_implicit: bool) -> int:
        """Return the offset after a sequence at the top level whose value begins at `position`."""
        return self._pass_sequence(position, length, vr, self.order, 0, is_implicit, None)

    def _walk(
        self,
        position: int,
        end: int | None,
        found: Found | None,
        order: Order,
        depth: int,
        *,
        is_implicit: bool,
    ) -> int:
        """Walk one level of elements; return the offset after it.

        At depth 0 it ends with the bytes. Deeper, an item ends at ``end`` or, where that is
        None, with its delimiter. What is wanted goes to ``found``.
        """
        if depth > self._depth_max:
            raise Invalid(
                "The data set was not read.",
                why=f"Its sequences are nested more than {self._depth_max} levels deep.",
                remedy="Raise `archive.sequence_depth_max` if such objects are wanted.",
            )
        loop = self._walk_implicit if is_implicit else self._walk_explicit
        return loop(position, end, found, order, depth)

    def _walk_explicit(
        self, position: int, end: int | None, found: Found | None, order: Order, depth: int
    ) -> int:
        unpack = order.explicit.unpack_from
        unpack_long = order.long.unpack_from
        heads = order.heads
        get = (order.marked if found is None else order.special).get
        base, at, last, size = position, 0, -1, 0
        buffer = b""
        while True:
            if at > last:
                position = base + at
                buffer, base, at, last = self._load(position, end)
                if last - at < 8 - HEAD:
                    return self._finish(position, buffer[at : last + HEAD], end, depth)
                if at > last:
                    # Room for the longest head; the length in it is checked like any other.
                    buffer = buffer[at : last + HEAD] + b"\0\0\0\0"
                    base, at, last = position, 0, 0
                size = len(buffer)
            key, letters, length = unpack(buffer, at)
            head = heads[letters]
            if head == 8:
                value = at + 8
            elif head:
                value = at + 12
                length = unpack_long(buffer, at + 8)[0]
            else:
                letters, value, length = self._odd_head(buffer, at, base, order)
            tag = get(key)
            if tag is None and length != UNDEFINED:
                at = value + length
            elif tag and length != UNDEFINED:
                if value + length <= size:
                    found[tag] = (letters, buffer[value : value + length])  # type: ignore[index]
                else:
                    self._collect(found, tag, letters, base + value, length)
                at = value + length
            else:
                stop = self._marked(
                    key, order.vrs[letters], base + value, length, found, order, depth, False
                )
                if stop < 0:
                    if depth and end is None:
                        return -stop
                    stop = -stop
                at = stop - base

    def _walk_implicit(
        self, position: int, end: int | None, found: Found | None, order: Order, depth: int
    ) -> int:
        unpack = order.implicit.unpack_from
        special = order.marked if found is None else order.special
        base, at, last = position, 0, -1
        buffer = b""
        while True:
            if at > last:
                position = base + at
                buffer, base, at, last = self._load(position, end)
                if last - at < 8 - HEAD:
                    return self._finish(position, buffer[at : last + HEAD], end, depth)
                last += HEAD - 8
            key, length = unpack(buffer, at)
            value = at + 8
            if key not in special and length != UNDEFINED:
                at = value + length
                continue
            tag = special.get(key, 0)
            if tag and length != UNDEFINED:
                if value + length <= len(buffer):
                    found[tag] = (0, buffer[value : value + length])  # type: ignore[index]
                else:
                    self._collect(found, tag, 0, base + value, length)
                at = value + length
            else:
                stop = self._marked(key, "", base + value, length, found, order, depth, True)
                if stop < 0:
                    if depth and end is None:
                        return -stop
                    stop = -stop
                at = stop - base

    def _load(self, position: int, end: int | None) -> tuple[bytes, int, int, int]:
        """Return a buffer that holds ``position``, its base, the place in it, the last place.

        The last place is the last one from which the longest head can be read.
        """
        at = position - self._base
        if not 0 <= at <= len(self._buffer) - 64:
            # Elements side by side are read in large windows; after a long value a small one is
            # enough, since the next value may be as long.
            is_next = 0 <= at <= len(self._buffer)
            self._grow = min(self._grow * 2, _WINDOW) if is_next else 512
            self._buffer = self.source.window(position, self._grow)
            self._base = position
            at = 0
            self._spend(len(self._buffer))
        limit = len(self._buffer)
        if end is not None:
            limit = max(at, min(limit, end - self._base))
        return self._buffer, self._base, at, limit - HEAD

    def _spend(self, size: int) -> None:
        self.walked += size
        if self.walked > WALKED_MAX:
            raise Invalid(
                "The data set was not read.",
                why=f"More than {WALKED_MAX >> 20} MiB of it are heads of elements.",
                remedy="Have it corrected where it was made.",
            )

    def _finish(self, position: int, rest: bytes, end: int | None, depth: int) -> int:
        """Check that a level ends where it may end; return that offset."""
        if end is not None:
            if position == end:
                return position
            raise _broken(position, "An element reaches beyond the item that holds it.")
        if depth or not self.source.reaches(position):
            raise self._cut_short()
        # In big endian a lone zero is how every tag begins.
        if rest.strip(b"\0") or (rest and self.order is BIG):
            raise self._cut_short()
        if rest:
            self.warn("There are zeros after the end.")
        return position + len(rest)

    def _cut_short(self) -> Invalid:
        return Invalid(
            f"The data set is cut short at offset {self.source.size}.",
            why="Its last element is not complete.",
            remedy="Send the object again.",
        )

    def _collect(
        self, found: Found | None, tag: int, letters: int, offset: int, length: int
    ) -> None:
        """Take a value that reaches beyond the window."""
        if not self.source.reaches(offset) or found is None:
            return
        if length > VALUE_MAX:
            self.warn(f"{name_of(tag)} has {length} bytes and was not indexed.")
            found.pop(tag, None)
            return
        found[tag] = (letters, bytes(self.source.read(offset, length)))

    # --- the rare cases ---------------------------------------------------------------------

    def _odd_head(self, buffer: bytes, at: int, base: int, order: Order) -> tuple[int, int, int]:
        """Return VR, place of the value and its length for a head without a known VR.

        Items and delimiters have no VR. Else a device invented a VR or wrote the element in
        implicit VR; of the forms that it can have, the one after which another element follows
        is taken.
        """
        key, _, short = order.explicit.unpack_from(buffer, at)
        letters = buffer[at + 4 : at + 6]
        length = order.long.unpack_from(buffer, at + 4)[0]
        tag = _unswap(key, order)
        if tag >> 16 == 0xFFFE or tag == 0:
            return 0, at + 8, length
        implicit = (0, at + 8, length)
        as_short = (order.unknown, at + 8, short)
        as_long = (order.unknown, at + 12, order.long.unpack_from(buffer, at + 8)[0])
        if letters.isalpha() and letters.isupper():
            # PS3.5 6.2: VRs still to come have the long form.
            forms = [as_long, as_short] if short == 0 else [as_short, as_long]
        else:
            forms = [implicit, as_long, as_short]
        for form in forms:
            if self._can_follow(tag, base + form[1], form[2], order):
                self.warn(
                    "Elements in implicit VR stand among explicit ones."
                    if form is implicit
                    else "There are elements with a VR that does not exist."
                )
                return form
        raise _broken(base + at, f"{format_tag(tag)} has a VR that does not exist.")

    def _can_follow(self, tag: int, value: int, length: int, order: Order) -> bool:
        """Whether what lies after a value looks like the next element, or like the end."""
        if not self.can_look_ahead:
            return True
        if length == UNDEFINED:
            head = self.source.window(value, 8)
            return len(head) == 8 and _unswap(order.long.unpack_from(head)[0], order) in (
                ITEM,
                SEQUENCE_DELIMITATION_ITEM,
            )
        if not self.source.reaches(value + length):
            return False
        head = self.source.window(value + length, 8)
        if len(head) < 8:
            return True
        following = _unswap(order.long.unpack_from(head)[0], order)
        if following >> 16 == 0xFFFE:
            return True
        if following < tag and following >> 16 != tag >> 16:
            return False
        letters = head[4:6]
        return letters in VR_LETTERS or not letters.isalpha()

    def _marked(
        self,
        key: int,
        vr: str,
        value: int,
        length: int,
        found: Found | None,
        order: Order,
        depth: int,
        is_implicit: bool,
    ) -> int:
        """Pass over an element that needs a closer look; return the offset after it.

        The offset after an item delimiter comes back negative.
        """
        tag = _unswap(key, order)
        if tag == ITEM_DELIMITATION_ITEM:
            if not depth:
                self.warn("There are delimiters without an item.")
            return -value
        if tag == SEQUENCE_DELIMITATION_ITEM and not depth:
            self.warn("There are delimiters without an item.")
            return value
        if tag in (ITEM, SEQUENCE_DELIMITATION_ITEM):
            raise _broken(value - 8, "An item or a delimiter stands outside of a sequence.")
        if tag == 0:
            return self._pass_zeros(value, length)
        if tag in PIXEL_TAGS and not depth:
            return self._note_pixels(tag, vr, value, length, order)
        if tag == REQUEST_ATTRIBUTES_SEQUENCE and found is self.found:
            return self._pass_sequence(value, length, vr, order, depth, is_implicit, self.items)
        if length == UNDEFINED:
            return self._pass_sequence(value, length, vr, order, depth, is_implicit, None)
        return value + length

    def _pass_zeros(self, value: int, length: int) -> int:
        """Pass over zeros after the last element; some writers fill up to a block."""
        if length:
            return value + length
        position = value
        while block := self.source.window(position, _WINDOW):
            if block.strip(b"\0"):
                raise _broken(value - 8, "Zeros stand where an element should begin.")
            position += len(block)
        self.warn("There are zeros after the end.")
        return position

    def _note_pixels(self, tag: int, vr: str, value: int, length: int, order: Order) -> int:
        if length != UNDEFINED:
            self.pixels = Pixels(tag, vr, value, length, value + length, 0)
            return value + length
        position = value
        count = 0
        while True:
            item, size = self._item_head(position, order)
            position += 8
            if item == SEQUENCE_DELIMITATION_ITEM:
                break
            if item != ITEM or size == UNDEFINED:
                raise _broken(position - 8, "Encapsulated pixel data hold something else.")
            position += size
            count += 1
        # The first item is the basic offset table (PS3.5 A.4).
        self.pixels = Pixels(tag, vr, value, None, position, max(count - 1, 0))
        return position

    def _pass_sequence(
        self,
        position: int,
        length: int,
        vr: str,
        order: Order,
        depth: int,
        is_implicit: bool,
        items: list[Found] | None,
    ) -> int:
        """Pass over a sequence item by item, keeping what is wanted of them in ``items``."""
        if not vr and not is_implicit:
            # An element in implicit VR among explicit ones; its items may be either.
            is_implicit = not self._is_explicit(position)
        elif vr == "UN" and length == UNDEFINED:
            # PS3.5 6.2.2, note 2: of undefined length and unknown, it is in implicit VR little
            # endian. Some archives left it explicit, so the first element decides.
            order = LITTLE
            is_implicit = not self._is_explicit(position)
        end = None if length == UNDEFINED else position + length
        while end is None or position < end:
            item, size = self._item_head(position, order)
            position += 8
            if item == SEQUENCE_DELIMITATION_ITEM:
                return position if end is None else end
            if item != ITEM:
                raise _broken(position - 8, f"{format_tag(item)} stands where an item should.")
            found: Found | None = None
            if items is not None and len(items) < ITEMS_MAX:
                found = {}
                items.append(found)
            if size == UNDEFINED:
                position = self._walk(
                    position, None, found, order, depth + 1, is_implicit=is_implicit
                )
            else:
                if found is not None:
                    self._walk(
                        position, position + size, found, order, depth + 1, is_implicit=is_implicit
                    )
                position += size
        if position != end:
            raise _broken(position, "An item reaches beyond the sequence that holds it.")
        return position

    def _is_explicit(self, position: int) -> bool:
        """Whether the first element of the first item has a VR."""
        letters = self.source.window(position, 14)[12:14]
        return letters in VR_LETTERS

    def _item_head(self, position: int, order: Order) -> tuple[int, int]:
        # Not `reaches` first: an inflating source would have forgotten the head by then.
        head = self.source.window(position, 8)
        if len(head) < 8:
            raise self._cut_short()
        self._spend(_ITEM_COST)
        key, length = order.implicit.unpack_from(head)
        return _unswap(key, order), length


def _unswap(key: int, order: Order) -> int:
    return key if order is BIG else swap(key)


def _broken(offset: int, why: str) -> Invalid:
    return Invalid(
        f"The data set cannot be read at offset {offset}.",
        why=why,
        remedy="Have it corrected where it was made.",
    )
