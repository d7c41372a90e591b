"""WADO-RS: objects, their metadata and bulk data come back as stored, and only to those who may.

Numbers C29 to C62 are those of the conformance list, F051 to F067 those of the feature list.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from tests.journeys.dicomweb.conftest import NAMES, Collection
from tests.support.dicomweb import EXPLICIT, JPEG_LS, SERVICE, parts_of
from tests.support.samples import part10, small

# --- metadata and bulk data ---------------------------------------------------------------------


def test_c29_metadata_of_all_instances_come_in_one_array(site: Collection) -> None:
    data = site.files["small-1-1"]
    found = site.client.retrieve_series_metadata(data.StudyInstanceUID, data.SeriesInstanceUID)
    assert len(found) == 3
    # C34, C35
    for one in found:
        assert one["00083002"]["Value"] == [EXPLICIT]
        assert set(one["7FE00010"]) == {"vr", "BulkDataURI"}
        read = Dataset.from_json(one, bulk_data_uri_handler=lambda *_: b"")
        assert read.PatientName == data.PatientName


def test_c30_a_second_multipart_type_in_accept_is_no_error(site: Collection) -> None:
    answer = site.http.get(
        f"{site.path('small-1-1', level='series')}/metadata",
        headers={
            "accept": 'application/dicom+json, multipart/related; type="application/dicom+xml"'
        },
    )
    assert answer.headers["content-type"] == "application/dicom+json"


def test_c37_metadata_are_compressed_and_not_sent_twice(site: Collection) -> None:
    # A study of its own: it grows, and others count what the shared ones hold.
    assert site.stow(*(part10(small(8, 1, number)) for number in (1, 2, 3))).status_code == 200
    path = f"{SERVICE}/studies/2.25.99.8/metadata"
    first = site.http.get(path, headers={"accept-encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    again = site.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    xml = {"accept": 'multipart/related; type="application/dicom+xml"'}
    other = site.http.get(path, headers={"if-none-match": first.headers["etag"], **xml})
    assert (other.status_code, b"NativeDicomModel" in other.content) == (200, True)
    # C38
    assert site.stow(part10(small(8, 1, 9))).status_code == 200
    newer = site.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert newer.status_code == 200
    assert len(newer.json()) == len(first.json()) + 1


def test_f067_metadata_come_as_xml(site: Collection) -> None:
    accept = 'multipart/related; type="application/dicom+xml"'
    answer = site.http.get(f"{site.path('CT_small.dcm')}/metadata", headers={"accept": accept})
    ((label, document),) = parts_of(answer)
    assert label == "application/dicom+xml"
    assert document.startswith(b"<?xml")


def test_c42_bulk_data_come_alone_in_parts_and_in_ranges(site: Collection) -> None:
    (model,) = site.http.get(f"{site.path('CT_small.dcm')}/metadata").json()
    address = model["7FE00010"]["BulkDataURI"]
    pixels = site.files["CT_small.dcm"].PixelData
    # C41
    assert address.startswith(f"{site.product.url}{site.path('CT_small.dcm')}/bulkdata/")
    alone = site.http.get(address, headers={"accept": "application/octet-stream"})
    assert alone.content == pixels
    parts = site.http.get(
        address, headers={"accept": 'multipart/related; type="application/octet-stream"'}
    )
    assert parts_of(parts)[0][1] == pixels
    some = site.http.get(
        address, headers={"accept": "application/octet-stream", "range": "bytes=10-19"}
    )
    assert (some.status_code, some.content) == (206, pixels[10:20])
    assert site.client.retrieve_bulkdata(address)[0] == pixels


# --- objects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_c48_every_object_comes_back_as_it_was_stored(site: Collection, name: str) -> None:
    answer = site.http.get(
        site.path(name),
        headers={"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
    )
    ((label, payload),) = parts_of(answer)
    data = site.files[name]
    meta = getattr(data, "file_meta", None)
    syntax = str(meta.TransferSyntaxUID) if meta else "1.2.840.10008.1.2"
    assert label == f"application/dicom; transfer-syntax={syntax}"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert pydicom.dcmread(io.BytesIO(payload)) == data
    assert payload[:128] == bytes(128)


@pytest.mark.parametrize("name", NAMES)
def test_c53_without_a_transfer_syntax_it_is_explicit_little_endian(
    site: Collection, name: str
) -> None:
    answer = site.http.get(site.path(name), headers={"accept": "application/dicom"})
    assert answer.status_code == 200
    got = pydicom.dcmread(io.BytesIO(answer.content))
    assert got.file_meta.TransferSyntaxUID == EXPLICIT
    data = site.files[name]
    if name.startswith(("CT", "MR")):
        assert np.array_equal(got.pixel_array, data.pixel_array)


def test_f051_studies_and_series_come_as_parts(site: Collection) -> None:
    data = site.files["small-1-1"]
    series = site.client.retrieve_series(data.StudyInstanceUID, data.SeriesInstanceUID)
    assert [one.InstanceNumber for one in series] == [1, 2, 3]
    assert {one.SOPInstanceUID for one in series} == {
        site.files[f"small-1-{number}"].SOPInstanceUID for number in (1, 2, 3)
    }
    assert len(site.client.retrieve_study(data.StudyInstanceUID)) >= 6


def test_f052_another_transfer_syntax_is_made(site: Collection) -> None:
    data = site.files["CT_small.dcm"]
    got = site.client.retrieve_instance(
        data.StudyInstanceUID,
        data.SeriesInstanceUID,
        data.SOPInstanceUID,
        media_types=(("application/dicom", JPEG_LS),),
    )
    assert got.file_meta.TransferSyntaxUID == JPEG_LS
    assert np.array_equal(got.pixel_array, data.pixel_array)


def test_a_study_comes_as_a_zip_of_its_files(site: Collection) -> None:
    path = site.path("small-1-1", level="study")
    answer = site.http.get(path, params={"accept": "application/zip"})
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        wanted = site.files["small-1-2"]
        name = f"{wanted.StudyInstanceUID}/{wanted.SeriesInstanceUID}/{wanted.SOPInstanceUID}.dcm"
        assert pydicom.dcmread(io.BytesIO(packed.read(name))) == wanted


def test_downloading_needs_its_own_permission(site: Collection) -> None:
    with site.product.client("technologist") as technologist:
        path = site.path("small-1-1", level="study")
        assert technologist.get(path).status_code == 200
        assert technologist.get(path, params={"accept": "application/zip"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies/1.2.3.4", 404),
        ("/studies/1.2.3.4/series/1.2", 404),
        ("/studies/1.2.3.4/series/1.2/instances/1.2", 404),
        ("/studies/1.2.3.4/metadata", 404),
        ("/studies/1.2.3.4/rendered", 404),
        ("/studies/abc", 400),
        ("/studies/..%2f..%2fetc", 400),
        (f"/studies/{'1' * 65}", 400),
        ("/nothing", 404),
    ],
)
def test_what_is_not_here_is_404_and_what_is_no_uid_400(
    site: Collection, path: str, status: int
) -> None:
    answer = site.http.get(f"{SERVICE}{path}")
    assert answer.status_code in ((status, 404) if "%2f" in path else (status,))
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_object_cannot_be_had_through_another_study(site: Collection) -> None:
    one, other = site.files["CT_small.dcm"], site.files["small-1-1"]
    path = (
        f"{SERVICE}/studies/{other.StudyInstanceUID}/series/{other.SeriesInstanceUID}"
        f"/instances/{one.SOPInstanceUID}"
    )
    assert site.http.get(path).status_code == 404


def test_c52_what_cannot_be_given_is_406_and_says_what_can(site: Collection) -> None:
    answer = site.http.get(site.path("CT_small.dcm"), headers={"accept": "text/html"})
    assert answer.status_code == 406
    assert "application/dicom" in answer.json()["remedy"]


def test_c62_nobody_is_401_and_the_wrong_role_403(site: Collection) -> None:
    path = site.path("CT_small.dcm")
    with site.product.stranger() as stranger:
        nobody = stranger.get(path)
    assert nobody.status_code == 401
    assert "www-authenticate" in nobody.headers
    with site.product.client("auditor") as auditor:
        refused = auditor.get(path)
    assert refused.status_code == 403
    assert "www-authenticate" in refused.headers


# --- all together -------------------------------------------------------------------------------


def test_s10_looking_at_a_study_is_in_the_audit_book(site: Collection) -> None:
    uid = site.files["CT_small.dcm"].StudyInstanceUID
    site.http.get(f"{site.path('CT_small.dcm', level='study')}/metadata")
    told = site.http.get("/api/v1/audit", params={"object_id": uid})
    assert told.status_code == 200
    assert uid in told.text


def test_answers_are_json_that_gzip_tools_read(site: Collection) -> None:
    path = f"{SERVICE}/studies"
    with site.http.stream("GET", path, headers={"accept-encoding": "gzip"}) as answer:
        body = b"".join(answer.iter_raw())
    assert json.loads(gzip.decompress(body))
