"""An object in another transfer syntax: pixels and attributes stay what they were."""

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from pacsteward.base.errors import Invalid, PacstewardError, Unsupported
from pacsteward.dicom import uids
from pacsteward.dicom.codecs import decode_frame
from pacsteward.dicom.elements import DataSetReader
from pacsteward.dicom.encode import ENCODABLE
from pacsteward.dicom.fixtures.phantoms import (
    colours,
    encapsulated,
    gradient,
    high_throughput_grey,
    image,
    parsed,
    reader,
    stored_file,
    transcoded,
    written,
)
from pacsteward.dicom.frames import frame_bytes, locate_frames
from pacsteward.dicom.recode import SIGNED_WITH_PIXELS
from pacsteward.dicom.samples import Decoded, stored_values
from pacsteward.dicom.transcode import can_transcode, transcode_chunks

_LITTLE = uids.EXPLICIT_VR_LITTLE_ENDIAN
_IMPLICIT = uids.IMPLICIT_VR_LITTLE_ENDIAN
_BIG = uids.EXPLICIT_VR_BIG_ENDIAN
_DEFLATED = uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
_NATIVE = [_LITTLE, _IMPLICIT, _BIG, _DEFLATED]
_TARGETS = [*_NATIVE, *sorted(ENCODABLE)]


def _read(stored: bytes, syntax: str) -> Dataset:
    if syntax == _DEFLATED:
        stored = zlib.decompress(stored, wbits=-15)
    return parsed(stored, implicit=syntax == _IMPLICIT, little=syntax != _BIG)


def _pixels(stored: bytes, syntax: str) -> list[Decoded]:
    table = locate_frames(reader(stored), len(stored), syntax)
    decoded = []
    for number in range(1, table.number_of_frames + 1):
        content = frame_bytes(reader(stored), table, number)
        frame = decode_frame(content.data, content.transfer_syntax_uid, table.image)
        decoded.append(frame._replace(samples=stored_values(frame.samples, table.image)))
    return decoded


def _assert_same_pixels(first: list[Decoded], second: list[Decoded]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.samples, other.samples)
        assert one.photometric_interpretation == other.photometric_interpretation


_PHANTOMS = {
    "CT": image(
        gradient(40, 36, dtype="i2", top=2047) - np.int16(1024),
        BitsStored=12,
        HighBit=11,
        PixelPaddingValue=-1024,
        SmallestImagePixelValue=-1024,
    ),
    "colour": image(colours(40, 36)),
    "frames": image(
        np.stack([gradient(40, 37, dtype="u1", top=255) + n for n in range(3)]), frames=3
    ),
}


