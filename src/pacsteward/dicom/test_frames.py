"""Where the frames of a stored object lie, native or encapsulated, and how they are delivered."""

import pickle
import struct
import zlib

import numpy as np
import pytest

from pacsteward.base.errors import Exhausted, Invalid, NotFound, PacstewardError, Unsupported
from pacsteward.dicom import uids
from pacsteward.dicom.fixtures.phantoms import (
    CountingReader,
    colours,
    encapsulated,
    gradient,
    image,
    reader,
    written,
)
from pacsteward.dicom.frames import FrameTable, frame_bytes, header_bytes, locate_frames

_LITTLE = uids.EXPLICIT_VR_LITTLE_ENDIAN
_BIG = uids.EXPLICIT_VR_BIG_ENDIAN


def _frames(stored: bytes, syntax: str) -> list[bytes]:
    table = locate_frames(reader(stored), len(stored), syntax)
    numbers = range(1, table.number_of_frames + 1)
    return [frame_bytes(reader(stored), table, number).data for number in numbers]


def _jpeg(number: int, length: int = 40) -> bytes:
    return b"\xff\xd8" + bytes([number]) * length + b"\xff\xd9"


def _compressed(frames: list[bytes], **options) -> bytes:
    data_set = image(np.zeros((len(frames), 4, 4), "u1"), frames=len(frames))
    return encapsulated(data_set, frames, **options)


# --- Native ---


@pytest.mark.parametrize(
    ("syntax", "implicit", "little"),
    [(_LITTLE, False, True), (uids.IMPLICIT_VR_LITTLE_ENDIAN, True, True)],
)
def test_native_frames_are_found_by_arithmetic(syntax, implicit, little):
    pixels = np.stack([gradient() + n for n in range(3)])
    stored = written(image(pixels, frames=3), implicit=implicit, little=little)
    table = locate_frames(reader(stored), len(stored), syntax)
    assert (table.number_of_frames, table.rows, table.columns) == (3, 16, 12)
    assert (table.samples_per_pixel, table.bits_allocated) == (1, 16)
    assert table.photometric_interpretation == "MONOCHROME2"
    for number in (1, 2, 3):
        assert table.spans(number) == ((table.value + (number - 1) * 384, 384),)
        content = frame_bytes(reader(stored), table, number)
        assert content.data == pixels[number - 1].tobytes()
        assert content.transfer_syntax_uid == _LITTLE
        assert content.media_type == "application/octet-stream"


def test_a_frame_of_a_large_object_is_one_read_of_that_frame():
    pixels = np.zeros((200, 64, 64), "u2")
    pixels[150] = gradient(64, 64)
    stored = written(image(pixels, frames=200))
    read = CountingReader(stored)
    table = locate_frames(read, len(stored), _LITTLE)
    assert read.bytes_read <= 3 * 65536
    read.bytes_read = read.reads = 0
    assert frame_bytes(read, table, 151).data == pixels[150].tobytes()
    assert (read.reads, read.bytes_read) == (1, 64 * 64 * 2)


def test_two_gigabytes_are_located_and_read_like_two_kilobytes():
    data_set = image(np.zeros((1, 1024, 1024), "u2"), frames=1)
    data_set.NumberOfFrames = 1000
    stored = written(data_set)
    header = stored.index(b"\xe0\x7f\x10\x00")
    frame_length = 1024 * 1024 * 2
    head = stored[: header + 8] + (1000 * frame_length).to_bytes(4, "little")
    size = len(head) + 1000 * frame_length

    def read(offset: int, length: int) -> bytes:
        assert length <= frame_length
        return (head[offset : offset + length] + bytes(length))[:length]

    table = locate_frames(read, size, _LITTLE)
    assert table.spans(1000) == ((len(head) + 999 * frame_length, frame_length),)
    assert len(frame_bytes(read, table, 1000).data) == frame_length
    assert len(table.to_bytes()) < 1000


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4"])
def test_big_endian_frames_are_delivered_little_endian(dtype):
    pixels = np.stack([gradient(5, 3, dtype=dtype, top=100) + n for n in range(3)])
    data_set = image(pixels, frames=3)
    big = pixels.astype(f">{dtype}").tobytes()
    if dtype == "u1":  # OW is a string of words: two samples change places (PS3.5 Annex D)
        big += b"\0" * (len(big) % 2)
        big = np.frombuffer(big, "<u2").byteswap().tobytes()
    data_set.PixelData = big
    data_set["PixelData"].VR = "OW"
    stored = written(data_set, little=False)
    assert _frames(stored, _BIG) == [frame.tobytes() for frame in pixels]


