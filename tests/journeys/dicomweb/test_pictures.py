"""Frames, pictures, documents and videos come in the form that was asked for.

Numbers C43 to C61 are those of the conformance list, F060 to F064 those of the feature list.
"""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import RLELossless

from tests.journeys.dicomweb.conftest import Collection
from tests.support.dicomweb import (
    EXPLICIT,
    JPEG_LS,
    OCTETS,
    SERVICE,
    instance_path,
    parts_of,
    picture,
    related,
)
from tests.support.samples import part10, small

# --- frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"]
)
def test_c54_native_frames_come_little_endian_and_labelled(site: Collection, name: str) -> None:
    answer = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": OCTETS})
    ((label, frame),) = parts_of(answer)
    assert label == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    data = site.files[name]
    pixels = np.frombuffer(frame, "<i2" if data.PixelRepresentation else "<u2")
    assert np.array_equal(pixels.reshape(data.Rows, data.Columns), data.pixel_array)


def test_c48_a_compressed_frame_comes_as_it_is_stored(site: Collection) -> None:
    name = "MR_small_jpeg_ls_lossless.dcm"
    answer = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": OCTETS})
    ((label, frame),) = parts_of(answer)
    assert label == f"application/octet-stream; transfer-syntax={JPEG_LS}"
    assert frame == next(pydicom.encaps.generate_frames(site.files[name].PixelData))
    # C49, F060
    alone = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": "image/jls"})
    assert alone.headers["content-type"] == f"image/jls; transfer-syntax={JPEG_LS}"
    assert alone.content == frame


def test_a_compressed_frame_is_decoded_for_who_wants_octets(site: Collection) -> None:
    name = "MR_small_jpeg_ls_lossless.dcm"
    data = site.files[name]
    accept = 'multipart/related; type="application/octet-stream"'
    answer = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": accept})
    ((label, frame),) = parts_of(answer)
    assert label == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    assert np.array_equal(
        np.frombuffer(frame, "<i2").reshape(data.pixel_array.shape), data.pixel_array
    )


@pytest.fixture(scope="module")
def film(site: Collection) -> Dataset:
    """A multi-frame object whose frames tell their numbers."""
    data = small(20, 1, 1, NumberOfFrames="6", Rows=4, Columns=4)
    data.PixelData = b"".join(np.full((4, 4), n, "<i2").tobytes() for n in range(1, 7))
    site.client.store_instances([data])
    return data


def frames_path(data: Dataset) -> str:
    return f"{instance_path(data)}/frames"


def test_c51_frames_come_in_the_order_asked_for(site: Collection, film: Dataset) -> None:
    answer = site.http.get(f"{frames_path(film)}/4,2,6", headers={"accept": OCTETS})
    first = [np.frombuffer(frame, "<i2")[0] for _label, frame in parts_of(answer)]
    assert first == [4, 2, 6]
    again = site.client.retrieve_instance_frames(
        film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID, [5, 1]
    )
    assert [np.frombuffer(frame, "<i2")[0] for frame in again] == [5, 1]


def test_c42_bulk_data_of_compressed_frames_come_frame_by_frame(site: Collection) -> None:
    data = small(22, 1, 1, NumberOfFrames="3", Rows=4, Columns=4)
    data.PixelData = b"".join(np.full((4, 4), n, "<i2").tobytes() for n in (1, 2, 3))
    data.compress(RLELossless, generate_instance_uid=False)
    site.client.store_instances([data])
    (model,) = site.http.get(f"{instance_path(data)}/metadata").json()
    address = model["7FE00010"]["BulkDataURI"]

    stored = site.http.get(address, headers={"accept": OCTETS})
    assert [frame for _label, frame in parts_of(stored)] == list(
        pydicom.encaps.generate_frames(data.PixelData, number_of_frames=3)
    )
    decoded = site.http.get(
        address, headers={"accept": 'multipart/related; type="application/octet-stream"'}
    )
    assert [np.frombuffer(frame, "<i2")[0] for _label, frame in parts_of(decoded)] == [1, 2, 3]
    # They are no one value, so they cannot be given as one.
    alone = site.http.get(address, headers={"accept": "application/octet-stream"})
    assert alone.status_code == 406


