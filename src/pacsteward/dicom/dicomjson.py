"""The DICOM JSON model (PS3.18 Annex F).

`to_json` turns a pydicom data set into the model, for metadata; `value` turns one indexed text
into an attribute object without any data set, for query answers. The way back, `from_json`, is
in `dicomjson_reader`.

Choices that the standard leaves:

- DS and IS are JSON numbers where a double has exactly the value of the text, up to fifteen
  digits, else the text, so that "0.143" never becomes 0.142999 (F.2.3);
- a binary value above a limit is a BulkDataURI, below it InlineBinary; pixel data are never
  inline, and are left out when there is no URI for them;
- a float that JSON lacks is the string "NaN", "Infinity" or "-Infinity": Annex F is silent, and
  these are what browsers read back as the same number;
- an attribute whose value cannot be read is given as its bytes, in InlineBinary with VR UN: what
  was sent must not vanish because one device wrote a letter into a number.

JSON text is always Unicode. The character set of the data set stays among the attributes, as
`ISO_IR 192`, which is what a client that writes the texts down again has to declare (F.2.2).

References
----------
PS3.18 Annex F; PS3.5 6.2.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from pacsteward.base.errors import Invalid
from pacsteward.dicom import charset, vrs
from pacsteward.dicom.attributes import is_private, is_private_creator, is_vr_open, vr_of
from pacsteward.dicom.dicomjson_reader import DEPTH_MAX, GROUPS, Path, bulk_data, from_json
from pacsteward.dicom.tags import SPECIFIC_CHARACTER_SET

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset

__all__ = [
    "INLINE_LIMIT_BYTES", "BulkDataUri", "Json", "Path", "bulk_data", "dumps", "from_json", "key",
    "to_json", "value",
]  # fmt: skip

Json: TypeAlias = dict[str, Any]

BulkDataUri: TypeAlias = Callable[[Path], str | None]
"""Returns where a value can be fetched, None to leave it out or inline."""

INLINE_LIMIT_BYTES: Final = 1024

_PIXEL_DATA: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_RAW_VRS: Final = vrs.ALL - {"SQ"}
"""Representations whose values we convert ourselves."""
_TEXT_LIMIT_BYTES: Final = 1 << 20
"""Longer texts become bulk data where there is a URI (F.2.2 allows it for LT, ST, UC, UT)."""


# --- one indexed text ----------------------------------------------------------------------------


def value(tag: int, text: str, vr: str = "") -> Json:
    """Return the attribute object of one indexed text.

    Parameters
    ----------
    tag
        Its VR is that of the dictionary unless given.
    text
        Decoded, without padding, several values separated by backslashes.
    """
    representation = vr or vr_of(tag)
    if not text:
        return {"vr": representation}
    words = [text] if representation in vrs.SINGLE_VALUED else text.split("\\")
    convert = _CONVERTERS.get(representation, _word)
    return _attribute(representation, [convert(word) for word in words])


def _attribute(vr: str, values: list[Any]) -> Json:
    """Return an attribute object; one whose only value is empty has none (F.2.5).

    A name of nothing but delimiters is such a value ("^^^^", as many devices write a referring
    physician). OHIF 3.13 opens no study in whose answer stands ``[null]``.
    """
    return {"vr": vr} if values == [None] else {"vr": vr, "Value": values}


def key(tag: int) -> str:
    """Return the name of an attribute in the model: eight upper case hexadecimal digits."""
    return f"{tag:08X}"


def dumps(model: object) -> bytes:
    """Return JSON text in UTF-8, without spaces."""
    return _ENCODER.encode(model).encode("utf-8", "replace")


# One for all: to make it anew takes as long as a short text.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _word(text: str) -> str | None:
    return text or None


_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]{1,2})?")
_EXACT_DIGITS: Final = 15
"""So many significant digits survive the way through a double and back, always."""


def _number(text: str) -> int | float | str | None:
    """Return a JSON number of exactly the same value, else the text."""
    form = _DECIMAL.fullmatch(text)
    if form is None or sum(map(str.isdigit, text)) > _EXACT_DIGITS:
        return text or None
    return float(text) if any(form.groups()) else int(text)


def _integer(text: str) -> int | str | None:
    try:
        return int(text)
    except ValueError:
        return text or None


def _float(text: str) -> float | str | None:
    try:
        return _finite(float(text))
    except ValueError:
        return text or None


def _finite(number: float) -> float | str:
    """Return a float, or the word for one that JSON lacks; see the top of the file."""
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _person_name(text: str) -> Json | None:
    groups = {
        name: group.rstrip("^ ") for name, group in zip(GROUPS, text.split("=", 2), strict=False)
    }
    return {name: group for name, group in groups.items() if group} or None


def _tag_text(text: str) -> str:
    return text.upper()


_CONVERTERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "PN": _person_name,
    "DS": _number,
    "IS": _number,
    "AT": _tag_text,
    **dict.fromkeys(vrs.INTEGERS, _integer),
    **dict.fromkeys(vrs.FLOATS, _float),
}


# --- a data set to JSON --------------------------------------------------------------------------


def to_json(
    dataset: Dataset,
    *,
    bulk_data_uri: BulkDataUri,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
    skip: Iterable[int] = (),
) -> Json:
    """Return a data set in the JSON model.

    Parameters
    ----------
    dataset
        As pydicom read it; values that were not looked at yet are converted without it.
    bulk_data_uri
        Called for pixel data and for values above the limit, with the path of the attribute.
    inline_limit_bytes
        Longest binary value that is given as InlineBinary.
    skip
        Tags of the first level that are left out.
    """
    writer = _Writer(bulk_data_uri, inline_limit_bytes)
    left_out = frozenset(skip)
    model = writer.data_set(dataset, (), _character_sets(dataset, ("",)), left_out)
    if key(SPECIFIC_CHARACTER_SET) in model:
        model[key(SPECIFIC_CHARACTER_SET)] = {"vr": "CS", "Value": [charset.UTF_8]}
    return model


class _Writer:
    """One conversion."""

    def __init__(self, bulk_data_uri: BulkDataUri, inline_limit_bytes: int) -> None:
        self._bulk_data_uri = bulk_data_uri
        self._inline_limit_bytes = inline_limit_bytes
        # Imported here: it takes a quarter of a second, and query answers need none of it.
        from pacsteward.dicom.pydicom_parts import BytesLengthException, RawDataElement

        self._raw_type: type = RawDataElement
        self._refusals = (
            BytesLengthException, ValueError, TypeError, KeyError, AttributeError,
            NotImplementedError, OverflowError, struct.error,
        )  # fmt: skip

    def data_set(
        self,
        dataset: Dataset,
        path: Path,
        character_sets: tuple[str, ...],
        left_out: frozenset[int] = frozenset(),
    ) -> Json:
        """Return one level, sorted by tag, without group lengths (F.2.2)."""
        if len(path) > 2 * DEPTH_MAX:
            raise Invalid(
                "The data set was not converted to JSON.",
                why=f"Its sequences are nested more than {DEPTH_MAX} levels deep.",
                remedy="Retrieve the object as it is stored.",
            )
        # `items` gives elements as they were read; indexing would have pydicom parse them, and
        # its tags compare slowly.
        elements = {int(tag): element for tag, element in dataset.items()}
        model: Json = {}
        for tag in sorted(elements):
            if tag & 0xFFFF and tag not in left_out:
                attribute = self._attribute(
                    dataset, elements[tag], tag, (*path, tag), character_sets
                )
                if attribute is not None:
                    model[f"{tag:08X}"] = attribute
        return model

    def _attribute(
        self,
        dataset: Dataset,
        element: DataElement | RawDataElement,
        tag: int,
        path: Path,
        character_sets: tuple[str, ...],
    ) -> Json | None:
        if tag in _PIXEL_DATA:
            uri = self._bulk_data_uri(path)
            return {"vr": str(element.VR or "OW"), "BulkDataURI": uri} if uri else None
        if type(element) is self._raw_type:
            converted = self._from_raw(cast("RawDataElement", element), tag, path, character_sets)
            if converted is not None:
                return converted
        try:
            return self._from_element(dataset, dataset[tag], path, character_sets)
        except self._refusals:
            # pydicom refuses values that break their VR. The bytes are still the sender's.
            content = element.value if isinstance(element.value, bytes) else b""
            return self._binary(content, "UN", path)

    def _from_raw(
        self, raw: RawDataElement, tag: int, path: Path, character_sets: tuple[str, ...]
    ) -> Json | None:
        """Convert an element that pydicom has not parsed; None where it has to.

        Parsing costs ten times as much as converting.
        """
        content = raw.value
        vr = raw.VR or _registered_vr(tag)
        if vr == "UN" and is_private_creator(tag):
            # LO by rule, also where a conversion on the way has called it unknown (PS3.5 7.8.1).
            vr = "LO"
        # A value of None is one that pydicom left in the file. Of words in implicit VR other
        # attributes decide, and UN may be known to a registry, also to pydicom's of vendors.
        if (
            content is None
            or vr not in _RAW_VRS
            or (vr == "UN" and not (raw.VR and is_private(tag)))
        ):
            return None
        if not content:
            return {"vr": vr}
        if vr in vrs.TEXT:
            if vr in _LONG_TEXTS and len(content) > _TEXT_LIMIT_BYTES:
                uri = self._bulk_data_uri(path)
                if uri:
                    return {"vr": vr, "BulkDataURI": uri}
            text = charset.decode(content, character_sets, is_person_name=vr == "PN")
            return value(tag, _strip(text, vr), vr)
        if vr in vrs.BINARY:
            return self._binary(content, vr, path, is_little_endian=raw.is_little_endian)
        numbers = _numbers(content, vr, is_little_endian=raw.is_little_endian)
        return {"vr": vr, "Value": numbers} if numbers else self._binary(content, "UN", path)

    def _from_element(
        self, dataset: Dataset, element: DataElement, path: Path, character_sets: tuple[str, ...]
    ) -> Json:
        vr = _single_vr(str(element.VR))
        content = element.value
        if vr == "SQ":
            items = [
                self.data_set(item, (*path, number), _character_sets(item, character_sets))
                for number, item in enumerate(content)
            ]
            return {"vr": vr, "Value": items} if items else {"vr": vr}
        if content is None or content == "" or (isinstance(content, list) and not content):
            return {"vr": vr}
        if vr in vrs.BINARY:
            # pydicom leaves the words of a big endian data set as they are.
            is_little_endian = dataset.original_encoding[1] is not False
            return self._binary(_as_bytes(content), vr, path, is_little_endian=is_little_endian)
        values = list(content) if element.VM > 1 else [content]
        return _attribute(vr, [_parsed(one, vr) for one in values])

    def _binary(
        self, content: bytes, vr: str, path: Path, *, is_little_endian: bool = True
    ) -> Json:
        if not content:
            return {"vr": vr}
        if len(content) > self._inline_limit_bytes and (uri := self._bulk_data_uri(path)):
            return {"vr": vr, "BulkDataURI": uri}
        if not is_little_endian and vr in vrs.WORD_SIZES:
            # InlineBinary is little endian whatever the data set was (F.2.7).
            content = _swap_bytes(content, vrs.WORD_SIZES[vr])
        return {"vr": vr, "InlineBinary": base64.b64encode(content).decode("ascii")}


def _swap_bytes(content: bytes, size: int) -> bytes:
    swapped = bytearray(len(content) // size * size)
    for place in range(size):
        swapped[place::size] = content[size - 1 - place : len(swapped) : size]
    return bytes(swapped)


_LONG_TEXTS: Final = frozenset({"LT", "ST", "UC", "UT"})


@lru_cache(maxsize=8192)
def _registered_vr(tag: int) -> str:
    """Return the VR of an element in implicit VR, "" where the registry leaves it open."""
    return "" if is_private(tag) or is_vr_open(tag) else vr_of(tag)


def _numbers(content: bytes, vr: str, *, is_little_endian: bool) -> list[Any]:
    """Return binary numbers or tags; none when the length does not fit."""
    prefix = "<" if is_little_endian else ">"
    if vr == "AT":
        if len(content) % 4:
            return []
        halves = struct.unpack(f"{prefix}{len(content) // 2}H", content)
        return [
            f"{group:04X}{number:04X}"
            for group, number in zip(halves[::2], halves[1::2], strict=True)
        ]
    code = vrs.NUMBER_CODES[vr]
    size = struct.calcsize(code)
    if len(content) % size:
        return []
    numbers = struct.unpack(f"{prefix}{len(content) // size}{code}", content)
    return list(map(_finite, numbers)) if vr in vrs.FLOATS else list(numbers)


def _strip(text: str, vr: str) -> str:
    if vr in vrs.SINGLE_VALUED:
        return text.rstrip(" \0")
    if "\\" not in text:
        return text.strip(" \0")
    return "\\".join(word.strip(" \0") for word in text.split("\\"))


def _character_sets(dataset: Dataset, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """Return the character sets of a data set; an item without one has its parent's."""
    if SPECIFIC_CHARACTER_SET not in dataset:
        return inherited
    content = dataset.get_item(SPECIFIC_CHARACTER_SET).value
    if isinstance(content, bytes):
        return tuple(content.decode("latin-1").strip(" \0").split("\\"))
    if content is None or isinstance(content, str):
        return tuple((content or "").split("\\"))
    return tuple(map(str, content))


def _single_vr(vr: str) -> str:
    """Settle the representations that PS3.6 leaves open, as pydicom could not."""
    return {"US or SS": "US"}.get(vr, "OW" if " or " in vr else vr)


def _as_bytes(content: object) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, list | tuple):
        return b"".join(map(_as_bytes, content))
    return str(content).encode("utf-8")


def _parsed(one: Any, vr: str) -> Any:
    """Return one value that pydicom has parsed."""
    if one is None or one == "":
        return None
    if vr in ("DS", "IS"):
        return _number(str(getattr(one, "original_string", one)).strip(" \0"))
    if vr in vrs.FLOATS:
        return _finite(float(one))
    if vr in vrs.INTEGERS:
        return int(one)
    if vr == "AT":
        return key(int(one))
    if vr == "PN":
        return _person_name(str(one))
    return str(getattr(one, "original_string", one)).rstrip(" \0")
