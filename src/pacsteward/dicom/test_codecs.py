"""One frame, compressed and decoded: no pixel may change, and who cannot keep that refuses."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder

from pacsteward.base.errors import Exhausted, Invalid, Unsupported
from pacsteward.dicom import uids
from pacsteward.dicom.codecs import decode_frame
from pacsteward.dicom.encode import ENCODABLE, encode_frame
from pacsteward.dicom.fixtures.phantoms import (
    colours,
    gradient,
    high_throughput_colours,
    high_throughput_grey,
    reader,
    stored_file,
)
from pacsteward.dicom.frames import frame_bytes, locate_frames
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.samples import native_bytes, native_samples, stored_values


def _described(pixels: np.ndarray, **changes) -> ImagePixel:
    bits = pixels.dtype.itemsize * 8
    described = ImagePixel(
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=3 if pixels.ndim == 3 else 1,
        bits_allocated=bits,
        bits_stored=bits,
        high_bit=bits - 1,
        is_signed=pixels.dtype.kind == "i",
        photometric_interpretation="RGB" if pixels.ndim == 3 else "MONOCHROME2",
    )
    return replace(described, **changes)


def _twelve_bits(pixels: np.ndarray) -> ImagePixel:
    return _described(pixels, bits_stored=12, high_bit=11)


_ROWS, _COLUMNS = 40, 36
_IMAGES = {
    "8 bits": (gradient(_ROWS, _COLUMNS, dtype="u1", top=255), {}),
    "16 bits": (gradient(_ROWS, _COLUMNS, top=65535), {}),
    "12 bits": (gradient(_ROWS, _COLUMNS), {"bits_stored": 12, "high_bit": 11}),
    "10 bits signed": (
        gradient(_ROWS, _COLUMNS, dtype="i2", top=1023) - np.int16(512),
        {"bits_stored": 10, "high_bit": 9},
    ),
    "16 bits signed": (
        (gradient(_ROWS, _COLUMNS, dtype="i4", top=65535) - 32768).astype("i2"),
        {},
    ),
    "colour": (colours(_ROWS, _COLUMNS), {}),
    "YBR_FULL": (colours(_ROWS, _COLUMNS), {"photometric_interpretation": "YBR_FULL"}),
    "palette": (
        gradient(_ROWS, _COLUMNS, dtype="u1", top=255),
        {"photometric_interpretation": "PALETTE COLOR"},
    ),
    "constant": (np.zeros((_ROWS, _COLUMNS), "u2"), {"bits_stored": 12, "high_bit": 11}),
}


@pytest.mark.parametrize("syntax", sorted(ENCODABLE))
@pytest.mark.parametrize("name", sorted(_IMAGES))
def test_every_pixel_survives_lossless_compression(syntax, name):
    pixels, changes = _IMAGES[name]
    described = _described(pixels, **changes)
    encoded, photometric = encode_frame(pixels, syntax, described)
    decoded = decode_frame(
        encoded, syntax, replace(described, photometric_interpretation=photometric)
    )
    assert np.array_equal(decoded.samples, pixels)
    assert decoded.samples.dtype == pixels.dtype
    assert decoded.photometric_interpretation == described.photometric_interpretation


@pytest.mark.parametrize("syntax", sorted(ENCODABLE))
def test_a_tiny_image_is_compressed_or_refused_and_never_changed(syntax):
    pixels = gradient(9, 1)
    if syntax != uids.RLE_LOSSLESS:
        with pytest.raises(Unsupported, match="without loss"):
            encode_frame(pixels, syntax, _twelve_bits(pixels))
        return
    encoded, _ = encode_frame(pixels, syntax, _twelve_bits(pixels))
    assert np.array_equal(decode_frame(encoded, syntax, _twelve_bits(pixels)).samples, pixels)


def test_jpeg_2000_colours_are_transformed_and_say_so():
    pixels = colours(40, 36)
    _, photometric = encode_frame(pixels, uids.JPEG_2000_LOSSLESS, _described(pixels))
    assert photometric == "YBR_RCT"


@pytest.mark.parametrize("syntax", sorted(ENCODABLE))
def test_overlays_in_unused_bits_forbid_compression(syntax):
    pixels = gradient() | np.uint16(0x8000)
    pixels[0, 0] = 5
    with pytest.raises(Unsupported, match="more than the pixel values"):
        encode_frame(pixels, syntax, _twelve_bits(pixels))


def test_floating_point_is_not_compressed():
    pixels = np.ones((4, 4), "f4")
    with pytest.raises(Unsupported, match="no encoder"):
        encode_frame(pixels, uids.RLE_LOSSLESS, _described(pixels, is_float=True))


@pytest.mark.parametrize(
    ("stream", "photometric"),
    [(high_throughput_grey, "MONOCHROME2"), (high_throughput_colours, "YBR_RCT")],
)
@pytest.mark.parametrize("syntax", [uids.HTJ2K_LOSSLESS, uids.HTJ2K_LOSSLESS_RPCL, uids.HTJ2K])
def test_high_throughput_jpeg_2000_is_decoded(stream, photometric, syntax):
    data, pixels = stream()
    described = _described(pixels, photometric_interpretation=photometric)
    assert np.array_equal(decode_frame(data, syntax, described).samples, pixels)


# Files of pydicom's own test set, each with a kind of stream or a habit of some writer.
_FILES = [
    "693_J2KI.dcm", "CT_small.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm",
    "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm",
    "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg.dcm", "SC_rgb_jpeg_app14_dcmd.dcm",
    "SC_rgb_jpeg_dcmd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm", "SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm",
    "SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_32bit.dcm", "SC_rgb_rle_32bit_2frame.dcm",
    "SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd_jpeg.dcm",
    "SC_ybr_full_422_uncompressed.dcm", "examples_jpeg2k.dcm", "examples_overlay.dcm",
    "examples_palette.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm", "image_dfl.dcm",
    "liver_1frame.dcm", "liver_expb_1frame.dcm", "rtdose_1frame.dcm", "rtdose_expb_1frame.dcm",
    "rtdose_rle_1frame.dcm",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _FILES)
def test_our_pixels_are_those_of_pydicom(name):
    path = get_testdata_file(name, download=False)
    stored, syntax = stored_file(path)
    read = reader(stored)
    table = locate_frames(read, len(stored), syntax)
    content = frame_bytes(read, table, table.number_of_frames)
    ours = decode_frame(content.data, content.transfer_syntax_uid, table.image)
    theirs, _ = get_decoder(syntax).as_array(
        dcmread(path),
        index=table.number_of_frames - 1,
        raw=ours.photometric_interpretation != "RGB",
    )
    assert ours.samples.shape == theirs.shape
    assert np.array_equal(stored_values(ours.samples, table.image), theirs)


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_twelve_bit_jpeg_is_decoded(name):
    """pydicom has no decoder for these, so a few known pixels stand for all."""
    stored, syntax = stored_file(get_testdata_file(name, download=False))
    assert syntax == uids.JPEG_EXTENDED
    read = reader(stored)
    table = locate_frames(read, len(stored), syntax)
    samples = decode_frame(frame_bytes(read, table, 1).data, syntax, table.image).samples
    assert samples.shape == (1024, 256)
    # Taken from dcmtk's dcmdjpeg 3.6.7.
    assert samples[420:425, 140].tolist() == _DCMTK[name]


_DCMTK = {name: [244, 234, 230, 237, 228] for name in ("JPEG-lossy.dcm", "JPGExtended.dcm")}


def test_native_planes_become_pixels():
    pixels = colours()
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    described = _described(pixels, planar_configuration=1)
    assert np.array_equal(native_samples(planes, described).samples, pixels)


def test_native_bytes_are_little_endian():
    assert native_bytes(np.array([[1, 258]], ">u2")) == b"\x01\x00\x02\x01"


def test_stored_values_have_the_sign_of_their_bits():
    """Some devices leave zeros, or an overlay, above the sign of twelve bits."""
    described = ImagePixel(1, 3, bits_allocated=16, bits_stored=12, high_bit=11, is_signed=True)
    raw = np.array([[0x0FFF, 0xF7FF, 0x1001]], "u2").view("i2")
    assert stored_values(raw, described).tolist() == [[-1, 2047, 1]]


def test_high_bits_that_are_not_the_lowest_are_moved():
    described = ImagePixel(1, 2, bits_allocated=16, bits_stored=12, high_bit=15)
    assert stored_values(np.array([[0x1230, 0xFFFF]], "u2"), described).tolist() == [[0x123, 0xFFF]]


def test_a_stream_of_another_size_is_refused_before_it_is_decoded():
    data, pixels = high_throughput_grey()
    described = _described(pixels)
    with pytest.raises(Invalid, match="48 rows, 40 columns"):
        decode_frame(data, uids.HTJ2K, replace(described, rows=47))
    picture = io.BytesIO()
    Image.new("L", (64, 64)).save(picture, "JPEG")
    with pytest.raises(Invalid, match="64 rows"):
        decode_frame(picture.getvalue(), uids.JPEG_BASELINE, _described(gradient(dtype="u1")))


def test_a_stream_of_too_many_bits_is_refused():
    encoded, _ = encode_frame(gradient(), uids.JPEG_LS_LOSSLESS, _twelve_bits(gradient()))
    with pytest.raises(Invalid, match="12 bits a sample"):
        decode_frame(encoded, uids.JPEG_LS_LOSSLESS, _described(gradient(dtype="u1", top=255)))


def test_an_enormous_image_is_refused():
    described = replace(_described(gradient()), rows=20_000, columns=20_000)
    with pytest.raises(Exhausted, match="100000000 pixels"):
        decode_frame(b"", uids.JPEG_2000, described)


def test_a_syntax_without_a_decoder_is_unsupported():
    with pytest.raises(Unsupported, match="no decoder"):
        decode_frame(b"\xff\x0a", "1.2.840.10008.1.2.4.110", _described(gradient()))


def _streams() -> list[tuple[str, bytes, ImagePixel]]:
    pixels = gradient(32, 32)
    streams = [
        (syntax, encode_frame(pixels, syntax, _twelve_bits(pixels))[0], _twelve_bits(pixels))
        for syntax in sorted(ENCODABLE)
    ]
    data, pixels = high_throughput_grey()
    streams.append((uids.HTJ2K_LOSSLESS, data, _described(pixels)))
    picture = io.BytesIO()
    Image.fromarray(colours(32, 32)).save(picture, "JPEG", quality=90)
    streams.append((uids.JPEG_BASELINE, picture.getvalue(), _described(colours(32, 32))))
    return streams


@pytest.mark.parametrize(("syntax", "data", "described"), _streams())
def test_a_cut_stream_is_invalid(syntax, data, described):
    for part in (0.0, 0.1, 0.3, 0.5, 0.7):
        with pytest.raises(Invalid, match="could not be decoded"):
            decode_frame(data[: int(len(data) * part)], syntax, described)


def test_a_panic_of_the_rle_decoder_is_invalid(capfd):
    """A run that is longer than the image makes it index beyond its buffer."""
    pixels = gradient(32, 32)
    run = bytes([0x81, 7])  # 128 times the same byte
    header = np.array([2, 64, 64 + 40, *[0] * 13], "<u4").tobytes()
    with pytest.raises(Invalid, match="could not be decoded"):
        decode_frame(header + run * 40, uids.RLE_LOSSLESS, _described(pixels))
    capfd.readouterr()  # its own report of the panic
