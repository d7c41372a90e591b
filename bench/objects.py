"""What is sent: deterministic objects, as encoded data sets.

``W1`` is CT slices of 512 by 512 pixels (525 KB); ``W2`` small objects of 10 to 26 KB.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, replace

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTIFRAME = "1.2.840.10008.5.1.4.1.1.7.3"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ROOT = "2.25.90071992547409931"


@dataclass(frozen=True, slots=True)
class Encoded:
    """An object ready to be put on the wire."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    data_set: bytes

    def part10(self) -> bytes:
        """Return the object as a file (PS3.10 7.1)."""
        elements = b"".join(
            _element(0x0002, element, "UI", value)
            for element, value in (
                (0x0002, self.sop_class_uid),
                (0x0003, self.sop_instance_uid),
                (0x0010, EXPLICIT_LITTLE),
                (0x0012, f"{ROOT}.0"),
            )
        )
        version = struct.pack("<HH2sHI2s", 0x0002, 0x0001, b"OB", 0, 2, b"\0\1")
        size = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(version) + len(elements))
        return bytes(128) + b"DICM" + size + version + elements + self.data_set

    def series_path(self, web: str) -> str:
        """Return the address of its series below the DICOMweb service `web`."""
        return f"{web}/studies/{self.study_instance_uid}/series/{self.series_instance_uid}"

    def path(self, web: str) -> str:
        """Return its address below the DICOMweb service `web`."""
        return f"{self.series_path(web)}/instances/{self.sop_instance_uid}"


def w1(round_number: int, count: int) -> list[Encoded]:
    """Make `count` CT slices of 525 KB, 200 to a study and 100 to a series."""
    pixels = random.Random(1).randbytes(512 * 512 * 2)
    return [
        _object("1", CT_IMAGE, "CT", round_number, n, 200, 100, 512, pixels) for n in range(count)
    ]


def w2(round_number: int, count: int) -> list[Encoded]:
    """Make `count` objects of 10 to 26 KB, 500 to a study and 100 to a series."""
    chance = random.Random(2)
    pixels = chance.randbytes(114 * 114 * 2)
    return [
        _object("2", CT_IMAGE, "CT", round_number, n, 500, 100, rows, pixels[: rows * rows * 2])
        for n in range(count)
        for rows in (chance.randrange(71, 114),)
    ]


def ct_series(round_number: int, count: int) -> list[Encoded]:
    """Make one series of `count` CT slices of 525 KB, whose pixels all differ."""
    chance = random.Random(3)
    pixels = [chance.randbytes(512 * 512 * 2) for _ in range(8)]
    return [
        _object("3", CT_IMAGE, "CT", round_number, n, count, count, 512, _marked(pixels[n % 8], n))
        for n in range(count)
    ]


def small_series(round_number: int, count: int) -> list[Encoded]:
    """Make one series of `count` slices of 8 KB."""
    pixels = random.Random(4).randbytes(64 * 64 * 2)
    return [
        _object("4", CT_IMAGE, "CT", round_number, n, count, count, 64, pixels)
        for n in range(count)
    ]


@dataclass(frozen=True, slots=True)
class BigMultiframe:
    """An object too large to be held: its data set up to the pixels, and the frame that repeats."""

    one: Encoded
    frame: bytes
    frames: int

    @classmethod
    def of(cls, size_bytes: int) -> BigMultiframe:
        """Make one whose pixels have about so many bytes."""
        frame = random.Random(5).randbytes(512 * 512 * 2)
        frames = size_bytes // len(frame)
        whole = _object("5", MULTIFRAME, "OT", 1, 0, 1, 1, 512, frame, frames)
        head = whole.data_set[: -len(frame)]
        return cls(replace(whole, data_set=head), frame, frames)

    @property
    def size_bytes(self) -> int:
        """Return the length of the whole data set."""
        return len(self.one.data_set) + self.frames * len(self.frame)


