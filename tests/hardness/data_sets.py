"""Data sets that no decent device would send, each under a UID of its own."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import pydicom
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.hardness.wire import BIG, CT_STORAGE, DEFLATED, EXPLICIT, IMPLICIT, RLE
from tests.support.samples import small

STUDY, SERIES = "2.25.98.1", "2.25.98.1.1"
_ROOT = "2.25.98.1.1."
_PLACE = f"{_ROOT}100000"
"""The UID that is replaced, without changing its length, to make another object of the bytes."""

REFUSED, WARNED, ANY = "refused", "warned", "any"
"""What must become of an object: not kept; not a plain Success; only that there is an answer."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """One object as it goes over the wire."""

    name: str
    uid: str
    syntax: str
    data: bytes
    expected: str = ANY
    sop_class: str = CT_STORAGE

    def part10(self, preamble: bytes = bytes(128)) -> bytes:
        """Return it as a file, whose meta information says what C-STORE would."""
        return preamble + b"DICM" + file_meta(self.sop_class, self.uid, self.syntax) + self.data


def file_meta(sop_class: str, uid: str, syntax: str) -> bytes:
    """Return group 2."""

    def text(tag: int, vr: bytes, value: str) -> bytes:
        raw = value.encode("latin-1", "replace")
        raw += b"\0" * (len(raw) % 2)
        return struct.pack("<HH2sH", 2, tag, vr, len(raw) & 0xFFFE) + raw

    body = struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1"
    body += text(2, b"UI", sop_class) + text(3, b"UI", uid) + text(0x10, b"UI", syntax)
    body += text(0x12, b"UI", "1.2.3.4")
    return struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


class Counter:
    """Gives every object a UID of its own."""

    def __init__(self) -> None:
        self._last = 100_000

    def next(self) -> str:
        self._last += 1
        return f"{_ROOT}{self._last}"


_COUNTER = Counter()


def image(**attributes: object) -> FileDataset:
    """Return a small CT image under the UID that is replaced."""
    return small(
        98,
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=SERIES,
        SOPInstanceUID=_PLACE,
        **attributes,
    )


def encoded(data: Dataset, syntax: str = EXPLICIT) -> bytes:
    """Return the bytes of a data set; a deflated one is not deflated yet."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = syntax != BIG
    buffer.is_implicit_VR = syntax == IMPLICIT
    plain = Dataset()
    for element in data:
        if element.tag.group > 2:
            plain[element.tag] = element
    write_dataset(buffer, plain)
    return buffer.getvalue()


@lru_cache
def template(syntax: str) -> bytes:
    """Return the image in a transfer syntax."""
    data = image()
    if syntax == RLE:
        data.PixelData = encapsulate([bytes(64) + b"\x7f\0" * 8])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    return encoded(data, syntax)


def renamed(data: bytes, uid: str) -> bytes:
    """Return the bytes as another object."""
    return data.replace(_PLACE.encode(), uid.encode())


def deflate(data: bytes) -> bytes:
    """Return a data set as the deflated syntax has it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


def made(name: str, data: bytes, syntax: str = EXPLICIT, expected: str = ANY) -> Hostile:
    uid = _COUNTER.next()
    return Hostile(name, uid, syntax, renamed(data, uid), expected)


def raw(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an explicit little endian element; `length` lies about its value."""
    length = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OF"):
        return head + struct.pack("<HI", 0, length) + value
    return head + struct.pack("<H", length & 0xFFFF) + value


def with_elements(*elements: bytes, **attributes: object) -> bytes:
    """Return the image with elements before its pixel data, at the place of group 0099."""
    data = encoded(image(**attributes))
    pixels = data.rindex(struct.pack("<HH2s", 0x7FE0, 0x10, b"OW"))
    return data[:pixels] + b"".join(elements) + data[pixels:]


# --- cut short -----------------------------------------------------------------------------------