def test_big_endian_bytes_are_left_alone():
    pixels = np.stack([gradient(5, 3, dtype="u1", top=255)] * 2)
    stored = written(image(pixels, frames=2), little=False)
    assert _frames(stored, _BIG) == [frame.tobytes() for frame in pixels]


def test_one_bit_frames_that_begin_within_a_byte_are_aligned():
    """5 x 3 pixels are 15 bits; frames of segmentations are packed without padding."""
    pixels = np.random.default_rng(7).integers(0, 2, (9, 15), dtype=np.uint8)
    data_set = image(np.zeros((9, 5, 3), "u1"), frames=9)
    data_set.BitsAllocated = data_set.BitsStored = 1
    data_set.HighBit = 0
    data_set.PixelData = np.packbits(pixels.reshape(-1), bitorder="little").tobytes() + b"\0"
    for syntax, little in ((_LITTLE, True), (_BIG, False)):
        frames = _frames(written(data_set, little=little), syntax)
        expected = [np.packbits(frame, bitorder="little").tobytes() for frame in pixels]
        assert frames == expected


def test_one_bit_words_of_big_endian_are_swapped():
    pixels = np.random.default_rng(7).integers(0, 2, (4, 15), dtype=np.uint8)
    data_set = image(np.zeros((4, 5, 3), "u1"), frames=4)
    data_set.BitsAllocated = data_set.BitsStored = 1
    packed = np.packbits(pixels.reshape(-1), bitorder="little")
    data_set.PixelData = packed.view("<u2").byteswap().tobytes()
    data_set["PixelData"].VR = "OW"
    frames = _frames(written(data_set, little=False), _BIG)
    assert frames == [np.packbits(frame, bitorder="little").tobytes() for frame in pixels]


def test_sub_sampled_frames_have_two_thirds_of_the_length():
    data_set = image(colours(4, 6), PhotometricInterpretation="YBR_FULL_422")
    data_set.NumberOfFrames = 2
    data_set.PixelData = bytes(range(48)) + bytes(range(100, 148))
    assert [len(f) for f in _frames(written(data_set), _LITTLE)] == [48, 48]


def test_frames_that_claim_sub_sampling_and_are_full_are_delivered_full():
    data_set = image(colours(4, 6), PhotometricInterpretation="YBR_FULL_422")
    table = locate_frames(reader(stored := written(data_set)), len(stored), _LITTLE)
    assert table.photometric_interpretation == "YBR_FULL"
    assert len(frame_bytes(reader(stored), table, 1).data) == 72


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_floating_point_pixel_data_have_frames(dtype):
    pixels = np.linspace(0, 1, 2 * 4 * 3).reshape(2, 4, 3).astype(dtype)
    stored = written(image(pixels, frames=2))
    assert _frames(stored, _LITTLE) == [frame.tobytes() for frame in pixels]


def test_a_deflated_object_gives_inflated_frames():
    pixels = np.stack([gradient() + n for n in range(3)])
    plain = written(image(pixels, frames=3))
    packer = zlib.compressobj(wbits=-15)
    stored = packer.compress(plain) + packer.flush()
    syntax = uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    table = locate_frames(reader(stored), len(stored), syntax)
    content = frame_bytes(reader(stored), table, 3)
    assert content.data == pixels[2].tobytes()
    assert content.transfer_syntax_uid == _LITTLE
    with pytest.raises(Invalid, match="deflated stream"):
        frame_bytes(reader(stored[:-40]), table, 3)


def test_a_deflated_object_cut_between_two_elements_is_damaged_rather_than_without_a_picture():
    """Whoever hears that there is no picture stops looking for it."""
    whole = written(image(gradient()))
    before_pixels = whole[: whole.index(b"\xe0\x7f\x10\x00")]
    syntax = uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    packer = zlib.compressobj(wbits=-15)
    cut = packer.compress(before_pixels) + packer.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(Invalid, match="it ends early"):
        locate_frames(reader(cut), len(cut), syntax)
    ended = cut + packer.flush()
    with pytest.raises(NotFound, match="no pixel data"):
        locate_frames(reader(ended), len(ended), syntax)


