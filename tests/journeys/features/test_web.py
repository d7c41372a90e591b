"""Functions of DICOMweb that no other journey tells of: counts, pages, pictures, outcomes.

Numbers C08 to C60 are those of the conformance list, F040 to F177 those of the feature list.
"""

from __future__ import annotations

import io
import shutil
import zipfile

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.journeys.features.conftest import COMPRESSED, CT, FILM, TWO_SERIES, film, shipped_file
from tests.support.dicomweb import EXPLICIT, OCTETS, SERVICE, Site, instance_path, parts_of, picture
from tests.support.samples import part10, small

pytestmark = pytest.mark.journey

DICOM = 'multipart/related; type="application/dicom"'


def series_path(study: int, series: int = 1) -> str:
    return f"{SERVICE}/studies/2.25.99.{study}/series/2.25.99.{study}.{series}"


# --- QIDO-RS -------------------------------------------------------------------------------------


def test_c08_the_counts_are_those_of_what_can_be_retrieved_now(site: Site) -> None:
    extra = small(TWO_SERIES, 2, 9, PatientID="TWO")
    assert site.stow(part10(extra)).status_code == 200
    for study in site.studies():
        uid = str(study["0020000D"]["Value"][0])
        told = site.client.search_for_series(uid)
        counts = [one["00201209"]["Value"][0] for one in told]
        assert study["00201208"]["vr"] == "IS"
        assert study["00201208"]["Value"] == [sum(counts)]
        assert study["00201206"]["Value"] == [len(told)]
        assert len(site.http.get(f"{SERVICE}/studies/{uid}/metadata").json()) == sum(counts)
    uid = extra.StudyInstanceUID
    site.product.run("archive", "reject", uid)
    try:
        assert site.studies(StudyInstanceUID=uid) == []
    finally:
        site.product.run("archive", "restore", uid)
    assert site.studies(StudyInstanceUID=uid)[0]["00201208"]["Value"] == [7]


def test_c11_fuzzymatching_false_is_taken_silently(site: Site) -> None:
    answer = site.http.get(
        f"{SERVICE}/studies",
        params={"PatientID": "TWO", "fuzzymatching": "false", "limit": "101", "offset": "0"},
    )
    assert (answer.status_code, len(answer.json())) == (200, 1)
    assert "warning" not in answer.headers


def test_c15_series_results_name_their_study(site: Site) -> None:
    for path in ("/series", f"/studies/2.25.99.{TWO_SERIES}/series"):
        found = site.http.get(SERVICE + path, params={"includefield": "0008103E"}).json()
        assert found
        assert all(one["0020000D"]["Value"][0] for one in found)
    assert {one["0020000D"]["Value"][0] for one in found} == {f"2.25.99.{TWO_SERIES}"}


def test_c17_one_series_of_a_study_and_none_when_there_is_no_such(site: Site) -> None:
    path = f"{SERVICE}/studies/2.25.99.{TWO_SERIES}/series"
    wanted = f"2.25.99.{TWO_SERIES}.2"
    (one,) = site.http.get(path, params={"SeriesInstanceUID": wanted}).json()
    assert one["0020000E"]["Value"] == [wanted]
    # OHIF asks again without the filter when this is empty.
    assert site.http.get(path, params={"SeriesInstanceUID": "2.25.1"}).status_code == 204
    assert len(site.http.get(path).json()) == 2


def test_f040_studies_series_and_instances_are_searched_one_below_the_other(site: Site) -> None:
    (study,) = site.studies(PatientID="TWO")
    uid = str(study["0020000D"]["Value"][0])
    series = site.client.search_for_series(uid)
    assert [one["00200011"]["Value"] for one in series]
    below = [
        one["00080018"]["Value"][0]
        for each in series
        for one in site.client.search_for_instances(uid, each["0020000E"]["Value"][0])
    ]
    assert len(below) == len(set(below)) == study["00201208"]["Value"][0]
    assert len(site.client.search_for_instances(uid)) == len(below)


def test_f047_limit_and_offset_cut_the_same_list(site: Site) -> None:
    path = f"{SERVICE}/studies/2.25.99.{TWO_SERIES}/instances"
    every = [one["00080018"]["Value"] for one in site.http.get(path).json()]
    pages = [
        [
            one["00080018"]["Value"]
            for one in site.http.get(path, params={"limit": 2, "offset": offset}).json()
        ]
        for offset in range(0, len(every), 2)
    ]
    assert [uid for page in pages for uid in page] == every
    assert site.http.get(path, params={"offset": len(every)}).status_code == 204