@pytest.mark.parametrize(
    "accept", ["application/octet-stream", 'multipart/related; type="application/octet-stream"']
)
def test_bulk_data_of_a_single_compressed_frame_are_decoded_for_who_wants_octets(
    site: Collection, accept: str
) -> None:
    name = "MR_small_jpeg_ls_lossless.dcm"
    (model,) = site.http.get(f"{site.path(name)}/metadata").json()
    answer = site.http.get(model["7FE00010"]["BulkDataURI"], headers={"accept": accept})
    # Octets without a transfer syntax are uncompressed (PS3.18 8.7.3.3.1).
    if accept.startswith("multipart"):
        ((label, frame),) = parts_of(answer)
    else:
        label, frame = answer.headers["content-type"], answer.content
    assert label == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    assert frame == site.files[name].pixel_array.tobytes()


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ("7", 404),
        ("1,7", 404),
        ("0", 400),
        ("-1", 400),
        ("x", 400),
        ("1,,2", 400),
        ("99999999999", 400),
    ],
)
def test_c52_frames_that_are_not_there_are_404(
    site: Collection, film: Dataset, frames: str, status: int
) -> None:
    answer = site.http.get(f"{frames_path(film)}/{frames}", headers={"accept": OCTETS})
    assert answer.status_code == status


def test_c52_frames_of_an_object_without_pixels_are_404(site: Collection) -> None:
    answer = site.http.get(f"{site.path('test-SR.dcm')}/frames/1", headers={"accept": OCTETS})
    assert answer.status_code in (400, 404)


def test_c52_a_form_that_cannot_be_made_is_406(site: Collection) -> None:
    answer = site.http.get(f"{site.path('CT_small.dcm')}/frames/1", headers={"accept": "image/jp2"})
    assert answer.status_code == 406


# --- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["study", "series", "instance"])
@pytest.mark.parametrize("form", ["rendered", "thumbnail"])
def test_c57_c58_pictures_exist_on_every_level(site: Collection, level: str, form: str) -> None:
    answer = site.http.get(
        f"{site.path('CT_small.dcm', level=level)}/{form}",
        params={"viewport": "64,64"},
        headers={"accept": "image/jpeg"},
    )
    shown = picture(answer)
    assert shown.format == "JPEG"
    assert shown.size == (64, 64)
    assert np.asarray(shown).std() > 5


def test_c57_a_frame_has_pictures_too(site: Collection, film: Dataset) -> None:
    for form in ("rendered", "thumbnail"):
        answer = site.http.get(f"{frames_path(film)}/3/{form}")
        assert picture(answer).format == "JPEG"
    assert site.http.get(f"{frames_path(film)}/9/rendered").status_code == 404
    # Never the first of several as if it were all of them.
    assert site.http.get(f"{frames_path(film)}/1,2/rendered").status_code == 501


def test_c59_the_parameter_overrides_the_header(site: Collection) -> None:
    answer = site.http.get(
        f"{site.path('CT_small.dcm')}/rendered",
        params={"accept": "image/png"},
        headers={"accept": "application/dicom+json"},
    )
    assert picture(answer).format == "PNG"


def test_c61_the_window_changes_the_picture(site: Collection) -> None:
    def mean(window: str) -> float:
        answer = site.http.get(
            f"{site.path('CT_small.dcm')}/rendered",
            params={"window": window, "accept": "image/png"},
        )
        return float(np.asarray(picture(answer)).mean())

    assert mean("-500,100") > mean("500,2000") > mean("3000,100") + 1


@pytest.mark.parametrize("query", ["viewport=0,0", "viewport=x", "window=1", "quality=0"])
def test_parameters_of_pictures_that_cannot_be_meant_are_400(site: Collection, query: str) -> None:
    assert site.http.get(f"{site.path('CT_small.dcm')}/rendered?{query}").status_code == 400


def test_an_object_without_a_picture_is_404(site: Collection) -> None:
    assert site.http.get(f"{site.path('test-SR.dcm')}/thumbnail").status_code == 404
    assert site.http.get(f"{site.path('test-SR.dcm')}/rendered").status_code == 404


# --- documents and videos -----------------------------------------------------------------------

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
MPEG4 = "1.2.840.10008.1.2.4.102"