def truncated() -> Iterator[Hostile]:
    """Objects that end too early."""
    for syntax, step in ((EXPLICIT, 11), (IMPLICIT, 17), (BIG, 31), (RLE, 13)):
        data = template(syntax)
        for end in range(0, len(data), step):
            yield made(f"{syntax} cut at {end}", data[:end], syntax, WARNED)
        for end in range(max(0, len(data) - 24), len(data)):
            yield made(f"{syntax} cut at {end}", data[:end], syntax, WARNED)
    uid = _COUNTER.next()
    packed = deflate(renamed(template(EXPLICIT), uid))
    for end in range(0, len(packed) - 1, 23):
        name = f"deflated cut at {end}"
        yield Hostile(name, uid, DEFLATED, packed[:end], WARNED)


def short_of_pixels() -> Iterator[Hostile]:
    """Images that are whole, and have fewer pixels than they say."""
    for length in (0, 2, 256, 510):
        data = image(PixelData=bytes(length))
        yield made(f"{length} bytes of pixels", encoded(data), EXPLICIT, WARNED)
    for rows, columns, frames in ((17, 16, 1), (16, 17, 1), (65535, 65535, 1), (16, 16, 9)):
        data = image(Rows=rows, Columns=columns, NumberOfFrames=frames)
        yield made(f"{frames} x {rows} x {columns}", encoded(data), EXPLICIT, WARNED)
    data = image()
    del data.PixelData
    yield made("no pixels", encoded(data), EXPLICIT, WARNED)
    yield made("no pixels", encoded(data, IMPLICIT), IMPLICIT, WARNED)


# --- structure -----------------------------------------------------------------------------------


def broken() -> Iterator[Hostile]:
    """Lengths and nesting that lie."""
    item, end_item, end = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
    open_item = item + b"\xff" * 4
    opening = raw(0x00081140, b"SQ", b"", 0xFFFFFFFF) + open_item
    closing = end_item + bytes(4) + end + bytes(4)
    pixels = template(EXPLICIT)
    for depth in (65, 100, 900, 20_000):
        nested = opening * depth + closing * depth
        yield made(f"{depth} sequences deep", with_elements(nested), EXPLICIT, REFUSED)
        yield made(f"{depth} sequences open", with_elements(opening * depth), EXPLICIT, REFUSED)
        begun = struct.pack("<HHI", 8, 0x1140, 0xFFFFFFFF) + open_item
        at_end = encoded(image(), IMPLICIT) + begun * depth + closing * depth
        yield made(f"{depth} deep, implicit", at_end, IMPLICIT, REFUSED)
    inner = b""
    for _ in range(900):
        inner = raw(0x00081140, b"SQ", item + struct.pack("<I", len(inner)) + inner)
    yield made("900 deep, defined lengths", with_elements(inner), EXPLICIT, ANY)
    begun = {
        "sequence without end": raw(0x00991001, b"SQ", b"", 0xFFFFFFFF),
        "item without end": raw(0x00991001, b"SQ", b"", 0xFFFFFFFF) + open_item,
        "UN without end": raw(0x00991001, b"UN", b"", 0xFFFFFFFF),
        "OB without end": raw(0x00991001, b"OB", b"", 0xFFFFFFFF),
        "text of undefined length": raw(0x00991001, b"UT", b"", 0xFFFFFFFF),
        "item without sequence": item + bytes(4),
    }
    for name, element in begun.items():
        yield made(name, pixels + element, EXPLICIT, REFUSED)
        yield made(f"{name}, before pixels", with_elements(element), EXPLICIT, ANY)
    # A sequence of defined length is as long as it says, whatever its items say of themselves.
    for length in (99, 0xFFFFFFFE):
        liar = raw(0x00991001, b"SQ", item + struct.pack("<I", length))
        yield made(f"item of {length} in a sequence of 8", with_elements(liar))
    for vr in (b"OB", b"UN", b"SQ", b"UT", b"OW"):
        for length in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFE):
            element = raw(0x00991001, vr, b"x" * 8, length)
            yield made(f"{vr!r} of {length}", with_elements(element), EXPLICIT, REFUSED)
    for vr in (b"LO", b"US", b"DS"):
        element = raw(0x00991001, vr, b"x" * 8, 0xFFFE)
        yield made(f"{vr!r} of 65534", pixels + element, EXPLICIT, REFUSED)
    for vr in (b"ZZ", b"\0\0", b"  ", b"lo", b"\xff\xff"):
        yield made(f"VR {vr!r}", with_elements(raw(0x00991001, vr, b"abcd")))
    for start in range(0, 400, 40):
        end_of = pixels.index(b"PN") - 4 if start == 0 else start
        changed = pixels[:end_of] + b"\xff" * 4 + pixels[end_of + 4 :]
        yield made(f"four bytes at {end_of}", changed)
    yield made("a file as data set", bytes(128) + b"DICM" + pixels, EXPLICIT, REFUSED)
    yield made("nothing", b"", EXPLICIT, REFUSED)
    yield made("zeros", bytes(4000), EXPLICIT, REFUSED)
    yield made("pixels twice", pixels + pixels[-524:])
    yield made("all twice", pixels + pixels)
    for seed in range(25):
        yield made(f"noise {seed}", random.Random(seed).randbytes(600), EXPLICIT, REFUSED)


