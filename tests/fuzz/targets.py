"""The readers that are fed, each as one function of bytes, and what each may raise.

Where a reader takes more than bytes, the first byte chooses: the transfer syntax, the frame.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl

from pacsteward.app import FLOOR_SETTINGS, find_all_rooms
from pacsteward.archive import bulk
from pacsteward.archive.digest import storable
from pacsteward.archive.file_range import FileRange
from pacsteward.archive.header_json import HeaderTexts
from pacsteward.archive.ledger import read_ledger
from pacsteward.archive.read import StoredObject
from pacsteward.archive.segment import find_segments, has_sound_data, walk
from pacsteward.base.errors import PacstewardError
from pacsteward.base.settings import load
from pacsteward.dicom import charset, names
from pacsteward.dicom.attributes import INDEXED, Level, vr_of
from pacsteward.dicom.deflated import inflate_range, inflated_header
from pacsteward.dicom.dicomjson import bulk_data, from_json
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.machine import Event, Machine, OutOfOrder
from pacsteward.dicom.dimse.message import decode_command_set, response_command_set
from pacsteward.dicom.dimse.negotiate import agree, objection
from pacsteward.dicom.dimse.pdu import (
    HEADER,
    PDV_HEADER_SIZE,
    AssociateRequest,
    PduType,
    check_length,
    decode_pdu,
    encode_pdu,
    next_pdv,
)
from pacsteward.dicom.dimse.user_information import (
    decode_user_information,
    encode_user_information,
)
from pacsteward.dicom.elements import (
    UNDEFINED_LENGTH,
    DataSetReader,
    Element,
    Encoding,
    item_encoding,
)
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.frames import FrameTable, frame_bytes, header_bytes, locate_frames
from pacsteward.dicom.header import read_header
from pacsteward.dicom.identifier import read_identifier
from pacsteward.dicom.inflate import inflate
from pacsteward.dicom.matching import canonical, matches, parse_criterion
from pacsteward.dicom.media import encoding_of
from pacsteward.dicom.part10 import split_part10
from pacsteward.dicom.recode import recode
from pacsteward.dicom.render_request import RenderRequest
from pacsteward.dicom.uids import transfer_syntax
from pacsteward.dicom.web.answers import byte_range
from pacsteward.dicom.web.multipart import PartBegin, Reader, boundary_of
from pacsteward.dicom.web.native_xml import to_xml
from pacsteward.dicom.web.negotiation import accepted, parse_media_type
from pacsteward.dicom.web.parameters import read_search
from tests.fuzz import seeds
from tests.fuzz.seeds import SYNTAXES


@dataclass(frozen=True, slots=True)
class Target:
    """One reader.

    Parameters
    ----------
    read
        Reads the bytes to the very end.
    seeds
        Gives sound bytes.
    may_raise
        What its documentation says; anything else is a fault of ours.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    may_raise: tuple[type[Exception], ...] = (PacstewardError,)


# --- the upper layer -----------------------------------------------------------------------------

_LIMITS = Limits()