@pytest.fixture(scope="module")
def document(site: Collection) -> Dataset:
    """An encapsulated PDF."""
    data = small(30, 1, 1, Modality="DOC", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(data, keyword)
    data.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data.EncapsulatedDocument = PDF + b"\0" * (len(PDF) % 2)
    data.EncapsulatedDocumentLength = len(PDF)
    site.client.store_instances([data])
    return data


@pytest.fixture(scope="module")
def video(site: Collection) -> tuple[Dataset, bytes]:
    """A video, as far as an archive is concerned: one stream in two fragments."""
    stream = bytes(range(256)) * 3000
    data = small(31, 1, 1, NumberOfFrames="25", SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.1.1")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.TransferSyntaxUID = MPEG4
    data.PixelData = pydicom.encaps.encapsulate([stream], fragments_per_frame=2, has_bot=False)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    body, headers = related([part10(data)])
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 200
    return data, stream


def test_c43_a_document_comes_as_itself(site: Collection, document: Dataset) -> None:
    (model,) = site.http.get(f"{instance_path(document)}/metadata").json()
    address = model["00420011"]
    alone = site.http.get(f"{instance_path(document)}/bulkdata/00420011")
    assert alone.headers["content-type"] == "application/pdf"
    assert alone.content.rstrip(b"\0") == PDF
    assert alone.headers["x-content-type-options"] == "nosniff"
    parts = site.http.get(
        f"{instance_path(document)}/bulkdata/00420011",
        headers={"accept": "multipart/related; type=application/pdf"},
    )
    assert parts_of(parts)[0][0] == "application/pdf"
    assert "BulkDataURI" in address or "InlineBinary" in address
    # F062
    shown = site.http.get(f"{instance_path(document)}/rendered")
    assert shown.headers["content-type"] == "application/pdf"
    assert shown.content.rstrip(b"\0") == PDF
    assert site.http.get(f"{instance_path(document)}/thumbnail").status_code == 404


def test_c44_c45_a_video_comes_as_itself_and_in_ranges(
    site: Collection, video: tuple[Dataset, bytes]
) -> None:
    data, stream = video
    path = f"{instance_path(data)}/rendered"
    whole = site.http.get(path, headers={"accept": "video/mp4"})
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.content == stream
    middle = len(stream) // 2
    for asked, expected in (
        ("bytes=0-0", stream[:1]),
        (f"bytes={middle - 5}-{middle + 4}", stream[middle - 5 : middle + 5]),
        ("bytes=-10", stream[-10:]),
    ):
        part = site.http.get(path, headers={"range": asked})
        assert (part.status_code, part.content) == (206, expected)
    assert site.http.get(path, headers={"accept": "image/jpeg"}).status_code == 406
    # A frame or a picture of it is not given, which is no fault of ours (501), and said so.
    for form in ("frames/1", "frames/1,2", "frames/1/thumbnail", "thumbnail"):
        refused = site.http.get(f"{instance_path(data)}/{form}")
        assert (refused.status_code, "It is a video" in refused.text) == (406, True), form
    # No default that could be made: it leaves as it is, and says so.
    alone = site.http.get(instance_path(data), headers={"accept": "application/dicom"})
    assert pydicom.dcmread(io.BytesIO(alone.content)).file_meta.TransferSyntaxUID == MPEG4


def test_s13_what_could_come_alive_leaves_as_bytes(site: Collection) -> None:
    data = small(32, 1, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.2")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(data, keyword)
    data.MIMETypeOfEncapsulatedDocument = "text/html"
    data.EncapsulatedDocument = b"<script>alert(1)</script> " * 100
    body, headers = related([part10(data)])
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 200
    answer = site.http.get(
        f"{instance_path(data)}/bulkdata/00420011", headers={"accept": "text/html,*/*"}
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


# --- WADO-URI -----------------------------------------------------------------------------------


def test_f064_wado_uri_gives_objects_and_pictures(site: Collection) -> None:
    data = site.files["CT_small.dcm"]
    asked = {
        "requestType": "WADO",
        "studyUID": data.StudyInstanceUID,
        "seriesUID": data.SeriesInstanceUID,
        "objectUID": data.SOPInstanceUID,
    }
    assert picture(site.http.get("/wado", params=asked)).format == "JPEG"
    shown = site.http.get(
        "/wado", params={**asked, "contentType": "image/png", "rows": "32", "columns": "32"}
    )
    assert picture(shown).size == (32, 32)
    whole = site.http.get("/wado", params={**asked, "contentType": "application/dicom"})
    assert pydicom.dcmread(io.BytesIO(whole.content)) == data
    assert site.http.get("/wado", params={**asked, "objectUID": "1.2"}).status_code == 404
    assert site.http.get("/wado").status_code == 400
    # Whoever asks for an object without an identity must not get one with it.
    for content_type in ("application/dicom", "image/jpeg"):
        named = site.http.get(
            "/wado", params={**asked, "contentType": content_type, "anonymize": "yes"}
        )
        assert named.status_code == 501


def test_f064_wado_uri_gives_a_video_as_the_object(
    site: Collection, video: tuple[Dataset, bytes]
) -> None:
    data, _stream = video
    asked = {
        "requestType": "WADO",
        "studyUID": data.StudyInstanceUID,
        "seriesUID": data.SeriesInstanceUID,
        "objectUID": data.SOPInstanceUID,
    }
    whole = site.http.get("/wado", params=asked)
    assert whole.headers["content-type"] == "application/dicom"
    still = site.http.get("/wado", params={**asked, "contentType": "image/jpeg"})
    assert still.status_code == 406
