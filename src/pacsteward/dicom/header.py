"""The fast header reader: what the index needs of an object, and where its pixels lie.

What enters is a data set as it arrived, in any transfer syntax of the standard. What leaves is a
`Header` with the text of the indexed attributes and the place of the pixel data. Every element's
boundary is walked to the very end, since an object that was cut short must not be acknowledged;
but only the few elements that are wanted are looked at, and a sequence of defined length is
passed over in one step. Where an object is laid out as one before it was, its elements are known to
lie in the same places, and there is nothing to walk (`header_layout.py`).

Real devices break PS3.5 in known ways, and an archive that refuses their images is no use. What
can be read with certainty is read, and `Header.warnings` says what was wrong:

- a data set in implicit VR that was announced as explicit, and the other way round;
- single elements in implicit VR inside an explicit data set (private sequences of some vendors);
- value representations that do not exist, with either length form;
- elements out of order, group lengths, item delimiters too many, zeros after the end.

What cannot be read with certainty raises `Invalid` with the offset.

References
----------
PS3.5 chapter 7 (data set, nested data sets), 6.2.2 (unknown VR), Annex A (transfer syntaxes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from pacsteward.dicom import header_tables as tables
from pacsteward.dicom import tags
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header_layout import Layout, layout_of
from pacsteward.dicom.header_texts import texts_of
from pacsteward.dicom.header_walk import DEPTH_MAX, HeaderWalk
from pacsteward.dicom.inflate import RATIO_MAX, SIZE_MAX, InflatingSource
from pacsteward.dicom.uids import transfer_syntax

__all__ = ["Header", "HeaderLimits", "PixelData", "RequestAttributes", "read_header"]


class RequestAttributes(NamedTuple):
    """One item of Request Attributes Sequence (0040,0275): the orders behind a series."""

    requested_procedure_id: str
    scheduled_procedure_step_id: str
    accession_number: str


@dataclass(frozen=True, slots=True)
class PixelData:
    """Where the pixels of an object lie.

    Parameters
    ----------
    tag
        (7FE0,0010), or (7FE0,0008) and (7FE0,0009) for floating point numbers.
    vr
        As encoded; "" in implicit VR.
    value_offset
        Of the value in the data set. In a deflated data set it counts inflated bytes.
    value_length
        None when undefined: the pixels are encapsulated.
    end_offset
        Where the element ends, its sequence delimiter included.
    fragment_count
        Of encapsulated pixel data, the basic offset table not counted; 0 else.
    rows, columns, samples_per_pixel, bits_allocated, number_of_frames
        As the header has them; 0 where it says nothing, and one frame.
    photometric_interpretation
        "" where the header says nothing.
    """

    tag: int
    vr: str
    value_offset: int
    value_length: int | None
    end_offset: int
    fragment_count: int = 0
    rows: int = 0
    columns: int = 0
    samples_per_pixel: int = 0
    bits_allocated: int = 0
    number_of_frames: int = 1
    photometric_interpretation: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """What the archive has to know of an object before it may acknowledge it.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid
        "" where absent; whether that is tolerable is the archive's decision.
    specific_character_set
        As encoded, several values separated by backslashes.
    values
        Decoded text of the attributes in `attributes.INDEXED` that are present, without padding,
        several values separated by backslashes. An attribute that is present and empty is "".
    request_attributes
        Items of Request Attributes Sequence, in order.
    pixel_data
        None for objects without pixels.
    size
        Of the data set as it came, in bytes.
    transfer_syntax_uid
        As it was announced.
    is_implicit_vr
        How the data set really reads, which a device may have mislabelled; a warning says so.
    warnings
        What was wrong and could be read nevertheless; without patient data.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    specific_character_set: str
    values: Mapping[int, str]
    request_attributes: tuple[RequestAttributes, ...]
    pixel_data: PixelData | None
    size: int
    transfer_syntax_uid: str
    is_implicit_vr: bool
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """How much of an object is looked at before it is refused.

    Parameters
    ----------
    depth
        Levels of sequences within sequences.
    inflated_bytes
        Of a deflated data set.
    inflated_ratio
        How many times its size a deflated data set may become, from 64 MiB on.
    """

    depth: int = DEPTH_MAX
    inflated_bytes: int = SIZE_MAX
    inflated_ratio: int = RATIO_MAX


DEFAULT_LIMITS = HeaderLimits()


def read_header(
    data: Fragments, transfer_syntax_uid: str, limits: HeaderLimits = DEFAULT_LIMITS
) -> Header:
    """Read what the index needs, and check that the object is whole.

    Parameters
    ----------
    data
        The data set without preamble and file meta.
    transfer_syntax_uid
        As negotiated, or as the file meta has it.
    limits
        Beyond which the object is refused.

    Raises
    ------
    Invalid
        When the structure cannot be read to the end: cut short, nested too deep, an element
        longer than what surrounds it, or inflating to too much.
    Unsupported
        When the transfer syntax is none of the standard.
    """
    kind = (transfer_syntax_uid, data.size, limits.depth)
    model = _models.get(kind)
    if model is not None:
        values = model.layout.read(data)
        if values is not None:
            return _like(model.header, values)
    header = _walked(data, transfer_syntax_uid, limits)
    _learn(kind, data, header)
    return header