def test_f048_what_was_left_out_is_announced(site: Site) -> None:
    path = f"{SERVICE}/studies/2.25.99.{TWO_SERIES}/instances"
    count = len(site.http.get(path).json())
    answer = site.http.get(path, params={"limit": 2})
    assert answer.status_code == 200
    assert answer.headers["warning"].startswith("299 ")
    assert f"{count - 2} additional results that can be requested" in answer.headers["warning"]
    last = site.http.get(path, params={"limit": 2, "offset": count - 2})
    assert "warning" not in last.headers


@pytest.mark.parametrize("path", ["/studies", "/series", "/instances"])
def test_f050_nothing_found_is_204(site: Site, path: str) -> None:
    answer = site.http.get(SERVICE + path, params={"PatientID": "NOBODY"})
    assert (answer.status_code, answer.content) == (204, b"")


# --- WADO-RS -------------------------------------------------------------------------------------


def test_c33_multi_frame_objects_tell_their_number_of_frames(site: Site) -> None:
    (model,) = site.http.get(f"{series_path(FILM)}/metadata").json()
    assert model["00280008"] == {"vr": "IS", "Value": [6]}
    (found,) = site.http.get(
        f"{series_path(FILM)}/instances", params={"includefield": "NumberOfFrames"}
    ).json()
    assert found["00280008"]["Value"] == [6]


@pytest.mark.parametrize("form", ["rendered", "thumbnail"])
def test_c60_a_series_of_several_instances_gives_one_picture(site: Site, form: str) -> None:
    for path in (series_path(TWO_SERIES), f"{SERVICE}/studies/2.25.99.{TWO_SERIES}"):
        answer = site.http.get(f"{path}/{form}", headers={"accept": "image/jpeg"})
        assert answer.status_code == 200
        assert Image.open(io.BytesIO(answer.content)).format == "JPEG"


def test_f053_without_a_transfer_syntax_it_is_explicit_little_endian(site: Site) -> None:
    answer = site.http.get(f"{SERVICE}/studies/2.25.99.{COMPRESSED}", headers={"accept": DICOM})
    ((label, payload),) = parts_of(answer)
    assert label == f"application/dicom; transfer-syntax={EXPLICIT}"
    got = pydicom.dcmread(io.BytesIO(payload))
    wanted = shipped_file("MR_small_jpeg_ls_lossless.dcm", COMPRESSED)
    assert got.file_meta.TransferSyntaxUID == EXPLICIT
    assert np.array_equal(got.pixel_array, wanted.pixel_array)


def test_f054_metadata_on_each_level(site: Site) -> None:
    study = f"{SERVICE}/studies/2.25.99.{TWO_SERIES}"
    series = series_path(TWO_SERIES)
    counts = [
        len(site.http.get(f"{path}/metadata").json())
        for path in (study, series, f"{series}/instances/2.25.99.{TWO_SERIES}.1.2")
    ]
    assert counts == [len(site.client.search_for_instances(study.rsplit("/", 1)[1])), 3, 1]


def test_f055_metadata_are_prepared_once_and_may_be_thrown_away(site: Site) -> None:
    path = f"{series_path(CT)}/metadata"
    first = site.http.get(path)
    prepared = [path for path in (site.product.data / "cache").rglob("*") if path.is_file()]
    assert prepared
    shutil.rmtree(site.product.data / "cache")
    again = site.http.get(path)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["etag"] == first.headers["etag"]


def test_f056_what_the_client_has_is_not_sent_again(site: Site) -> None:
    path = f"{series_path(CT)}/metadata"
    tag = site.http.get(path).headers["etag"]
    for said in (tag, f'"other", {tag}', "*"):
        answer = site.http.get(path, headers={"if-none-match": said})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
    assert site.http.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_f057_bulk_data_are_served_where_metadata_say(site: Site) -> None:
    (model,) = site.http.get(f"{series_path(CT)}/metadata").json()
    address = model["7FE00010"]["BulkDataURI"]
    assert address.startswith(f"{site.product.url}{series_path(CT)}/instances/")
    pixels = site.http.get(address, headers={"accept": "application/octet-stream"}).content
    assert pixels == shipped_file("CT_small.dcm", CT).PixelData