def _marked(pixels: bytes, number: int) -> bytes:
    return struct.pack("<H", number) + pixels[2:]


def _object(
    kind: str,
    sop_class_uid: str,
    modality: str,
    round_number: int,
    number: int,
    per_study: int,
    per_series: int,
    rows: int,
    pixels: bytes,
    frames: int = 1,
) -> Encoded:
    study, series = number // per_study, number // per_series
    study_uid = f"{ROOT}.{kind}.{round_number}.{study + 1}"
    series_uid = f"{study_uid}.{series + 1}"
    instance_uid = f"{series_uid}.{number + 1}"
    elements = [
        (0x0008, 0x0005, "CS", "ISO_IR 100"),
        (0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        (0x0008, 0x0016, "UI", sop_class_uid),
        (0x0008, 0x0018, "UI", instance_uid),
        (0x0008, 0x0020, "DA", f"2026{study % 12 + 1:02d}{study % 28 + 1:02d}"),
        (0x0008, 0x0021, "DA", "20260101"),
        (0x0008, 0x0030, "TM", "083000"),
        (0x0008, 0x0050, "SH", f"B{kind}{round_number:02d}{study:06d}"),
        (0x0008, 0x0060, "CS", modality),
        (0x0008, 0x0070, "LO", "Bench"),
        (0x0008, 0x0080, "LO", "Pretend Hospital"),
        (0x0008, 0x0090, "PN", "House^Gregory"),
        (0x0008, 0x1030, "LO", "Load"),
        (0x0008, 0x103E, "LO", "Axial"),
        (0x0010, 0x0010, "PN", f"Bench^Patient {study}"),
        (0x0010, 0x0020, "LO", f"BENCH{kind}{study:05d}"),
        (0x0010, 0x0030, "DA", "19600101"),
        (0x0010, 0x0040, "CS", "O"),
        (0x0018, 0x0050, "DS", "5"),
        (0x0018, 0x0060, "DS", "120"),
        (0x0020, 0x000D, "UI", study_uid),
        (0x0020, 0x000E, "UI", series_uid),
        (0x0020, 0x0010, "SH", str(study + 1)),
        (0x0020, 0x0011, "IS", str(series + 1)),
        (0x0020, 0x0013, "IS", str(number + 1)),
        (0x0020, 0x0032, "DS", f"-125\\-125\\{number}"),
        (0x0020, 0x0037, "DS", "1\\0\\0\\0\\1\\0"),
        (0x0020, 0x0052, "UI", f"{study_uid}.0"),
        (0x0028, 0x0002, "US", 1),
        (0x0028, 0x0004, "CS", "MONOCHROME2"),
        *([(0x0028, 0x0008, "IS", str(frames))] if frames > 1 else []),
        (0x0028, 0x0010, "US", rows),
        (0x0028, 0x0011, "US", rows),
        (0x0028, 0x0030, "DS", "0.5\\0.5"),
        (0x0028, 0x0100, "US", 16),
        (0x0028, 0x0101, "US", 12),
        (0x0028, 0x0102, "US", 11),
        (0x0028, 0x0103, "US", 0),
        (0x0028, 0x1050, "DS", "40"),
        (0x0028, 0x1051, "DS", "400"),
    ]
    head = encode_elements(*elements)
    head += struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, len(pixels) * frames)
    return Encoded(sop_class_uid, instance_uid, study_uid, series_uid, head + pixels)


def encode_elements(*elements: tuple[int, int, str, str | int]) -> bytes:
    """Return group, element, VR and value of each element in Explicit VR Little Endian."""
    return b"".join(_element(*element) for element in elements)


def _element(group: int, element: int, vr: str, value: str | int) -> bytes:
    if isinstance(value, int):
        raw = struct.pack("<H", value)
    else:
        raw = value.encode("latin-1")
        if len(raw) % 2:
            raw += b"\0" if vr == "UI" else b" "
    return struct.pack("<HH2sH", group, element, vr.encode(), len(raw)) + raw