def flipped() -> Iterator[Hostile]:
    """A few bytes replaced anywhere in the header."""
    for syntax in (EXPLICIT, IMPLICIT, RLE):
        data = template(syntax)
        for seed in range(70):
            dice = random.Random(f"{syntax}{seed}")
            changed = bytearray(data)
            for _ in range(dice.randint(1, 5)):
                changed[dice.randrange(len(data) - 400)] = dice.randrange(256)
            yield made(f"{syntax} flips {seed}", bytes(changed), syntax)


def mislabelled() -> Iterator[Hostile]:
    """One encoding announced as another."""
    for real in (EXPLICIT, IMPLICIT, BIG, RLE):
        for said in (EXPLICIT, IMPLICIT, BIG, RLE, DEFLATED, "1.2.840.10008.1.2.4.90"):
            if said != real:
                yield made(f"{real} as {said}", template(real), said)
    yield made("deflated as explicit", deflate(template(EXPLICIT)), EXPLICIT, REFUSED)


# --- identity ------------------------------------------------------------------------------------

BAD_UIDS = (
    "", "../../etc/passwd", "/etc/passwd", "..\\..\\x", "abc", "1.2.x", "1.2.3 4", "1.2/3",
    "9" * 65, "1." * 40, "1.2\x001", "1.2\n3", "%2e%2e", "<script>", "1.2.3;DROP", "\u202e1.2",
)  # fmt: skip


