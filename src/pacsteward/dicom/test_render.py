"""From stored pixels to a picture: the formulas of PS3.3 and PS3.4, and what cannot be drawn."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.sequence import Sequence

from pacsteward.base.errors import Exhausted, Invalid, NotFound, PacstewardError, Unsupported
from pacsteward.dicom import uids
from pacsteward.dicom.fixtures.phantoms import (
    colours,
    encapsulated,
    gradient,
    image,
    reader,
    stored_file,
    written,
)
from pacsteward.dicom.frames import locate_frames
from pacsteward.dicom.grayscale import VoiFunction, Window
from pacsteward.dicom.media import JPEG_MEDIA_TYPE, PDF_MEDIA_TYPE, PNG_MEDIA_TYPE
from pacsteward.dicom.render import document, frame_source, render, render_frame
from pacsteward.dicom.render_request import RenderRequest, Viewport

_LITTLE = uids.EXPLICIT_VR_LITTLE_ENDIAN


def _picture(data_set: Dataset, **request) -> np.ndarray:
    """Return what is drawn of a data set, without the losses of JPEG."""
    drawn = render(written(data_set), _LITTLE, RenderRequest(media_type=PNG_MEDIA_TYPE, **request))
    return np.asarray(Image.open(io.BytesIO(drawn)))


def _window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """The formula of PS3.3 C.11.2.1.2.1, pixel by pixel."""
    grey = np.empty(values.shape)
    for index, x in np.ndenumerate(values.astype(float)):
        if x <= center - 0.5 - (width - 1) / 2:
            grey[index] = 0
        elif x > center - 0.5 + (width - 1) / 2:
            grey[index] = 255
        else:
            grey[index] = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.floor(grey + 0.5)


# --- Grey ---


def test_window_and_rescale_follow_the_formula():
    stored = gradient()
    data_set = image(
        stored, RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="3000", WindowWidth="4000"
    )
    assert np.array_equal(_picture(data_set), _window(stored * 2.0 - 1000, 3000, 4000))


def test_signed_twelve_bit_values_are_drawn_with_their_sign():
    values = gradient(dtype="i2") - np.int16(2048)
    stored = (values & 0x0FFF).astype("u2")  # no sign above the twelve bits
    data_set = image(stored, BitsStored=12, HighBit=11, PixelRepresentation=1)
    data_set.WindowCenter, data_set.WindowWidth = "40", "400"
    assert np.array_equal(_picture(data_set), _window(values, 40, 400))


def test_low_values_of_monochrome1_are_white():
    data_set = image(gradient(), WindowCenter="2048", WindowWidth="4096")
    plain = _picture(data_set)
    data_set.PhotometricInterpretation = "MONOCHROME1"
    inverse = _picture(data_set)
    assert abs(inverse.astype(int) - (255 - plain.astype(int))).max() <= 1
    assert inverse[0, 0] == 255


def test_the_window_of_the_request_comes_before_that_of_the_object():
    stored = gradient()
    data_set = image(stored, WindowCenter="1", WindowWidth="2")
    drawn = _picture(data_set, window=Window(1000, 500))
    assert np.array_equal(drawn, _window(stored, 1000, 500))


def test_the_first_of_several_windows_is_taken():
    stored = gradient()
    data_set = image(stored, WindowCenter=["1000", "1"], WindowWidth=["500", "2"])
    assert np.array_equal(_picture(data_set), _window(stored, 1000, 500))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", [0, 64, 128, 191, 255]),
        ("SIGMOID", [30, 69, 128, 186, 225]),
        ("LINEAR", [0, 64, 128, 192, 255]),
        ("SOMETHING", [0, 64, 128, 192, 255]),
    ],
)
def test_window_functions_of_the_object_are_obeyed(function, expected):
    stored = np.array([[100, 150, 200, 250, 300]], "u2")
    data_set = image(stored, WindowCenter="200", WindowWidth="200", VOILUTFunction=function)
    drawn = _picture(data_set)[0].astype(int)
    assert abs(drawn - expected).max() <= 1


def test_a_window_of_one_is_a_threshold():
    data_set = image(np.array([[99, 100, 101]], "u2"), WindowCenter="100.5", WindowWidth="1")
    assert _picture(data_set).tolist() == [[0, 0, 255]]


def _table(first: int, bits: int, entries: list[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.add_new(0x00283006, "US", entries)
    return item


def test_a_table_of_values_of_interest_comes_before_a_window():
    data_set = image(np.array([[9, 10, 11, 12, 13]], "u2"), WindowCenter="1", WindowWidth="2")
    data_set.VOILUTSequence = Sequence([_table(10, 8, [255, 0, 100])])
    assert _picture(data_set).tolist() == [[255, 255, 0, 100, 100]]


def test_a_modality_table_comes_before_the_window():
    data_set = image(np.array([[0, 1, 2]], "u2"), WindowCenter="500", WindowWidth="1001")
    data_set.ModalityLUTSequence = Sequence([_table(0, 16, [1000, 0, 500])])
    data_set.ModalityLUTSequence[0].ModalityLUTType = "US"
    drawn = _picture(data_set)[0].astype(int)
    assert abs(drawn - [255, 0, 128]).max() <= 1


def test_a_table_of_twelve_bits_that_claims_sixteen_is_not_drawn_black():
    data_set = image(np.array([[0, 1]], "u2"))
    data_set.VOILUTSequence = Sequence([_table(0, 16, [0, 4095])])
    assert _picture(data_set).tolist() == [[0, 255]]


def test_without_a_window_nearly_all_values_are_spread():
    stored = np.linspace(1000, 2000, 10_000).astype("u2").reshape(100, 100)
    stored[0, 0] = 65535  # one hot pixel
    drawn = _picture(image(stored))
    assert drawn[1, 0] < 5
    assert drawn[99, 99] > 250
    assert 118 < drawn[50, 0] < 138


def test_eight_bits_without_a_window_are_drawn_as_they_are():
    stored = gradient(dtype="u1", top=100)
    assert np.array_equal(_picture(image(stored)), stored)


def test_segments_are_visible():
    stored = np.array([[0, 1, 2]], "u1")
    assert _picture(image(stored)).tolist() == [[0, 128, 255]]


def test_one_bit_is_black_and_white_also_when_nothing_is_set():
    for bits, expected in (([1, 0, 0, 1], [255, 0, 0, 255]), ([0, 0, 0, 0], [0, 0, 0, 0])):
        data_set = image(np.zeros((1, 4), "u1"), BitsAllocated=1, BitsStored=1, HighBit=0)
        data_set.PixelData = np.packbits(bits, bitorder="little").tobytes() + b"\0"
        assert _picture(data_set).tolist() == [expected]


def test_padding_is_black_in_both_polarities_and_does_not_move_the_window():
    stored = np.linspace(1000, 2000, 10_000).astype("i2").reshape(100, 100)
    stored[:50] = -2000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        data_set = image(stored, PixelPaddingValue=-2000, PhotometricInterpretation=photometric)
        drawn = _picture(data_set)
        assert not drawn[:50].any()
        assert drawn[50:].min() < 5
        assert drawn[50:].max() > 250


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_floating_point_maps_are_drawn(dtype):
    data_set = image(np.array([[0.0, 0.25, 0.5, 1.0]], dtype), WindowCenter="0.5", WindowWidth="1")
    assert _picture(data_set).tolist() == [[0, 64, 128, 255]]


def test_a_constant_image_is_black_and_not_an_error():
    assert not _picture(image(np.full((4, 4), 700, "u2"))).any()


# --- Colour ---


def test_colours_are_drawn_as_they_are():
    assert np.array_equal(_picture(image(colours())), colours())


def test_planes_are_put_together():
    data_set = image(colours(), PlanarConfiguration=1)
    data_set.PixelData = np.ascontiguousarray(colours().transpose(2, 0, 1)).tobytes()
    assert np.array_equal(_picture(data_set), colours())


def test_ybr_full_becomes_rgb():
    data_set = image(np.array([[[76, 85, 255], [149, 43, 21]]], "u1"))
    data_set.PhotometricInterpretation = "YBR_FULL"
    drawn = _picture(data_set).astype(int)
    assert abs(drawn - [[[254, 0, 0], [0, 254, 0]]]).max() <= 2


def test_sub_sampled_ybr_becomes_rgb():
    data_set = image(np.zeros((2, 4, 3), "u1"), PhotometricInterpretation="YBR_FULL_422")
    data_set.PixelData = bytes([76, 149, 128, 128] * 4)
    drawn = _picture(data_set)
    assert drawn[0].tolist() == [[76] * 3, [149] * 3, [76] * 3, [149] * 3]


def test_deep_colours_keep_their_upper_bits():
    data_set = image(np.array([[[0xFF00, 0x8000, 0x0100]]], "u2"))
    assert _picture(data_set).tolist() == [[[255, 128, 1]]]


@pytest.mark.filterwarnings("ignore")
def test_palette_colours_are_those_of_pydicom():
    import pydicom

    path = get_testdata_file("examples_palette.dcm", download=False)
    stored, syntax = stored_file(path)
    drawn = np.asarray(
        Image.open(io.BytesIO(render(stored, syntax, RenderRequest(media_type=PNG_MEDIA_TYPE))))
    )
    data_set = pydicom.dcmread(path)
    assert np.array_equal(drawn, apply_color_lut(data_set.pixel_array, data_set) >> 8)


def _palette(data_set: Dataset, descriptor: list[int]) -> Dataset:
    data_set.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("Red", "Green", "Blue"):
        setattr(data_set, f"{name}PaletteColorLookupTableDescriptor", descriptor)
    return data_set


def test_a_palette_maps_what_is_outside_to_its_ends():
    data_set = _palette(image(np.array([[0, 5, 6, 7, 9]], "u1")), [3, 5, 16])
    data_set.RedPaletteColorLookupTableData = np.array([10, 20, 30], "<u2").tobytes()
    data_set.GreenPaletteColorLookupTableData = np.array([256, 512, 65535], "<u2").tobytes()
    data_set.BluePaletteColorLookupTableData = np.array([0, 0, 0], "<u2").tobytes()
    drawn = _picture(data_set)[0]
    assert drawn[:, 0].tolist() == [10, 10, 20, 30, 30]  # the low byte only: a writer's habit
    assert drawn[:, 1].tolist() == [1, 1, 2, 255, 255]


def test_a_segmented_palette_is_expanded():
    data_set = _palette(image(np.arange(8, dtype="u1").reshape(1, 8)), [8, 0, 16])
    # Two entries, a ramp of three, and both again.
    codes = np.array([0, 2, 0, 4096, 1, 3, 65280, 2, 2, 0, 0], "<u2").tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(data_set, f"Segmented{name}PaletteColorLookupTableData", codes)
    red = _picture(data_set)[0, :, 0]
    assert red.tolist() == [0, 16, 95, 175, 255, 0, 16, 95]


def test_a_damaged_palette_is_invalid():
    data_set = _palette(image(np.zeros((2, 2), "u1")), [256, 0, 16])
    with pytest.raises(Invalid, match="red palette"):
        _picture(data_set)
    for name in ("Red", "Green", "Blue"):
        setattr(data_set, f"Segmented{name}PaletteColorLookupTableData", b"\x07\0\x01\0\0\0")
    with pytest.raises(Invalid, match="segmented palette"):
        _picture(data_set)


# --- Frames ---


def test_the_frame_that_was_asked_is_drawn():
    pixels = np.stack([np.full((4, 4), n * 50, "u1") for n in range(5)])
    data_set = image(pixels, frames=5)
    assert [_picture(data_set, frame=n)[0, 0] for n in (1, 3, 5)] == [0, 100, 200]
    with pytest.raises(NotFound, match="no frame 6"):
        _picture(data_set, frame=6)


def test_functional_groups_of_the_frame_come_before_the_shared_ones():
    def voi(center: str) -> Dataset:
        group = Dataset()
        window = Dataset()
        window.WindowCenter, window.WindowWidth = center, "100"
        group.FrameVOILUTSequence = Sequence([window])
        return group

    def rescale(intercept: str) -> Dataset:
        group = Dataset()
        values = Dataset()
        values.RescaleIntercept, values.RescaleSlope, values.RescaleType = intercept, "1", "HU"
        group.PixelValueTransformationSequence = Sequence([values])
        return group

    stored = gradient(top=300)
    data_set = image(np.stack([stored] * 3), frames=3)
    data_set.SharedFunctionalGroupsSequence = Sequence([rescale("-50")])
    data_set.PerFrameFunctionalGroupsSequence = Sequence([voi("20"), voi("120"), voi("220")])
    for frame, center in ((1, 20), (2, 120), (3, 220)):
        expected = _window(stored.astype(int) - 50, center, 100)
        assert np.array_equal(_picture(data_set, frame=frame), expected)


# --- Place and size ---


def _quadrants() -> Dataset:
    pixels = np.zeros((40, 60), "u1")
    pixels[:20, 30:], pixels[20:, :30], pixels[20:, 30:] = 80, 160, 240
    return image(pixels)


def _corners(drawn: np.ndarray) -> list[int]:
    # Rounded, since enlarging overshoots a little at edges.
    return [round(int(drawn[y, x]) / 10) * 10 for y in (2, -3) for x in (2, -3)]


def test_the_first_pixel_is_at_the_upper_left():
    assert _corners(_picture(_quadrants())) == [0, 80, 160, 240]


@pytest.mark.parametrize(
    ("viewport", "shape"),
    [(Viewport(30, 30), (20, 30)), (Viewport(600, 40), (40, 60)), (Viewport(256, 256), (171, 256))],
)
def test_an_image_fits_its_viewport_and_keeps_its_proportions(viewport, shape):
    assert _picture(_quadrants(), viewport=viewport).shape == shape


def test_a_part_of_the_image_is_cut_out_and_mirrored():
    right = Viewport(60, 80, x=30, y=0, source_width=30, source_height=40)
    assert _corners(_picture(_quadrants(), viewport=right)) == [80, 80, 240, 240]
    mirrored = Viewport(60, 40, source_width=-60, source_height=40)
    assert _corners(_picture(_quadrants(), viewport=mirrored)) == [80, 0, 240, 160]
    upside_down = Viewport(60, 40, source_width=60, source_height=-40)
    assert _corners(_picture(_quadrants(), viewport=upside_down)) == [160, 240, 0, 80]


def test_a_part_outside_of_the_image_is_invalid():
    with pytest.raises(Invalid, match="outside"):
        _picture(_quadrants(), viewport=Viewport(10, 10, x=60, y=0))


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({"PixelSpacing": [2, 1]}, (80, 60)),
        ({"PixelSpacing": [1, 2]}, (40, 120)),
        ({"PixelAspectRatio": [3, 1]}, (120, 60)),
        ({"ImagerPixelSpacing": [0.5, 0.25]}, (80, 60)),
        ({"PixelSpacing": [0, 1]}, (40, 60)),
        ({"PixelSpacing": [1000, 1]}, (40, 60)),
    ],
)
def test_pixels_that_are_not_square_are_drawn_in_proportion(attributes, shape):
    data_set = _quadrants()
    for keyword, value in attributes.items():
        setattr(data_set, keyword, value)
    assert _picture(data_set).shape == shape


def test_quality_changes_the_size_of_the_file():
    stored = written(image(gradient(128, 128)))
    sizes = [len(render(stored, _LITTLE, RenderRequest(quality=quality))) for quality in (20, 95)]
    assert sizes[0] < sizes[1]


# --- What is not drawn ---


def test_an_object_without_pixels_is_refused_and_not_faked():
    data_set = image(gradient())
    del data_set.PixelData
    with pytest.raises(Unsupported, match="not rendered"):
        _picture(data_set)


def test_an_encapsulated_document_is_given_when_asked_for():
    data_set = image(gradient())
    del data_set.PixelData
    data_set.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data_set.EncapsulatedDocument = b"%PDF-1.7 odd!"
    data_set.EncapsulatedDocumentLength = 13
    stored = written(data_set)
    request = RenderRequest(media_type=PDF_MEDIA_TYPE)
    assert render(stored, _LITTLE, request) == b"%PDF-1.7 odd!"
    assert document(reader(stored), len(stored), _LITTLE, PDF_MEDIA_TYPE) == b"%PDF-1.7 odd!"
    with pytest.raises(Unsupported, match="no pixel data"):
        render(stored, _LITTLE, RenderRequest(media_type=JPEG_MEDIA_TYPE))
    with pytest.raises(Unsupported, match="no document"):
        render(written(image(gradient())), _LITTLE, request)


def test_an_enormous_image_is_refused_before_it_is_read():
    data_set = image(gradient(), Rows=20_000, Columns=20_000)
    with pytest.raises(Exhausted, match="100000000 pixels"):
        _picture(data_set)


def test_an_unknown_photometric_interpretation_is_refused():
    with pytest.raises(Unsupported, match="CIELAB"):
        _picture(image(colours(), PhotometricInterpretation="CIELAB"))


def test_drawing_needs_the_header_and_one_frame_only():
    pixels = np.stack([np.full((64, 64), n, "u1") for n in range(200)])
    stored = written(image(pixels, frames=200))
    table = locate_frames(reader(stored), len(stored), _LITTLE)
    source = frame_source(reader(stored), table, 150)
    assert len(source.data) == 4096
    assert len(source.header) < 1000
    drawn = render_frame(source, RenderRequest(frame=150, media_type=PNG_MEDIA_TYPE))
    assert np.asarray(Image.open(io.BytesIO(drawn)))[0, 0] == 149


def test_compressed_images_are_drawn():
    picture = io.BytesIO()
    Image.fromarray(colours(64, 64)).save(picture, "JPEG", quality=95)
    data_set = image(colours(64, 64), PhotometricInterpretation="YBR_FULL_422")
    stored = encapsulated(data_set, [picture.getvalue()])
    drawn = render(stored, uids.JPEG_BASELINE, RenderRequest(media_type=PNG_MEDIA_TYPE))
    expected = np.asarray(Image.open(picture))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(drawn))), expected)


def test_no_flip_raises_anything_but_a_kind_of_error():
    random = np.random.default_rng(17)
    shared = Dataset()
    shared.FrameVOILUTSequence = Sequence([Dataset()])
    shared.FrameVOILUTSequence[0].WindowCenter = "40"
    shared.FrameVOILUTSequence[0].WindowWidth = "400"
    data_set = image(np.stack([gradient()] * 2), frames=2, PixelSpacing=[1, 2])
    data_set.SharedFunctionalGroupsSequence = Sequence([shared])
    data_set.VOILUTSequence = Sequence([_table(0, 12, list(range(300)))])
    stored = written(data_set)
    header = stored.index(b"\xe0\x7f\x10\x00") + 12
    for _ in range(800):
        flipped = bytearray(stored)
        flipped[int(random.integers(header))] = int(random.integers(256))
        try:
            render(bytes(flipped), _LITTLE, RenderRequest(frame=2))
        except PacstewardError:
            continue


def test_the_function_of_a_window_in_the_request_is_obeyed():
    data_set = image(np.array([[100, 200, 300]], "u2"))
    window = Window(200, 200, VoiFunction.SIGMOID)
    assert _picture(data_set, window=window).tolist() == [[30, 128, 225]]