@pytest.mark.parametrize("target", _TARGETS)
@pytest.mark.parametrize("source", _TARGETS)
@pytest.mark.parametrize("name", sorted(_PHANTOMS))
def test_pixels_and_attributes_survive_every_way(name, source, target):
    original = written(_PHANTOMS[name])
    first = transcoded(original, _LITTLE, source)
    second = transcoded(first, source, target)
    _assert_same_pixels(_pixels(original, _LITTLE), _pixels(second, target))
    data_set = _read(second, target)
    for keyword in ("SOPInstanceUID", "PatientName", "Rows", "BitsStored", "HighBit"):
        assert data_set[keyword].value == _PHANTOMS[name][keyword].value
    if name == "CT":
        assert data_set.PixelPaddingValue == -1024
        assert data_set.SmallestImagePixelValue == -1024


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", _TARGETS)
@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm", "JPEG-lossy.dcm", "MR_small_bigendian.dcm", "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_rle_2frame.dcm", "image_dfl.dcm",
        "SC_ybr_full_422_uncompressed.dcm", "examples_palette.dcm", "MR_small_RLE.dcm",
    ],
)  # fmt: skip
def test_real_files_keep_their_pixels(name, target):
    stored, syntax = stored_file(get_testdata_file(name, download=False))
    _assert_same_pixels(
        _pixels(stored, syntax), _pixels(transcoded(stored, syntax, target), target)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm", "test-SR.dcm"])
def test_objects_without_pixels_change_their_encoding_and_come_back(name):
    path = get_testdata_file(name, download=False)
    stored, syntax = stored_file(path)
    explicit = transcoded(stored, syntax, _LITTLE)
    implicit = transcoded(explicit, _LITTLE, _IMPLICIT)
    again = transcoded(transcoded(explicit, _LITTLE, _BIG), _BIG, _LITTLE)
    reference = dcmread(path)
    for data_set in (reference, a := _read(explicit, _LITTLE), b := _read(implicit, _IMPLICIT)):
        data_set.remove_private_tags()
        data_set.walk(_without_group_length)
    assert a == reference
    assert b == reference
    assert again == explicit


def _without_group_length(level: Dataset, element: DataElement) -> None:
    if element.tag.element == 0:
        del level[element.tag]


def test_private_elements_survive_implicit_vr():
    data_set = image(gradient())
    block = data_set.private_block(0x0019, "HOUSE TEST", create=True)
    block.add_new(0x01, "LO", "kept as it is \\ with parts")
    block.add_new(0x02, "SQ", [Dataset()])
    block.add_new(0x03, "OB", b"\x00\xff\x10\x20")
    item = block[0x02].value[0]
    item.add_new(0x00190010, "LO", "HOUSE TEST")
    item.add_new(0x00191004, "DS", "1.50000")
    implicit = transcoded(written(data_set), _LITTLE, _IMPLICIT)
    back = _read(transcoded(implicit, _IMPLICIT, _LITTLE), _LITTLE)
    assert back[0x00191001].value == b"kept as it is \\ with parts"
    assert back[0x00191003].value == b"\x00\xff\x10\x20"
    assert b"1.50000" in back[0x00191002].value
    assert {back[tag].VR for tag in (0x00191001, 0x00191002, 0x00191003)} == {"UN"}
    assert _read(implicit, _IMPLICIT)[0x00190010].value == "HOUSE TEST"


def test_spelling_of_numbers_and_characters_is_not_touched():
    """A digital signature, or a site's scripts, may depend on it."""
    data_set = image(gradient(), RescaleSlope="1.00000000E+0")
    data_set.add_new(0x00104000, "UN", b"\x1b$B;3ED\x1b(B  ")
    stored = written(data_set)
    for target in _NATIVE[1:]:
        again = transcoded(transcoded(stored, _LITTLE, target), target, _LITTLE)
        assert again == stored


def test_a_long_value_of_a_short_representation_becomes_unknown():
    """70,000 characters fit implicit VR, and no DS of explicit VR (PS3.5 6.2.2)."""
    text = b"\\".join([b"1.25"] * 14_000)
    stored = struct.pack("<HHI", 0x0028, 0x1053, len(text)) + text
    explicit = transcoded(stored, _IMPLICIT, _LITTLE)
    assert explicit[4:6] == b"UN"
    assert explicit[12:] == text


def test_lossy_images_stay_lossy():
    picture = io.BytesIO()
    Image.fromarray(colours(40, 36)).save(picture, "JPEG")
    data_set = image(colours(40, 36), PhotometricInterpretation="YBR_FULL_422")
    stored = encapsulated(data_set, [picture.getvalue()])
    for target in _TARGETS:
        result = _read(transcoded(stored, uids.JPEG_BASELINE, target), target)
        assert result.LossyImageCompression == "01"
        expected = "YBR_RCT" if target == uids.JPEG_2000_LOSSLESS else "RGB"
        assert result.PhotometricInterpretation == expected


def test_planes_become_pixels_and_say_so():
    data_set = image(colours(40, 36), PlanarConfiguration=1)
    data_set.PixelData = np.ascontiguousarray(colours(40, 36).transpose(2, 0, 1)).tobytes()
    for target in sorted(ENCODABLE):
        stored = transcoded(written(data_set), _LITTLE, target)
        assert _read(stored, target).PlanarConfiguration == 0
        assert np.array_equal(_pixels(stored, target)[0].samples, colours(40, 36))


def test_one_bit_frames_are_packed_without_padding_again():
    bits = np.random.default_rng(5).integers(0, 2, (3, 5, 7), dtype=np.uint8)
    data_set = image(np.zeros((3, 5, 7), "u1"), frames=3, BitsAllocated=1, BitsStored=1, HighBit=0)
    data_set.PixelData = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    stored = written(data_set)
    compressed = transcoded(stored, _LITTLE, uids.RLE_LOSSLESS)
    assert transcoded(compressed, uids.RLE_LOSSLESS, _LITTLE) == stored


def test_compressed_icons_become_native_with_the_image():
    icon = image(gradient(8, 8, dtype="u1", top=255))
    for keyword in ("SOPClassUID", "SOPInstanceUID", "PatientName"):
        delattr(icon, keyword)
    rle = transcoded(written(icon), _LITTLE, uids.RLE_LOSSLESS)
    frame = frame_bytes(reader(rle), locate_frames(reader(rle), len(rle), uids.RLE_LOSSLESS), 1)
    expected = icon.PixelData
    icon.PixelData = encapsulate([frame.data])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    outer = image(gradient(40, 36), IconImageSequence=Sequence([icon]))
    large = transcoded(written(image(gradient(40, 36))), _LITTLE, uids.RLE_LOSSLESS)
    table = locate_frames(reader(large), len(large), uids.RLE_LOSSLESS)
    stored = encapsulated(outer, [frame_bytes(reader(large), table, 1).data])
    for target in (_LITTLE, _IMPLICIT, _BIG, uids.JPEG_LS_LOSSLESS):
        result = _read(transcoded(stored, uids.RLE_LOSSLESS, target), target)
        assert result.IconImageSequence[0].PixelData == expected


def test_htj2k_is_decompressed():
    data, pixels = high_throughput_grey()
    stored = encapsulated(image(pixels), [data])
    result = _read(transcoded(stored, uids.HTJ2K_LOSSLESS, _LITTLE), _LITTLE)
    assert result.PixelData == pixels.tobytes()


def test_elements_after_the_pixel_data_are_kept():
    data_set = image(gradient(40, 36))
    data_set.add_new(0xFFFCFFFC, "OB", b"\0" * 10)
    for target in _TARGETS:
        assert _read(transcoded(written(data_set), _LITTLE, target), target)[0xFFFCFFFC]


def test_offset_tables_of_the_old_encoding_are_not_left_behind():
    pixels = np.stack([gradient(40, 36, dtype="u1", top=255)] * 2)
    native = written(image(pixels, frames=2))
    rle = transcoded(native, _LITTLE, uids.RLE_LOSSLESS)
    table = locate_frames(reader(rle), len(rle), uids.RLE_LOSSLESS)
    frames = [frame_bytes(reader(rle), table, number).data for number in (1, 2)]
    extended = encapsulated(image(pixels, frames=2), frames, table="extended")
    for target in (_LITTLE, uids.JPEG_LS_LOSSLESS):
        result = _read(transcoded(extended, uids.RLE_LOSSLESS, target), target)
        assert "ExtendedOffsetTable" not in result
        assert "ExtendedOffsetTableLengths" not in result


def test_what_is_possible_is_said_before():
    assert can_transcode(uids.JPEG_BASELINE, _LITTLE)
    assert can_transcode(_BIG, uids.JPEG_2000_LOSSLESS)
    assert can_transcode(uids.HTJ2K, _IMPLICIT)
    for lossy in (uids.JPEG_BASELINE, uids.JPEG_LS_NEAR_LOSSLESS, uids.JPEG_2000, uids.HTJ2K):
        assert not can_transcode(_LITTLE, lossy)
        assert can_transcode(lossy, lossy)
    assert not can_transcode("1.2.840.10008.1.2.4.102", _LITTLE)
    assert not can_transcode("1.2.840.10008.1.2.4.110", _LITTLE)
    assert not can_transcode("1.2.3.4", _LITTLE)


def test_a_lossy_target_is_refused_before_anything_is_sent():
    stored = written(image(gradient()))
    with pytest.raises(Unsupported, match="without loss"):
        transcode_chunks(reader(stored), len(stored), _LITTLE, uids.JPEG_BASELINE)


def test_floating_point_pixels_are_given_native_only():
    stored = written(image(np.linspace(0, 1, 12).reshape(4, 3).astype("f4")))
    assert _read(transcoded(stored, _LITTLE, _BIG), _BIG).BitsAllocated == 32
    with pytest.raises(Unsupported, match="no encoder"):
        transcoded(stored, _LITTLE, uids.RLE_LOSSLESS)


def test_a_damaged_object_is_invalid_before_anything_is_sent():
    stored = transcoded(written(image(gradient(40, 36))), _LITTLE, uids.JPEG_LS_LOSSLESS)
    damaged = stored[:-300]
    with pytest.raises(Invalid):
        transcode_chunks(reader(damaged), len(damaged), uids.JPEG_LS_LOSSLESS, _LITTLE)


def test_the_same_syntax_gives_the_same_bytes():
    stored = written(image(gradient()))
    assert transcoded(stored, _LITTLE, _LITTLE) == stored


def test_the_signed_attributes_are_those_of_the_registry():
    ambiguous = {tag for tag, entry in DicomDictionary.items() if entry[0] == "US or SS"}
    assert ambiguous == SIGNED_WITH_PIXELS


def test_no_flip_raises_anything_but_a_kind_of_error():
    random = np.random.default_rng(11)
    stored = written(_PHANTOMS["frames"])
    for _ in range(400):
        flipped = bytearray(stored)
        flipped[int(random.integers(400))] = int(random.integers(256))
        for target in (_IMPLICIT, uids.RLE_LOSSLESS):
            try:
                transcoded(bytes(flipped), _LITTLE, target)
            except PacstewardError:
                continue


@pytest.mark.parametrize(("bits", "syntax"), [(41192, _LITTLE), (24, _LITTLE), (48, _IMPLICIT)])
def test_samples_of_an_impossible_size_are_refused_where_their_bytes_would_be_swapped(bits, syntax):
    data_set = image(gradient(4, 4))
    data_set.BitsAllocated = bits
    stored = written(data_set, implicit=syntax == _IMPLICIT)
    with pytest.raises(Invalid, match="Bits Allocated"):
        transcoded(stored, syntax, _BIG)


@pytest.mark.parametrize("pixels", [True, False])
def test_a_deflated_object_that_becomes_large_is_converted_in_little_memory(tmp_path, pixels):
    data_set = image(gradient(4, 4))
    if not pixels:
        del data_set.PixelData
    data_set.add_new(0x00091002, "OB", bytes(96 << 20))
    plain = written(data_set)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # Beside what hardly shrinks, so that the whole is not refused for its ratio.
    data_set.add_new(0x00091001, "OB", random.Random(1).randbytes(400_000))
    plain = written(data_set)
    packed = packer.compress(plain) + packer.flush()
    tracemalloc.start()
    size = 0
    checksum = 0
    for chunk in transcode_chunks(
        DataSetReader.over(packed).value, len(packed), _DEFLATED, _LITTLE, scratch=tmp_path
    ):
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (size, checksum) == (len(plain), zlib.crc32(plain))
    assert peak < 48 << 20
    assert list(tmp_path.iterdir()) == []
