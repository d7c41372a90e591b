"""One form for all answers to a question: they have the same attributes and differ in the texts.

What enters is which attributes there are, once, and then the texts of one answer after another;
what leaves is what `write_identifier` would have written. A question about a day has a hundred
answers of a dozen attributes, so what is known before the first of them is put together before it:
headers, paddings, and whole attributes that are the same in all.

The form knows the usual answer, whose texts are all ASCII. For whatever else there may be it gives
nothing, and leaves it to `write_identifier`.

References
----------
PS3.5 chapter 7 (data elements), 6.2 (padding); PS3.4 C.4.1.1.3 (identifiers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import Final, NamedTuple

from pacsteward.dicom import vrs
from pacsteward.dicom.attributes import vr_of
from pacsteward.dicom.identifier import Value, write_identifier
from pacsteward.dicom.tags import SPECIFIC_CHARACTER_SET
from pacsteward.dicom.uids import transfer_syntax

_NEVER: Final = -1
"""Stands for the tag of what is the same in all answers: nothing is ever filled in."""


class AnswerForm:
    """Encodes the answers to one question.

    Parameters
    ----------
    fixed
        What is the same in all answers, by tag; its texts are ASCII.
    texts
        Tags of the attributes whose texts differ.
    transfer_syntax_uid
        Implicit or Explicit VR Little Endian, or Explicit VR Big Endian.

    Raises
    ------
    Invalid
        The transfer syntax is another, or `fixed` cannot be written.
    """

    def __init__(
        self, fixed: Mapping[int, Value], texts: Iterable[int], transfer_syntax_uid: str
    ) -> None:
        self._syntax_uid = transfer_syntax_uid
        slots = {tag: self._fixed(tag, value) for tag, value in fixed.items()}
        slots |= {tag: self._slot(tag) for tag in texts}
        # Unlike all others it is left out where it is empty.
        slots[SPECIFIC_CHARACTER_SET] = self._slot(SPECIFIC_CHARACTER_SET)._replace(empty=b"")
        self._slots = tuple(slots[tag] for tag in sorted(slots))

    def filled(self, texts: Mapping[int, str], character_set: str) -> bytes | None:
        """Return one answer; None when `write_identifier` has to write it.

        Parameters
        ----------
        texts
            By tag; what is not among them is empty, what the form does not have is left out.
        character_set
            To name in it, "" to name none.
        """
        if texts.get(SPECIFIC_CHARACTER_SET, "") != character_set:
            texts = {**texts, SPECIFIC_CHARACTER_SET: character_set}
        parts: list[bytes] = []
        get = texts.get
        try:
            for tag, head, pack, padding, size_max, empty in self._slots:
                text = get(tag)
                if not text:
                    parts.append(empty)
                elif pack is None:
                    parts.append(self._written(tag, text))
                else:
                    raw = text.encode("ascii")
                    size = len(raw)
                    if size & 1:
                        raw += padding
                        size += 1
                    if size > size_max:
                        return None
                    parts += (head, pack(size), raw)
        except UnicodeEncodeError:
            return None
        return b"".join(parts)

    def _fixed(self, tag: int, value: Value) -> _Slot:
        return _Slot(_NEVER, b"", None, b"", 0, self._written(tag, value))

    def _slot(self, tag: int) -> _Slot:
        vr, empty = vr_of(tag), self._written(tag, "")
        syntax = transfer_syntax(self._syntax_uid)
        has_16_bits = not syntax.is_implicit_vr and vr in vrs.SHORT_LENGTH
        order = "<" if syntax.is_little_endian else ">"
        length = Struct(order + ("H" if has_16_bits else "I"))
        return _Slot(
            tag=tag,
            head=empty[: -length.size],
            pack=length.pack if vr in vrs.TEXT else None,
            padding=b"\0" if vr == "UI" else b" ",
            size_max=0xFFFE if has_16_bits else 0xFFFFFFFE,
            empty=empty,
        )

    def _written(self, tag: int, value: Value) -> bytes:
        return write_identifier(
            {tag: value}, character_set="", transfer_syntax_uid=self._syntax_uid
        )


class _Slot(NamedTuple):
    """One attribute, and how a text is written into it."""

    tag: int
    head: bytes
    """Up to the length."""
    pack: Callable[[int], bytes] | None
    """Writes the length; None where the value is not simply text."""
    padding: bytes
    size_max: int
    empty: bytes
    """The whole attribute without a text."""
