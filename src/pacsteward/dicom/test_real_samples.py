"""Every real sample ends in a picture or in an error that says why."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pacsteward.base.errors import PacstewardError
from pacsteward.dicom import uids
from pacsteward.dicom.decode import DecoderPool
from pacsteward.dicom.fixtures.phantoms import reader, stored_file, transcoded
from pacsteward.dicom.render_request import RenderRequest, Viewport

_FOLDER = os.environ.get("PACSTEWARD_TEST_DATA", "")

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not _FOLDER, reason="PACSTEWARD_TEST_DATA names no folder of samples"),
    pytest.mark.filterwarnings("ignore"),
]


def _samples() -> Iterator[tuple[str, bytes, str]]:
    for path in sorted(Path(_FOLDER or ".").rglob("*.dcm")):
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                continue
        try:
            stored, syntax = stored_file(str(path))
        except AttributeError:
            continue  # no transfer syntax in the part 10 head: not an object we would store
        yield path.name, stored, syntax


def test_every_sample_is_drawn_or_refused_with_the_reason():
    drawn, reasons = 0, {}
    with DecoderPool() as pool:
        for name, stored, syntax in _samples():
            request = RenderRequest(viewport=Viewport(256, 256))
            try:
                picture = pool.render(reader(stored), len(stored), syntax, request)
            except PacstewardError as error:
                reasons[name] = error.why
                continue
            assert max(Image.open(io.BytesIO(picture)).size) == 256, name
            drawn += 1
    assert drawn > 0
    assert all(reasons.values())


def test_every_sample_is_given_native_or_refused_with_the_reason():
    given, reasons = 0, {}
    with DecoderPool() as pool:
        for name, stored, syntax in _samples():
            try:
                native = transcoded(
                    stored, syntax, uids.EXPLICIT_VR_LITTLE_ENDIAN, code_frame=pool.code_frame
                )
                assert native, name
            except PacstewardError as error:
                reasons[name] = error.why
                continue
            given += 1
    assert given > 0
    assert all(reasons.values())