def _read_pdus(data: bytes) -> None:
    """Read PDU after PDU, as a door does, and write again what was understood."""
    at = 0
    while at + HEADER.size <= len(data):
        kind, length = HEADER.unpack_from(data, at)
        check_length(kind, length, _LIMITS)
        body = data[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind == PduType.P_DATA_TF:
            _read_pdvs(memoryview(body))
            continue
        pdu = decode_pdu(kind, body)
        if isinstance(pdu, AssociateRequest):
            objection(pdu, lambda _title: True)
            agree(pdu, [])
        encode_pdu(pdu)


def _read_pdvs(body: memoryview) -> None:
    at = 0
    while at < len(body):
        _number, _control, size = next_pdv(body, at, len(body))
        at += PDV_HEADER_SIZE + size
        decode_command_set(body[at - size : at])


def _read_user_information(data: bytes) -> None:
    encode_user_information(decode_user_information(data))


def _read_command_set(data: bytes) -> None:
    command = decode_command_set(data)
    response_command_set(command, cast(Any, _NO_ANSWER), has_data_set=False)


_NO_ANSWER = SimpleNamespace(status=0, offending=(), comment="", sub_operations=None, extra={})


def _step_machine(data: bytes) -> None:
    """Let anything happen in any order, on both sides."""
    events = list(Event)
    machine = Machine(is_requestor=bool(data[:1] > b"\x7f"))
    for byte in data[:300]:
        event = events[byte % len(events)]
        if not machine.allows(event):
            continue
        machine.step(event)


# --- data sets -----------------------------------------------------------------------------------


def _syntax_and_data(data: bytes) -> tuple[str, bytes]:
    return SYNTAXES[data[0] % len(SYNTAXES)] if data else SYNTAXES[0], data[1:]


def _read_header(data: bytes) -> None:
    """Read what the index needs, in one piece and in many, and make of it what the index keeps."""
    syntax, data_set = _syntax_and_data(data)
    pieces = [data_set[at : at + 1000] for at in range(0, len(data_set), 1000)]
    header = read_header(Fragments(pieces), syntax)
    assert header == read_header(Fragments([data_set]), syntax)
    for level in Level:
        for tag in INDEXED[level]:
            text = storable(header.values.get(tag, ""))
            names.normalise(canonical(vr_of(tag), text))


def _walk_elements(data: bytes) -> None:
    """Visit every element and item, and write them in another encoding."""
    syntax, data_set = _syntax_and_data(data)
    encoding = encoding_of(syntax)
    reader = DataSetReader.over(data_set)
    _visit(reader, 0, reader.size, encoding, 0)
    for target in (Encoding(True, True), Encoding(False, False)):
        for piece in recode(reader, (0, reader.size), encoding, target):
            assert isinstance(piece, bytes)


def _visit(reader: DataSetReader, start: int, end: int, encoding: Encoding, depth: int) -> None:
    for element in reader.elements(start, end, encoding, depth=depth):
        if _is_sequence(element):
            inside = item_encoding(element, encoding)
            for item in reader.items(element, encoding, depth=depth):
                _visit(reader, item.start, item.end, inside, depth + 1)
        else:
            end = min(element.end, reader.size)
            reader.value(element.value, max(0, end - element.value))


def _is_sequence(element: Element) -> bool:
    is_open = element.length == UNDEFINED_LENGTH
    return (element.vr or vr_of(element.tag)) == "SQ" or (is_open and element.vr == "UN")


def _read_frames(data: bytes) -> None:
    """Find the frames of an image, read the first, and keep the table for later."""
    syntax, data_set = _syntax_and_data(data)
    read = DataSetReader.over(data_set).value
    table = locate_frames(read, len(data_set), syntax)
    header_bytes(read, table)
    for frame in {1, table.number_of_frames}:
        frame_bytes(read, table, frame)
    assert FrameTable.from_bytes(table.to_bytes()) == table


def _read_deflated(data: bytes) -> None:
    """Inflate from the beginning, from the middle and for the index."""
    read = DataSetReader.over(data).value
    for ask in (
        lambda: sum(map(len, inflate(Fragments([data])))),
        lambda: inflate_range(read, len(data), 1000, 100),
        lambda: inflated_header(read, len(data)).value(0, 200),
        lambda: read_header(Fragments([data]), SYNTAXES[3]),
    ):
        try:
            ask()
        except PacstewardError:
            continue


class _Stored:
    """What the archive gives of a stored object."""

    def __init__(self, data: bytes, transfer_syntax_uid: str) -> None:
        self.size = len(data)
        self.transfer_syntax_uid = transfer_syntax_uid
        self.read = DataSetReader.over(data).value
        self.instance = SimpleNamespace(
            sop_class_uid="1.2",
            sop_instance_uid="1.2.3",
            study_instance_uid="1.2.4",
            series_instance_uid="1.2.5",
            transfer_syntax_uid=transfer_syntax_uid,
        )


_TEXTS = HeaderTexts(100)


def _make_metadata(data: bytes) -> None:
    """Make JSON, XML and bulk data of a stored object, however damaged: a series needs all."""
    syntax, data_set = _syntax_and_data(data)
    stored = _Stored(data_set, syntax)
    text = _TEXTS.text(cast(StoredObject, stored), bulk_data_prefix="bulk/")
    # What came before must not show.
    assert text == HeaderTexts(100).text(cast(StoredObject, stored), bulk_data_prefix="bulk/")
    model = json.loads(text)
    to_xml(model)
    for attribute in model.values():
        uri = attribute.get("BulkDataURI", "")
        if uri:
            _read_bulk(stored, uri.removeprefix("bulk/"))


def _read_bulk(stored: _Stored, path: str) -> None:
    try:
        found = bulk.locate(stored.read, stored.size, stored.transfer_syntax_uid, path)
        found.read(stored.read)
    except PacstewardError:
        return


def _read_identifier(data: bytes) -> None:
    syntax, data_set = _syntax_and_data(data)
    found = read_identifier(data_set, syntax)
    for tag, key in found.keys.items():
        if isinstance(key, str):
            criterion = parse_criterion(tag, vr_of(tag), key)
            matches(criterion, "A^B", vr_of(tag))


def _read_file(data: bytes) -> None:
    meta, start = split_part10(data)
    transfer_syntax(meta.transfer_syntax_uid)
    assert 0 <= start <= len(data)


def _decode_text(data: bytes) -> None:
    """Decode, and encode again in a character set that can hold it."""
    sets, _, value = data.partition(b"\n")
    for is_person_name in (False, True):
        text = charset.decode(value, sets.decode("latin-1"), is_person_name)
    chosen = charset.character_set_for([text], sets.decode("latin-1"))
    charset.encode(text, chosen)
    names.normalise(text)
    names.display(text)
    names.fuzzy_matches("mueller", text)


# --- the web -------------------------------------------------------------------------------------


def _parameters(data: bytes) -> list[tuple[str, str]]:
    return parse_qsl(data.decode("latin-1"), keep_blank_values=True)


def _read_search(data: bytes) -> None:
    level = list(Level)[1 + len(data) % 3]
    search = read_search(level, _parameters(data), returns=(0x0020000D,), max_results=1000)
    for tag, criterion in search.query.criteria.items():
        if vr_of(tag) != "SQ":
            matches(criterion, "Aa^b\\20260102", vr_of(tag))


def _read_rendering(data: bytes) -> None:
    query = dict(_parameters(data))
    request = RenderRequest.from_query(query)
    assert request.quality <= 100
    byte_range(query.get("viewport"), 100)


def _read_media_type(data: bytes) -> None:
    text = data.decode("latin-1")
    for media_type in accepted(text):
        if "boundary" in media_type.parameters:
            boundary_of(media_type)
    if "," not in text:
        parse_media_type(text)


def _read_multipart(data: bytes) -> None:
    """Take a body apart, in pieces of several sizes; it is the same body each time.

    One in which no part was found may be called broken or empty: it is refused either way.
    """
    outcomes = {_parts(data, size) or (0, 0) for size in (7, 1000, len(data) + 1)}
    assert len(outcomes) == 1


def _parts(data: bytes, size: int) -> tuple[int, int] | None:
    reader = Reader("B")
    parts = payload = 0
    try:
        for at in range(0, len(data), size):
            for event in reader.feed(data[at : at + size]):
                parts += isinstance(event, PartBegin)
                payload += len(getattr(event, "data", b""))
        reader.close()
    except PacstewardError:
        return None
    return parts, payload


def _read_json(data: bytes) -> None:
    try:
        model = json.loads(data)
    except (ValueError, RecursionError):
        return
    made = from_json(model)
    list(bulk_data(model))
    dumps_of = [element.tag for element in made]
    assert len(dumps_of) == len(set(dumps_of))


# --- what lies on the disk -----------------------------------------------------------------------


@cache
def _folder() -> Path:
    """Return a folder that goes with the process."""
    made = tempfile.TemporaryDirectory(prefix="fuzz-")
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _read_segment(data: bytes) -> None:
    path = _folder() / "000000000001.segment"
    path.write_bytes(data)
    segments, _damaged = find_segments(path.parent)
    for segment in segments:
        with path.open("rb") as file:
            found = FileRange(file.fileno())
            for record in walk(found, segment.head):
                has_sound_data(found, record)


def _read_ledger(data: bytes) -> None:
    path = _folder() / "ledger" / "000000000001.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    read_ledger(path.parent)


@cache
def _sections() -> tuple[Any, ...]:
    return (
        *FLOOR_SETTINGS,
        *(section for room in find_all_rooms() for section in room.settings),
    )


def _read_settings(data: bytes) -> None:
    path = _folder() / "pacsteward.toml"
    path.write_bytes(data)
    load(_sections(), file=path, environ={}).explain()


ALL = (
    Target("pdu", _read_pdus, seeds.pdus),
    Target("user_information", _read_user_information, seeds.user_information),
    Target("command_set", _read_command_set, seeds.commands),
    Target("machine", _step_machine, lambda: [bytes(range(256))], (OutOfOrder,)),
    Target("header", _read_header, seeds.data_sets),
    Target("elements", _walk_elements, seeds.data_sets),
    Target("frames", _read_frames, seeds.data_sets),
    Target("fragments", _read_frames, seeds.compressed),
    Target("deflated", _read_deflated, seeds.deflated),
    Target("metadata", _make_metadata, seeds.data_sets, ()),
    Target("identifier", _read_identifier, seeds.identifiers),
    Target("file", _read_file, seeds.part10_files),
    Target("charset", _decode_text, seeds.texts, ()),
    Target("search", _read_search, lambda: seeds.SEARCHES),
    Target("rendering", _read_rendering, lambda: seeds.RENDERINGS),
    Target("media_type", _read_media_type, lambda: seeds.MEDIA_TYPES),
    Target("multipart", _read_multipart, seeds.multiparts),
    Target("json", _read_json, seeds.json_models),
    Target("segment", _read_segment, seeds.segments),
    Target("ledger", _read_ledger, seeds.ledgers),
    Target("settings", _read_settings, lambda: seeds.SETTINGS),
)
BY_NAME = {target.name: target for target in ALL}
