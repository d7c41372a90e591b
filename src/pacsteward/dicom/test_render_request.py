"""The parameters of a picture, as a client writes them into its address (PS3.18 8.3.5)."""

import pytest

from pacsteward.base.errors import Invalid, Unsupported
from pacsteward.dicom.grayscale import VoiFunction, Window
from pacsteward.dicom.render_request import RenderRequest, Viewport


def test_the_parameters_of_the_standard_are_read():
    request = RenderRequest.from_query(
        {"viewport": "512,256,10,20,-100,50", "window": "40,400,linear-exact", "quality": "80"},
        frame=3,
        media_type="image/png",
    )
    assert request == RenderRequest(
        frame=3,
        media_type="image/png",
        viewport=Viewport(512, 256, 10, 20, -100, 50),
        window=Window(40, 400, VoiFunction.LINEAR_EXACT),
        quality=80,
    )


def test_a_viewport_may_give_its_size_only():
    request = RenderRequest.from_query({"viewport": "256,256"})
    assert request.viewport == Viewport(256, 256)
    assert RenderRequest.from_query({"viewport": "256,256,,,,"}).viewport == Viewport(256, 256)
    assert RenderRequest.from_query({}).viewport is None


def test_what_is_not_followed_is_said():
    request = RenderRequest.from_query({"annotation": "patient", "iccprofile": "srgb"})
    assert [warning.split()[2] for warning in request.warnings] == ["annotation", "iccprofile"]
    assert RenderRequest.from_query({"charset": "utf-8"}).warnings == ()


@pytest.mark.parametrize(
    "query",
    [
        {"viewport": "256"},
        {"viewport": "256,256,1,2,3"},
        {"viewport": "a,b"},
        {"viewport": "0,256"},
        {"viewport": "-5,256"},
        {"viewport": ",256"},
        {"viewport": "nan,256"},
        {"viewport": "inf,256"},
        {"viewport": "10,10,0,0,0,10"},
        {"window": "40"},
        {"window": "40,0"},
        {"window": "40,-3"},
        {"window": "40,400,cubic"},
        {"window": ",400"},
        {"window": "1e999,400"},
        {"quality": "0"},
        {"quality": "101"},
        {"quality": "best"},
    ],
)
def test_parameters_that_make_no_sense_are_invalid(query):
    with pytest.raises(Invalid, match="was not understood"):
        RenderRequest.from_query(query)


def test_a_gigantic_viewport_is_refused():
    with pytest.raises(Invalid, match="100 million"):
        RenderRequest.from_query({"viewport": "100000,100000"})


def test_a_media_type_that_is_not_offered_is_refused():
    with pytest.raises(Unsupported, match="image/tiff"):
        RenderRequest(media_type="image/tiff")
