"""Transfer syntaxes and the media types under which frames travel (PS3.18 8.7.3)."""

import pytest

from pacsteward.base.errors import Unsupported
from pacsteward.dicom import uids
from pacsteward.dicom.codecs import DECODABLE
from pacsteward.dicom.elements import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from pacsteward.dicom.media import Codec, codec_of, encoding_of, is_always_lossy, media_type

_ROOT = "1.2.840.10008.1.2.4."


@pytest.mark.parametrize(
    ("expected", "syntaxes"),
    [
        ("image/jpeg", [_ROOT + "50", _ROOT + "51", _ROOT + "57", _ROOT + "70"]),
        ("image/jls", [_ROOT + "80", _ROOT + "81"]),
        ("image/jp2", [_ROOT + "90", _ROOT + "91"]),
        ("image/jpx", [_ROOT + "92", _ROOT + "93"]),
        ("image/jphc", [_ROOT + "201", _ROOT + "202", _ROOT + "203"]),
        ("image/dicom-rle", [uids.RLE_LOSSLESS]),
        ("application/octet-stream", [uids.EXPLICIT_VR_LITTLE_ENDIAN]),
        ("video/mp4", [_ROOT + "102", _ROOT + "107"]),
        ("video/mpeg", [_ROOT + "100"]),
    ],
)
def test_frames_travel_under_the_media_types_of_the_standard(expected, syntaxes):
    assert {media_type(syntax) for syntax in syntaxes} == {expected}


def test_every_syntax_of_the_standard_has_a_codec_or_none():
    without = {Codec.UNKNOWN, Codec.VIDEO, Codec.JPEG_XL}
    for syntax in uids.TRANSFER_SYNTAXES:
        codec = codec_of(syntax)
        assert (codec in DECODABLE) != (codec in without), syntax


def test_encodings_are_those_of_the_syntax():
    assert encoding_of(uids.IMPLICIT_VR_LITTLE_ENDIAN) == IMPLICIT_LITTLE
    assert encoding_of(uids.EXPLICIT_VR_BIG_ENDIAN) == EXPLICIT_BIG
    assert encoding_of(uids.JPEG_2000) == EXPLICIT_LITTLE


def test_only_syntaxes_that_cannot_be_reversible_are_always_lossy():
    always = {uid for uid in uids.TRANSFER_SYNTAXES if is_always_lossy(uid)}
    assert always == {_ROOT + "50", _ROOT + "51", _ROOT + "53", _ROOT + "55"}


def test_a_private_syntax_is_unsupported():
    with pytest.raises(Unsupported):
        codec_of("1.2.840.113619.5.2")