def test_frames_before_the_end_of_a_deflated_object_that_is_cut_short_are_read():
    pixels = np.stack([gradient() + n for n in range(3)])
    packer = zlib.compressobj(wbits=-15)
    cut = packer.compress(written(image(pixels, frames=3))[:-20])
    cut += packer.flush(zlib.Z_SYNC_FLUSH)
    table = locate_frames(reader(cut), len(cut), uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert frame_bytes(reader(cut), table, 2).data == pixels[1].tobytes()


def test_frames_deflated_one_by_one_are_inflated():
    frames = [np.full(16, n, "u1").tobytes() for n in (1, 2)]
    packed = []
    for frame in frames:
        packer = zlib.compressobj(wbits=-15)
        packed.append(packer.compress(frame) + packer.flush())
    stored = _compressed(packed)
    assert _frames(stored, uids.DEFLATED_IMAGE_FRAME) == frames


# --- Encapsulated ---


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_compressed_frames_are_delivered_as_stored(table):
    frames = [_jpeg(n, 40 + 2 * n) for n in range(1, 6)]
    stored = _compressed(frames, table=table)
    located = locate_frames(reader(stored), len(stored), uids.JPEG_BASELINE)
    for number in (1, 3, 5):
        content = frame_bytes(reader(stored), located, number)
        assert content.data == frames[number - 1]
        assert content.transfer_syntax_uid == uids.JPEG_BASELINE
        assert content.media_type == "image/jpeg"


@pytest.mark.parametrize("table", ["basic", "none"])
def test_fragments_of_a_frame_are_joined(table):
    frames = [_jpeg(n, 60) for n in range(1, 5)]
    stored = _compressed(frames, fragments=3, table=table)
    assert _frames(stored, uids.JPEG_LS_LOSSLESS) == frames


def test_all_fragments_of_a_single_frame_belong_to_it():
    stored = _compressed([bytes(range(100))], fragments=4, table="none")
    assert _frames(stored, uids.JPEG_2000) == [bytes(range(100))]


def test_a_table_that_disagrees_with_the_fragments_is_not_believed():
    """Some converters keep the offsets of the uncompressed frames."""
    frames = [_jpeg(n) for n in range(1, 4)]
    stored = bytearray(_compressed(frames))
    at = stored.index(b"\xfe\xff\x00\xe0\x0c\x00\x00\x00") + 8
    stored[at : at + 12] = np.array([0, 512, 1024], "<u4").tobytes()
    assert _frames(bytes(stored), uids.JPEG_BASELINE) == frames


def test_an_extended_table_with_a_gap_is_not_believed():
    frames = [_jpeg(n) for n in range(1, 4)]
    stored = _compressed(frames, table="extended")
    wrong = stored.replace(
        np.array([0, 52, 104], "<u8").tobytes(), np.array([0, 50, 104], "<u8").tobytes()
    )
    assert wrong != stored
    assert _frames(wrong, uids.JPEG_BASELINE) == frames


def test_with_an_extended_table_no_fragment_is_visited():
    frames = [_jpeg(n % 256, 20_000) for n in range(200)]
    stored = _compressed(frames, table="extended")
    read = CountingReader(stored)
    table = locate_frames(read, len(stored), uids.JPEG_BASELINE)
    assert read.reads <= 4
    assert frame_bytes(read, table, 133).data == frames[132]


def test_fragments_that_cannot_be_told_apart_are_refused_with_the_reason():
    data_set = image(np.zeros((3, 4, 4), "u1"), frames=3)
    stored = encapsulated(data_set, [b"ab", b"cd", b"ef", b"gh"], table="none")
    with pytest.raises(Invalid, match="cannot be told apart"):
        locate_frames(reader(stored), len(stored), uids.RLE_LOSSLESS)


def test_a_missing_frame_is_told_from_one_that_never_was():
    data_set = image(np.zeros((3, 4, 4), "u1"), frames=3)
    stored = encapsulated(data_set, [_jpeg(1), _jpeg(2)], table="none")
    table = locate_frames(reader(stored), len(stored), uids.JPEG_BASELINE)
    assert frame_bytes(reader(stored), table, 2).data == _jpeg(2)
    with pytest.raises(Invalid, match="end before it"):
        frame_bytes(reader(stored), table, 3)
    with pytest.raises(NotFound, match="no frame 4"):
        frame_bytes(reader(stored), table, 4)
    with pytest.raises(NotFound, match="no frame 0"):
        frame_bytes(reader(stored), table, 0)


def test_a_video_is_a_stream_and_not_frames():
    data_set = image(np.zeros((90, 4, 4), "u1"), frames=90)
    stored = encapsulated(data_set, [b"ftyp" * 10, b"moov" * 10], table="none")
    syntax = "1.2.840.10008.1.2.4.102"
    table = locate_frames(reader(stored), len(stored), syntax)
    assert table.is_video
    stream = b"".join(reader(stored)(*span) for span in table.stream_spans())
    assert stream == b"ftyp" * 10 + b"moov" * 10
    with pytest.raises(Unsupported, match="video"):
        frame_bytes(reader(stored), table, 1)


# --- What is wrong ---


def test_an_object_without_pixel_data_has_no_frames():
    data_set = image(gradient())
    del data_set.PixelData
    stored = written(data_set)
    with pytest.raises(NotFound, match="no pixel data element"):
        locate_frames(reader(stored), len(stored), _LITTLE)


def test_a_deflated_object_without_pixel_data_has_no_frames_and_is_no_damaged_one():
    data_set = image(gradient())
    del data_set.PixelData
    packer = zlib.compressobj(wbits=-15)
    stored = packer.compress(written(data_set)) + packer.flush()
    with pytest.raises(NotFound, match="no pixel data element"):
        locate_frames(reader(stored), len(stored), uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_pixel_data_provider_is_named_as_the_reason():
    data_set = image(gradient(), PixelDataProviderURL="https://elsewhere.example/1")
    del data_set.PixelData
    stored = written(data_set)
    with pytest.raises(NotFound, match="another server"):
        locate_frames(reader(stored), len(stored), _LITTLE)


def test_truncated_native_pixel_data_give_the_frames_that_are_there():
    pixels = np.stack([gradient()] * 3)
    stored = written(image(pixels, frames=3))[:-100]
    table = locate_frames(reader(stored), len(stored), _LITTLE)
    assert frame_bytes(reader(stored), table, 2).data == pixels[1].tobytes()
    with pytest.raises(Invalid, match="end before it"):
        frame_bytes(reader(stored), table, 3)


def test_fragments_under_a_native_label_are_refused():
    """Their label would say native, and a viewer would draw noise."""
    stored = _compressed([_jpeg(1)])
    with pytest.raises(Invalid, match="fragments"):
        locate_frames(reader(stored), len(stored), _LITTLE)


def test_a_table_survives_the_cache():
    for stored, syntax in (
        (_compressed([_jpeg(n) for n in range(4)], fragments=2), uids.JPEG_BASELINE),
        (written(image(gradient())), _LITTLE),
    ):
        table = locate_frames(reader(stored), len(stored), syntax)
        assert FrameTable.from_bytes(table.to_bytes()) == table
        assert pickle.loads(pickle.dumps(table)) == table


def test_no_cut_and_no_flip_raises_anything_but_a_kind_of_error():
    random = np.random.default_rng(3)
    objects = [
        (_compressed([_jpeg(n) for n in range(4)], fragments=2), uids.JPEG_BASELINE),
        (_compressed([_jpeg(n) for n in range(4)], table="extended"), uids.JPEG_BASELINE),
        (written(image(np.stack([gradient()] * 2), frames=2)), _LITTLE),
    ]
    for stored, syntax in objects:
        damaged = [stored[:end] for end in range(0, len(stored), 7)]
        for _ in range(300):
            flipped = bytearray(stored)
            flipped[int(random.integers(len(flipped)))] = int(random.integers(256))
            damaged.append(bytes(flipped))
        for data in damaged:
            try:
                table = locate_frames(reader(data), len(data), syntax)
                for number in range(1, min(table.number_of_frames, 5) + 1):
                    frame_bytes(reader(data), table, number)
            except PacstewardError:
                continue


def test_an_object_of_countless_elements_is_not_looked_into():
    """Eight bytes make an element, and a million of them kept a processor busy for minutes."""
    many = b"".join(struct.pack("<HH2sH", 0x11, number, b"LO", 0) for number in range(20_001))
    stored = many + written(image(gradient()))
    with pytest.raises(Exhausted, match="20000"):
        locate_frames(reader(stored), len(stored), uids.EXPLICIT_VR_LITTLE_ENDIAN)


def test_an_object_with_a_huge_value_before_its_pixels_gives_frames_and_is_not_drawn():
    huge = struct.pack("<HH2sHI", 0x11, 0x1001, b"UT", 0, 65 << 20) + b"x" * (65 << 20)
    plain = written(image(gradient()))
    stored = plain[: plain.index(b"\x28\0")] + huge + plain[plain.index(b"\x28\0") :]
    table = locate_frames(reader(stored), len(stored), uids.EXPLICIT_VR_LITTLE_ENDIAN)
    assert frame_bytes(reader(stored), table, 1).data == gradient().tobytes()
    with pytest.raises(Exhausted, match="before the pixel data"):
        header_bytes(reader(stored), table)