def test_f059_frames_come_as_parts(site: Site) -> None:
    path = f"{instance_path(film())}/frames/2,5"
    answer = site.http.get(path, headers={"accept": OCTETS})
    parts = parts_of(answer)
    assert [np.frombuffer(frame, "<i2")[0] for _label, frame in parts] == [2, 5]
    assert {label for label, _ in parts} == {
        f"application/octet-stream; transfer-syntax={EXPLICIT}"
    }


def test_f061_pictures_by_window_size_quality_and_format(site: Site) -> None:
    path = f"{instance_path(shipped_file('CT_small.dcm', CT))}/rendered"

    def render(accept: str = "image/png", **asked: str) -> httpx.Response:
        return site.http.get(path, params=asked, headers={"accept": accept})

    shown = picture(render(viewport="50,50"))
    assert (shown.format, shown.size) == ("PNG", (50, 50))
    dark, light = (
        np.asarray(picture(render(window=f"{center},800,linear"))).mean() for center in (1500, 300)
    )
    assert light > dark + 10
    coarse, fine = (len(render("image/jpeg", quality=quality).content) for quality in ("5", "95"))
    assert fine > 2 * coarse
    assert picture(render("image/jpeg")).format == "JPEG"


def test_f063_thumbnails_exist_on_each_level(site: Site) -> None:
    instance = instance_path(shipped_file("CT_small.dcm", CT))
    study = instance.split("/series/")[0]
    for path in (study, instance.split("/instances/")[0], instance, f"{instance}/frames/1"):
        shown = picture(site.http.get(f"{path}/thumbnail", params={"viewport": "32,32"}))
        assert (shown.format, shown.size) == ("JPEG", (32, 32))


# --- STOW-RS -------------------------------------------------------------------------------------


def test_f068_f070_each_object_of_a_request_has_its_own_outcome(site: Site) -> None:
    good, other = part10(small(65, 1, 1)), part10(small(65, 1, 2))
    whole = site.stow(good, other)
    assert whole.status_code == 200
    assert "00081198" not in whole.json()
    assert len(whole.json()["00081199"]["Value"]) == 2
    assert site.http.get(whole.json()["00081190"]["Value"][0]).status_code == 200

    some = site.stow(part10(small(65, 1, 3)), other[:-40])
    assert some.status_code == 202
    (kept,) = some.json()["00081199"]["Value"]
    assert kept["00081155"]["Value"] == ["2.25.99.65.1.3"]
    failed = [
        item
        for sequence in ("00081198", "0008119A")
        for item in some.json().get(sequence, {}).get("Value", [])
    ]
    assert [item["00081197"]["Value"] for item in failed] == [[0xC000]]

    nothing = site.stow(other[:-40])
    assert nothing.status_code == 409
    assert "00081199" not in nothing.json()


PREAMBLES = (
    b"MZ\x90\0" + b"\x0e\x1f\xba" * 40,
    b"<html><script>alert(1)</script></html>",
    b"#!/bin/sh\nexec sh\n",
)


@pytest.mark.parametrize("preamble", PREAMBLES, ids=["program", "page", "script"])
def test_f177_nothing_can_hide_in_the_preamble(site: Site, preamble: bytes) -> None:
    number = 1 + PREAMBLES.index(preamble)
    data = small(66, 1, number)
    file = preamble[:128].ljust(128, b"\1") + part10(data)[128:]
    assert site.stow(file).status_code == 200
    path = instance_path(data)
    alone = site.http.get(path, headers={"accept": "application/dicom; transfer-syntax=*"})
    parts = site.http.get(path, headers={"accept": f"{DICOM}; transfer-syntax=*"})
    packed = site.http.get(
        f"{SERVICE}/studies/{data.StudyInstanceUID}", params={"accept": "application/zip"}
    )
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(f".1.{number}.dcm"))
        files = [alone.content, parts_of(parts)[0][1], archive.read(name)]
    for got in files:
        assert got[:128] == bytes(128)
        assert got[128:132] == b"DICM"
        assert pydicom.dcmread(io.BytesIO(got)) == data
    kept = b"".join(one.read_bytes() for one in (site.product.data / "objects").rglob("*.dcm"))
    assert preamble not in kept