def bad_uids() -> Iterator[Hostile]:
    """UIDs that name no object."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        tag = pydicom.datadict.tag_for_keyword(keyword)
        assert tag is not None
        there = image()[keyword].value
        element = raw(tag, b"UI", _even(there.encode(), b"\0"))
        data = encoded(image())
        assert data.count(element) == 1
        for bad in BAD_UIDS:
            value = _even(bad.encode("utf-8"), b"\0")
            changed = data.replace(element, raw(tag, b"UI", value))
            yield made(f"{keyword} {bad!r}", changed, EXPLICIT, REFUSED)
        yield made(f"no {keyword}", data.replace(element, b""), EXPLICIT, REFUSED)


NAMES = (
    b"", b" ", b"\\", b"^^^^", b"=" * 5, b"^" * 70, b"A\0B", b"A\r\nB", b"\x1b[2J\x1b]0;x\x07",
    b"\x1b$B", b"\x1b$)C\xff", b"\xff\xfe\xfd", "\u202egnp.exe".encode(), b"\xe2\x80",
    b"<script>alert(1)</script>", b"\"><img src=x onerror=alert(1)>", b"'; DROP TABLE study; --",
    b"{{7*7}}", b"%s%n%x", b"../../etc/passwd", b"A" * 65_534, "\U0001f9d1".encode(), b"\x7f\x80",
    b"javascript:alert(1)", b"\x00", b"*", b"?", b"=CMD()", b"\xc3\x28", b"&lt;b&gt;",
)  # fmt: skip
CHARACTER_SETS = ("", "ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87", "GB18030", "NONE", "\\" * 30)


def hostile_texts() -> Iterator[Hostile]:
    """Names, IDs and descriptions that try to get out of their field."""
    tags = {
        0x00100010: b"PN", 0x00100020: b"LO", 0x00081030: b"LO", 0x00080050: b"SH",
        0x00100030: b"DA", 0x00080060: b"CS", 0x00080020: b"DA", 0x00200013: b"IS",
    }  # fmt: skip
    for position, text in enumerate(NAMES):
        for tag, vr in tags.items():
            names = CHARACTER_SETS[position % len(CHARACTER_SETS)]
            yield made(f"{tag:08X} {text[:20]!r}", _with(tag, vr, text, names))
    for names in (*CHARACTER_SETS, "ISO_IR 999", "\x1b", "A" * 5000, "ISO 2022 IR 159\\" * 9):
        yield made(f"character set {names[:20]!r}", _with(0x00100010, b"PN", b"\x1b$B\xff", names))


def _with(tag: int, vr: bytes, text: bytes, character_set: str) -> bytes:
    """Return the image with one attribute as raw bytes."""
    data = image()
    keyword = pydicom.datadict.keyword_for_tag(tag)
    for name in (keyword, "SpecificCharacterSet"):
        if name in data:
            del data[name]
    before = Dataset()
    after = Dataset()
    for element in data:
        if element.tag.group > 2:
            (before if element.tag < tag else after)[element.tag] = element
    names = raw(0x00080005, b"CS", _even(character_set.encode("latin-1"), b" "))
    return names + encoded(before) + raw(tag, vr, _even(text, b" ")) + encoded(after)


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)


# --- bombs ---------------------------------------------------------------------------------------


def bombs() -> Iterator[Hostile]:
    """Little that becomes much."""
    size = 192 * 1024**2
    zeros = raw(0x00991001, b"OB", b"", size)
    uid = _COUNTER.next()
    head = renamed(template(EXPLICIT), uid)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = [packer.compress(head + zeros)]
    block = bytes(1024**2)
    packed += [packer.compress(block) for _ in range(size // len(block))]
    yield Hostile("deflated zeros", uid, DEFLATED, b"".join((*packed, packer.flush())))
    many = raw(0x00991001, b"LO", b"") * 20_000
    yield made("20,000 elements", template(EXPLICIT) + many)
    items = b"\xfe\xff\x00\xe0" + bytes(4)
    yield made("20,000 items", template(EXPLICIT) + raw(0x00991001, b"SQ", items * 20_000))
    many_requests = raw(0x00400275, b"SQ", items * 20_000)
    yield made("20,000 requests", with_elements(many_requests))
    endless = zlib.compressobj(9, zlib.DEFLATED, -15)
    yield made("deflated noise", endless.compress(b"\xff" * 1024**2) + endless.flush(), DEFLATED)


ALL: tuple[Callable[[], Iterator[Hostile]], ...] = (
    truncated,
    short_of_pixels,
    broken,
    flipped,
    mislabelled,
    bad_uids,
    hostile_texts,
    bombs,
)


# --- files of two kinds --------------------------------------------------------------------------

PREAMBLES = {
    "PE": b"MZ\x90\0" + bytes(56) + struct.pack("<I", 64) + b"PE\0\0" + bytes(60),
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(121),
    "HTML": b"<html><script>alert(1)</script>".ljust(128, b"-"),
    "script": b"#!/bin/sh\necho x\n".ljust(128, b"\n"),
    "ZIP": b"PK\x03\x04".ljust(128, b"\0"),
    "PDF": b"%PDF-1.7\n".ljust(128, b" "),
}
