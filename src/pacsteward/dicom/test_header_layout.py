"""Promises of header_layout.py: what is read without a walk is what a walk reads."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from pacsteward.base.errors import PacstewardError
from pacsteward.dicom import header as header_module
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import DEFAULT_LIMITS, Header, HeaderLimits, read_header
from pacsteward.dicom.header_walk import HeaderWalk
from pacsteward.dicom.test_header import SEEDS, encode, sample
from pacsteward.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

PATIENT_NAME = 0x00100010
INSTANCE_NUMBER = 0x00200013


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """Begin without models of other tests."""
    header_module._models.clear()
    header_module._seen.clear()
    header_module._special.clear()
    yield
    header_module._models.clear()
    header_module._seen.clear()
    header_module._special.clear()


def read(data: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Header:
    return read_header(Fragments([memoryview(data)]), syntax)


def walked(data: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Header:
    return header_module._walked(Fragments([memoryview(data)]), syntax, DEFAULT_LIMITS)


def outcome(reader: Callable[[bytes, str], Header], data: bytes, syntax: str) -> Header | str:
    try:
        return reader(data, syntax)
    except PacstewardError as error:
        return str(error)


def one_of_a_series(number: int, name: str = "Doe^John") -> Dataset:
    data_set = sample()
    data_set.SOPInstanceUID = f"1.2.3.4.{number}"
    data_set.InstanceNumber = str(number)
    data_set.PatientName = name
    data_set.ReferringPhysicianName = "Roe^Jane"
    return data_set


PLAIN = encode(one_of_a_series(1))
OBJECTS = [(PLAIN, EXPLICIT_VR_LITTLE_ENDIAN), *SEEDS]


def test_a_header_costs_little_and_that_of_a_known_layout_next_to_nothing() -> None:
    """Calls are counted, not time: they are what it costs, and the same on a busy machine."""
    first, _second_makes_the_layout, third = (calls_of_reading(PLAIN) for _ in range(3))
    assert first < 400
    assert third < 25


def calls_of_reading(data: bytes) -> int:
    fragments = Fragments([memoryview(data)])
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        read_header(fragments, EXPLICIT_VR_LITTLE_ENDIAN)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("is_delimited", [False, True])
@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
def test_objects_of_a_series_are_walked_twice_and_then_known(
    monkeypatch: pytest.MonkeyPatch, syntax: str, is_delimited: bool
) -> None:
    series = [encode(one_of_a_series(n), syntax, delimited=is_delimited) for n in range(1, 8)]
    truth = [walked(data, syntax) for data in series]
    for data in series[:2]:
        read(data, syntax)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("It was walked.")

    monkeypatch.setattr(HeaderWalk, "run", refuse)
    headers = [read(data, syntax) for data in series]
    assert headers == truth
    assert [header.sop_instance_uid for header in headers] == [f"1.2.3.4.{n}" for n in range(1, 8)]


@settings(deadline=None, derandomize=True, max_examples=600)
@given(
    st.sampled_from(OBJECTS),
    st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=4),
)
def test_whatever_is_changed_is_read_as_a_walk_reads_it(
    seed: tuple[bytes, str], changes: list[tuple[int, int]]
) -> None:
    original, syntax = seed
    for _ in range(2):
        read(original, syntax)
    data = bytearray(original)
    for place, byte in changes:
        if place < len(data):
            data[place] = byte
    changed = bytes(data)
    assert outcome(read, changed, syntax) == outcome(walked, changed, syntax)
    assert read(original, syntax) == walked(original, syntax)


def test_every_byte_that_is_changed_alone_is_read_as_a_walk_reads_it() -> None:
    for original, syntax in OBJECTS:
        for place in range(min(len(original), 1000)):
            for byte in (0x00, 0x31, 0xE9):
                changed = original[:place] + bytes([byte]) + original[place + 1 :]
                assert outcome(read, changed, syntax) == outcome(walked, changed, syntax), place


def test_names_outside_of_ascii_come_and_go() -> None:
    names = ["Doe^Jane", "Doé^Jane", "Roe^Jané", "Roe^Jane", "Doe^Jané", "Doe^Jane"]
    encoded = [encode(one_of_a_series(n, name)) for n, name in enumerate([*names, *names], 1)]
    same = [data for data in encoded if len(data) == len(encoded[0])]
    assert len(same) > len(names)
    for data in same:
        assert read(data) == walked(data)
    assert {read(data).values[PATIENT_NAME] for data in same} == set(names)


def test_one_value_that_changes_how_others_are_decoded_does_so_here_too() -> None:
    """A number where a text should stand is a text as long as all values look like texts."""
    head = struct.pack("<HH2sH", 0x0020, 0x0013, b"IS", 2)
    assert head in PLAIN
    data = PLAIN.replace(head, struct.pack("<HH2sH", 0x0020, 0x0013, b"US", 2))
    other = data.replace(b"Doe^John", "Doé^John".encode("latin-1"))
    for one in (data, data, data, other, data, other):
        assert read(one) == walked(one)
    assert read(data).values[INSTANCE_NUMBER] != read(other).values[INSTANCE_NUMBER]


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_file_sent_for_a_data_set_is_refused_although_its_heads_are_known() -> None:
    data_set = sample()
    data_set.ImageType = "X" * 150
    data = encode(data_set)
    for _ in range(3):
        read(data)
    sent = data[:128] + b"DICM" + data[132:]
    with pytest.raises(PacstewardError, match="preamble"):
        read(sent)


def test_a_depth_that_is_not_allowed_is_refused_although_its_heads_are_known() -> None:
    data, syntax = SEEDS[1]
    for _ in range(3):
        read(data, syntax)
    with pytest.raises(PacstewardError, match="levels deep"):
        read_header(Fragments([data]), syntax, HeaderLimits(depth=1))


def test_a_layout_that_fits_no_more_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = encode(one_of_a_series(1))
    other = one_of_a_series(2)
    other.Modality = "CTX"  # 4 bytes instead of 2 ...
    other.PatientID = "0"  # ... and 2 instead of 4
    second = encode(other)
    assert len(first) == len(second)
    for data in (first, first, first, *[second] * 100):
        assert read(data) == walked(data)
    monkeypatch.setattr(HeaderWalk, "run", None)
    assert read(second).sop_instance_uid == "1.2.3.4.2"


def test_what_is_remembered_is_bounded() -> None:
    for length in range(0, 2 * 600, 2):
        data_set = sample()
        data_set.add_new(0x00291010, "UN", bytes(length))
        data = encode(data_set)
        for _ in range(2):
            assert read(data).sop_instance_uid == "1.2.3.4.5"
    assert 0 < len(header_module._models) <= header_module._MODELS_MAX
    assert len(header_module._seen) <= header_module._SEEN_MAX


def test_what_has_no_layout_is_not_looked_at_for_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data_set = sample()
    data_set.add_new(0x00291010, "UN", bytes(40_000))
    data = encode(data_set)
    asked: list[int] = []
    real = header_module.layout_of
    monkeypatch.setattr(
        header_module, "layout_of", lambda *a, **k: asked.append(1) or real(*a, **k)
    )
    for _ in range(6):
        assert read(data) == walked(data)
    assert len(asked) == 1
