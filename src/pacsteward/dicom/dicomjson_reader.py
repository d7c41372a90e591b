"""From the DICOM JSON model to a data set (PS3.18 Annex F), for what STOW-RS clients send.

Everything in it is checked, since it comes from outside: names, representations, types of JSON
values, depth. What clients get wrong often and what has one meaning only is taken as they meant
it (`null` items, a name as plain text).

References
----------
PS3.18 F.2 and 10.5; PS3.5 6.2.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pacsteward.base.errors import Invalid
from pacsteward.dicom import charset, vrs
from pacsteward.dicom.attributes import name_of, tag_of, vr_of
from pacsteward.dicom.tags import SPECIFIC_CHARACTER_SET

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Path: TypeAlias = tuple[int, ...]
"""Where an attribute is: tag, item number from 0, tag, ... , tag."""

DEPTH_MAX: Final = 64
GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
"""Component groups of a person name (F.2.2)."""


def from_json(model: object) -> Dataset:
    """Return the data set of a JSON object, as STOW-RS metadata have it.

    Values given by BulkDataURI come out empty; the caller fills them from the parts of the
    request. The data set's texts are Unicode, so its Specific Character Set becomes ISO_IR 192
    where any text needs it.

    Raises
    ------
    Invalid
        When it is not a data set in the DICOM JSON model, or nested deeper than 64 levels.
    """
    reader = _Reader()
    dataset = reader.data_set(model, 0)
    if reader.needs_unicode:
        dataset.SpecificCharacterSet = charset.UTF_8
    return dataset


def bulk_data(model: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield path and URI of every value that a JSON object leaves to another part.

    `from_json` must have accepted the object, since that bounds its depth.
    """
    if not isinstance(model, dict):
        return
    for name, attribute in model.items():
        here = (*path, _tag(name))
        uri = attribute.get("BulkDataURI")
        if isinstance(uri, str):
            yield here, uri
        if attribute.get("vr") == "SQ":
            for number, item in enumerate(attribute.get("Value", [])):
                yield from bulk_data(item, (*here, number))


class _Reader:
    """One conversion; notes whether any text is beyond ASCII."""

    def __init__(self) -> None:
        self.needs_unicode = False

    def data_set(self, model: object, depth: int) -> Dataset:
        # A quarter of a second, and only STOW-RS and workitems need it.
        from pacsteward.dicom.pydicom_parts import Dataset

        if not isinstance(model, dict):
            raise _bad_model("An object was expected where a data set begins.")
        if depth > DEPTH_MAX:
            raise _bad_model(f"Sequences are nested more than {DEPTH_MAX} levels deep.")
        dataset = Dataset()
        for name, attribute in model.items():
            tag = _tag(name)
            # The texts of an item are Unicode as well, whatever it says that they came from.
            is_outdated = bool(depth) and tag == SPECIFIC_CHARACTER_SET
            if tag & 0xFFFF and not is_outdated:
                self._add(dataset, tag, attribute, depth)
        return dataset

    def _add(self, dataset: Dataset, tag: int, attribute: object, depth: int) -> None:
        from pacsteward.dicom.pydicom_parts import DataElement, Sequence, config

        if not isinstance(attribute, dict):
            raise _bad_model(f"{name_of(tag)} is not an object.")
        vr = attribute.get("vr", vr_of(tag))
        if not isinstance(vr, str) or vr not in vrs.ALL:
            raise _bad_model(f"{name_of(tag)} has no VR of PS3.5.")
        values = attribute.get("Value", [])
        if not isinstance(values, list):
            raise _bad_model(f"The Value of {name_of(tag)} is not an array.")
        try:
            content: Any
            if vr == "SQ":
                # null for an empty item is against F.2.5, and common.
                content = Sequence([self.data_set(item or {}, depth + 1) for item in values])
            elif vr in vrs.BINARY:
                content = _inline_binary(tag, attribute)
            else:
                content = self._content(vr, values)
            dataset.add(DataElement(tag, vr, content, validation_mode=config.IGNORE))
        except (ValueError, TypeError, OverflowError) as error:
            raise _bad_model(f"The value of {name_of(tag)} does not fit VR {vr}.") from error

    def _content(self, vr: str, values: list[Any]) -> Any:
        contents = [_person_name_text(one) if vr == "PN" else _scalar(vr, one) for one in values]
        if not contents:
            return "" if vr in vrs.TEXT else None
        beyond_ascii = [one for one in contents if isinstance(one, str) and not one.isascii()]
        for one in beyond_ascii:
            one.encode()  # raises for half a surrogate pair, which would be kept as "?"
            self.needs_unicode = True
        return contents[0] if len(contents) == 1 else contents


def _tag(name: object) -> int:
    if not isinstance(name, str):
        raise _bad_model("An attribute has no name.")
    try:
        return tag_of(name)
    except Invalid as error:
        raise _bad_model(error.why) from error


def _inline_binary(tag: int, attribute: Mapping[str, Any]) -> bytes:
    inline = attribute.get("InlineBinary", "")
    if isinstance(inline, list):  # a common slip, since Value is an array
        inline = inline[0] if inline else ""
    if not isinstance(inline, str):
        raise _bad_model(f"InlineBinary of {name_of(tag)} is not a text.")
    try:
        return base64.b64decode(inline, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_model(f"InlineBinary of {name_of(tag)} is not base64.") from error


def _person_name_text(one: Any) -> str:
    if one is None or isinstance(one, str):  # clients of old send the text itself
        return one or ""
    if not isinstance(one, dict):
        raise TypeError("an object was expected")
    groups = [one.get(name) or "" for name in GROUPS]
    return "=".join(groups).rstrip("=")


def _scalar(vr: str, one: Any) -> Any:
    if isinstance(one, dict | list | bool):
        raise TypeError("a text or a number was expected")
    if one is None:
        return ""
    if vr == "AT":
        return tag_of(str(one))
    if vr in vrs.INTEGERS:
        return int(one)
    if vr in vrs.FLOATS:
        return float(one)
    if vr in ("DS", "IS") and isinstance(one, float):
        return _decimal_text(one, vr)
    return str(one)


def _decimal_text(number: float, vr: str) -> str:
    """Return a JSON number as DS or IS; DS may have 16 characters (PS3.5 6.2)."""
    if not math.isfinite(number) or (vr == "IS" and not number.is_integer()):
        raise ValueError("not a number of this VR")
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    for digits in range(16, 8, -1):
        text = f"{number:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError("not a decimal string")


def _bad_model(why: str) -> Invalid:
    return Invalid(
        "This is not a data set in the DICOM JSON model.",
        why=why,
        remedy="See PS3.18 Annex F for its form.",
    )