def _walked(data: Fragments, transfer_syntax_uid: str, limits: HeaderLimits) -> Header:
    syntax = transfer_syntax(transfer_syntax_uid)
    if syntax.is_deflated:
        source = InflatingSource(
            data, size_max=limits.inflated_bytes, ratio_max=limits.inflated_ratio
        )
        reader = HeaderWalk(source, is_big=False, can_look_ahead=False, depth_max=limits.depth)
        is_implicit = False
    else:
        reader = HeaderWalk(
            data,
            is_big=not syntax.is_little_endian,
            can_look_ahead=True,
            depth_max=limits.depth,
        )
        is_implicit = reader.choose_encoding(is_implicit=syntax.is_implicit_vr)
    reader.run(is_implicit=is_implicit)
    if syntax.is_encapsulated and reader.pixels and reader.pixels.value_length is not None:
        reader.warn("Pixel data are not encapsulated, although the transfer syntax demands it.")
    return _header(reader, data.size, transfer_syntax_uid, is_implicit_vr=is_implicit)


# --- objects that are alike ----------------------------------------------------------------------

_Kind = tuple[str, int, int]
"""Transfer syntax, size and depth: objects that differ in these are not laid out alike."""

_MODELS_MAX = 256
_SEEN_MAX = 4096


class _Model(NamedTuple):
    """An object that was walked, for others that are laid out like it."""

    layout: Layout
    header: Header


_models: dict[_Kind, _Model] = {}
_seen: set[_Kind] = set()
"""Kinds of which there was one object; a layout is worth its making from the second on."""
_special: set[_Kind] = set()
"""Kinds of which an object had no layout: to look for one again and again costs a second walk."""


def _learn(kind: _Kind, data: Fragments, header: Header) -> None:
    """Remember how an object is laid out, when objects of its kind come again."""
    model = _models.get(kind)
    if model is not None and model.layout.has_credit():
        return
    if kind in _special:
        return
    if kind not in _seen:
        _remember(kind, _seen)
        return
    _seen.discard(kind)
    layout = None if header.warnings else layout_of(data, header, depth_max=kind[2])
    if layout is None:
        _models.pop(kind, None)
        _remember(kind, _special)
        return
    if len(_models) >= _MODELS_MAX:
        _models.clear()
    _models[kind] = _Model(layout, header)


def _remember(kind: _Kind, kinds: set[_Kind]) -> None:
    if len(kinds) >= _SEEN_MAX:
        kinds.clear()
    kinds.add(kind)


def _like(header: Header, values: dict[int, str]) -> Header:
    """Return the header of an object that is laid out like another, with values of its own."""
    take = values.get
    return Header(
        header.sop_class_uid,
        take(tags.SOP_INSTANCE_UID, ""),
        take(tags.STUDY_INSTANCE_UID, ""),
        take(tags.SERIES_INSTANCE_UID, ""),
        header.specific_character_set,
        MappingProxyType(values),
        header.request_attributes,
        header.pixel_data,
        header.size,
        header.transfer_syntax_uid,
        header.is_implicit_vr,
    )


# --- from bytes to text --------------------------------------------------------------------------


def _header(
    reader: HeaderWalk, size: int, transfer_syntax_uid: str, *, is_implicit_vr: bool
) -> Header:
    raw_character_set = reader.found.get(tags.SPECIFIC_CHARACTER_SET, (0, b""))[1]
    character_set = raw_character_set.decode("latin-1").strip(" \0")
    values = texts_of(reader.found, character_set, reader.order)
    take = values.get
    pixels = reader.pixels
    header = Header(
        sop_class_uid=take(tags.SOP_CLASS_UID, ""),
        sop_instance_uid=take(tags.SOP_INSTANCE_UID, ""),
        study_instance_uid=take(tags.STUDY_INSTANCE_UID, ""),
        series_instance_uid=take(tags.SERIES_INSTANCE_UID, ""),
        specific_character_set=character_set,
        values=MappingProxyType(values),
        request_attributes=tuple(
            _request_attributes(texts_of(item, character_set, reader.order))
            for item in reader.items
        ),
        pixel_data=None
        if pixels is None
        else PixelData(
            *pixels,
            rows=_number(take(tags.ROWS)),
            columns=_number(take(tags.COLUMNS)),
            samples_per_pixel=_number(take(tags.SAMPLES_PER_PIXEL)),
            bits_allocated=_number(take(tags.BITS_ALLOCATED)),
            number_of_frames=_number(take(tags.NUMBER_OF_FRAMES)) or 1,
            photometric_interpretation=take(tags.PHOTOMETRIC_INTERPRETATION, ""),
        ),
        size=size,
        transfer_syntax_uid=transfer_syntax_uid,
        is_implicit_vr=is_implicit_vr,
        warnings=tuple(reader.warnings),
    )
    for tag in _NOT_INDEXED:
        values.pop(tag, None)
    return header


_NOT_INDEXED = tables.WANTED - tables.INDEX_TAGS
"""Read for what else the header says, and for the items of Request Attributes Sequence."""


def _request_attributes(item: dict[int, str]) -> RequestAttributes:
    return RequestAttributes(
        item.get(tags.REQUESTED_PROCEDURE_ID, ""),
        item.get(tags.SCHEDULED_PROCEDURE_STEP_ID, ""),
        item.get(tags.ACCESSION_NUMBER, ""),
    )


def _number(text: str | None) -> int:
    """Return the first value of a count, 0 where it is absent or senseless.

    An IS goes up to 2147483647 (PS3.5 6.2).
    """
    first = (text or "").partition("\\")[0]
    return int(first) if first.isascii() and first.isdigit() and len(first) <= 10 else 0
