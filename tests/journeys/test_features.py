"""Functions over HTTP, in the browser and on the command line that no other journey tells of.

Numbers C01 to C96 are those of the conformance list, F001 to F201 those of the feature list.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pydicom
import pytest
from axe_playwright_python.sync_playwright import Axe
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pynetdicom.sop_class import Verification

from pacsteward.features.viewer.files import DIST
from pacsteward.hospital.examinations import objects
from tests.journeys.test_dicomweb import client_of, instance_path, parts_of, related
from tests.support.peers import dcmtk
from tests.support.product import PACSTEWARD, Product
from tests.support.samples import part10, pretend_orders, small
from tests.support.scu import associated, find, keys, store, store_bytes

pytestmark = pytest.mark.journey

ROOT = Path(__file__).parents[2]
SERVICE = "/dicom-web"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
DICOM = 'multipart/related; type="application/dicom"'
OCTETS = 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'

FILM, CT, COMPRESSED, TWO_SERIES = 61, 62, 63, 64
CHROMIUM = shutil.which("chromium") or ""


@dataclass(frozen=True)
class Site:
    """A running archive that holds a few studies, and ways to ask it."""

    product: Product
    http: httpx.Client
    client: DICOMwebClient

    def stow(self, *files: bytes, study: str = "") -> httpx.Response:
        body, headers = related(list(files))
        path = f"{SERVICE}/studies/{study}" if study else f"{SERVICE}/studies"
        return self.http.post(path, content=body, headers=headers)

    def studies(self, **asked: str) -> list[dict[str, dict[str, list[object]]]]:
        answer = self.http.get(f"{SERVICE}/studies", params=asked)
        return answer.json() if answer.status_code == 200 else []


def film() -> Dataset:
    """Make a multi-frame object whose frames tell their numbers."""
    data = small(FILM, 1, 1, PatientID="FILM", NumberOfFrames="6", Rows=4, Columns=4)
    data.PixelData = b"".join(np.full((4, 4), number, "<i2").tobytes() for number in range(1, 7))
    return data


def shipped_file(name: str, study: int) -> Dataset:
    data = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    data.StudyInstanceUID, data.SeriesInstanceUID = f"2.25.99.{study}", f"2.25.99.{study}.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"2.25.99.{study}.1.1"
    return data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    product = Product(tmp_path_factory.mktemp("features") / "archive").start()
    token = product.token()
    http = httpx.Client(
        base_url=product.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
    )
    site = Site(product, http, client_of(product, token))
    data = [
        film(),
        shipped_file("CT_small.dcm", CT),
        shipped_file("MR_small_jpeg_ls_lossless.dcm", COMPRESSED),
        *(
            small(TWO_SERIES, series, number, PatientID="TWO", SeriesDescription=f"No. {series}")
            for series in (1, 2)
            for number in range(1, 4)
        ),
    ]
    order = next(order for order in pretend_orders(studies=8) if order.modality == "CT")
    data += list(objects(order))[:3]
    assert site.stow(*map(part10, data)).status_code == 200
    try:
        yield site
    finally:
        http.close()
        product.stop()


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


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


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


# --- the machine ---------------------------------------------------------------------------------


def test_f178_no_log_holds_a_patient(site: Site) -> None:
    name, number = "Xanthippos^Zwetschgenbaum", "GEHEIM4711"
    data = small(67, 1, 1, PatientName=name, PatientID=number, PatientBirthDate="19010203")
    changed = small(67, 1, 1, PatientName=f"{name}^Jun", PatientID=number)
    http, product = site.http, site.product
    assert store(product, [data])[0].Status == 0
    assert store(product, [changed])[0].Status == 0xB000
    body = part10(data)
    assert site.stow(body, body[:-30]).status_code == 202
    cut = body[body.index(b"\x08\x00\x05\x00") :][:-20]
    assert store_bytes(product, [("2.25.99.67.1.1", cut)])[0][0] != 0
    # Asked in every way, also such that an answer is an error.
    assert site.studies(PatientName="xanth*", PatientID=number)
    for path in (
        f"/dicom-web/studies?PatientName={name}&StudyDate={name}",
        f"/dicom-web/studies/{name}",
        f"/dicom-web/series?PatientID={number}&limit={number}",
        f"/studies?q={name}",
        f"/api/v1/peers/{number}",
        f"/{name}/{number}",
        f"/wado?requestType=WADO&studyUID={name}",
    ):
        http.get(path)
    assert len(find(product, keys("STUDY", PatientName=name, PatientID=number))[0]) == 1
    find(product, keys("STUDY", PatientName=name, StudyDate=name[:8]))
    find(product, keys("NONSENSE", PatientName=name))
    metrics = http.get("/metrics").text
    logs = [path for path in (product.data / "logs").rglob("*") if path.is_file()]
    assert logs
    written = metrics + product.output() + "".join(path.read_text() for path in logs)
    assert "Association" in written
    for word in ("xanthippos", "zwetschgenbaum", number.lower(), "19010203"):
        assert word not in written.lower()


def figure(text: str, pattern: str) -> float:
    return sum(float(found) for found in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))


def test_f179_figures_are_for_those_who_may_and_rise(site: Site) -> None:
    assert httpx.get(f"{site.product.url}/metrics").status_code == 401
    with site.product.client("auditor") as auditor:
        assert auditor.get("/metrics").status_code == 403
    associations = r'pacsteward_associations_total\{.*outcome="accepted".*\}'
    requests = r"pacsteward_http_request_seconds_count\{.*\}"
    before = site.http.get("/metrics")
    assert before.headers["content-type"].startswith("text/plain; version=0.0.4")
    with associated(site.product, [(Verification, [EXPLICIT])]) as association:
        assert association.send_c_echo().Status == 0
    assert figure(site.http.get("/metrics").text, requests) > figure(before.text, requests)
    deadline = time.monotonic() + 15
    while figure(site.http.get("/metrics").text, associations) <= figure(before.text, associations):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for process in ("keeper", "doors", "web", "jobs"):
        assert f'process="{process}"' in before.text


@contextmanager
def only(product: Product, kind: str) -> Iterator[None]:
    """Run one kind of process over a product's folder."""
    ports = ["--dimse-port", str(product.dimse_port), "--http-port", str(product.http_port)]
    process = subprocess.Popen(
        [*PACSTEWARD, "serve", "--only", kind, "--data", str(product.data), *ports],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=15)


def health(product: Product) -> tuple[int, int]:
    return tuple(httpx.get(f"{product.url}{path}").status_code for path in ("/healthz", "/readyz"))  # type: ignore[return-value]


def await_health(product: Product, wanted: tuple[int, int]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if (seen := health(product)) == wanted:
                return
        except httpx.HTTPError as error:
            seen = error  # type: ignore[assignment]
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)


def test_f180_load_balancers_learn_whether_it_lives_and_whether_it_can_serve(
    tmp_path: Path,
) -> None:
    product = Product(tmp_path / "archive")
    with only(product, "web"):
        await_health(product, (200, 503))
        with only(product, "keeper"):
            await_health(product, (200, 200))
        await_health(product, (200, 503))


def test_doors_that_were_there_before_the_keeper_find_it(tmp_path: Path) -> None:
    """Whatever a process manager starts first, and however often the keeper is started anew."""
    product = Product(tmp_path / "archive")
    data = small(1, 1, 1)
    with only(product, "doors"):
        await_echo(product)
        assert [status.Status for status in store(product, [data])] == [0xA700]
        for _ in range(2):
            with only(product, "keeper"):
                deadline = time.monotonic() + 30
                while store(product, [data])[0].Status != 0:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert [status.Status for status in store(product, [data])] == [0xA700]


def await_echo(product: Product) -> None:
    deadline = time.monotonic() + 30
    while dcmtk("echoscu", "127.0.0.1", str(product.dimse_port)).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_f191_nothing_else_runs_beside_it(site: Site) -> None:
    assert site.product.process is not None
    supervisor = psutil.Process(site.product.process.pid)
    family = [supervisor, *supervisor.children(recursive=True)]
    names = {os.path.basename(process.exe()) for process in family}
    assert names == {os.path.basename(os.path.realpath(sys.executable))}
    ours = {site.product.dimse_port, site.product.http_port}
    for process in family:
        for link in process.net_connections("inet"):
            assert link.laddr.port in ours, link
            assert link.laddr.ip == "127.0.0.1"
    assert (site.product.data / "index.db").read_bytes()[:15] == b"SQLite format 3"


def test_f198_the_index_is_made_anew_from_the_stored_bytes_alone(tmp_path: Path) -> None:
    product = Product(tmp_path / "archive").start()
    data = [small(study, 1, number) for study in (1, 2, 3) for number in (1, 2)]
    assert {status.Status for status in store(product, data)} == {0}
    product.run("archive", "reject", "2.25.99.2")
    product.run("archive", "delete", "2.25.99.3")

    def look(http: httpx.Client) -> tuple[object, dict[str, bytes]]:
        found = http.get("/dicom-web/studies", params={"includefield": "all"})
        bytes_of = {
            one.SOPInstanceUID: http.get(
                instance_path(one), headers={"accept": "application/dicom; transfer-syntax=*"}
            ).content
            for one in data[:2]
        }
        assert http.get("/dicom-web/studies/2.25.99.2/metadata").status_code == 404
        assert http.get("/dicom-web/studies/2.25.99.3/metadata").status_code == 404
        return found.json(), bytes_of

    with product.client() as http:
        before = look(http)
    refused = subprocess.run(
        [*PACSTEWARD, "archive", "rebuild", "--data", str(product.data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 5, "not while it runs"
    product.stop()
    gone = list(product.data.glob("index.db*"))
    assert gone
    for path in gone:
        path.unlink()
    assert "4 instances" in product.run("archive", "rebuild")
    product.start()
    try:
        with product.client() as http:
            assert look(http) == before
            # What was rejected is hidden, not lost.
            product.run("archive", "restore", "2.25.99.2")
            assert len(http.get("/dicom-web/studies/2.25.99.2/metadata").json()) == 2
    finally:
        product.stop()


def test_f200_the_api_describes_itself_and_does_what_it_says(site: Site) -> None:
    document = site.http.get("/api/openapi.json").json()
    assert document["openapi"].startswith("3.")
    prefix = document["servers"][0]["url"]
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 20
    for method, path, operation in operations:
        assert operation["summary"], path
        assert operation["x-permission"], path
        assert operation["responses"], path
        needed = [one for one in operation.get("parameters", []) if one.get("required")]
        if method == "get" and not needed:
            assert site.http.get(prefix + path).status_code == 200, path
            assert httpx.get(site.product.url + prefix + path).status_code == 401, path
    schema = document["components"]["schemas"]["NewPeer"]
    assert {"ae_title", "host", "port"} <= set(schema["required"])
    peer = {"ae_title": "BYAPI", "host": "127.0.0.1", "port": 104}
    assert site.http.post(f"{prefix}/peers", json=peer).status_code < 300
    assert site.http.get(f"{prefix}/peers/BYAPI").json()["port"] == 104
    assert "BYAPI" in site.product.run("peers", "list")
    wrong = site.http.post(f"{prefix}/peers", json={"ae_title": "X"})
    assert wrong.status_code == 400
    assert wrong.headers["content-type"] == "application/problem+json"
    assert {fault["place"] for fault in wrong.json()["faults"]} == {"body.host", "body.port"}


def test_f201_a_wheel_holds_all_that_is_needed_and_no_tests(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    done = subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in (
        "pacsteward/web/templates/layout.html",
        "pacsteward/web/assets.toml",
        "pacsteward/features/query/templates/studies.html",
        "pacsteward/migrations/versions/0001_base.py",
    ):
        assert wanted in names
    assert any(name.startswith("pacsteward/web/static/vendor/") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    unwanted = re.compile(r"(^|/)(test_[^/]*\.py|conftest\.py|fixtures/.*|tests/.*|.*\.pyc)$")
    assert [name for name in names if unwanted.search(name)] == []

    # Installed, it runs from another place, and makes itself a folder.
    home = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(home), str(wheel)], check=True)
    told = subprocess.run(
        [*PACSTEWARD, "access", "list", "--json", "--data", str(tmp_path / "data")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stdout.strip()) == (0, "[]"), told.stderr
    assert (tmp_path / "data" / "index.db").is_file()


# --- the console ---------------------------------------------------------------------------------


@dataclass
class Console:
    page: Page
    faults: list[str]
    url: str
    study: str
    conflict: int

    def go(self, path: str) -> None:
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == 200, path


@pytest.fixture(scope="module")
def console(site: Site) -> Iterator[Console]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    (study,) = site.studies(PatientID="TWO")
    changed = small(68, 1, 1)
    for name, status in (("Before^All", 200), ("Else^Somebody", 202)):
        changed.PatientName = name
        assert site.stow(part10(changed)).status_code == status
    conflict = json.loads(site.product.run("archive", "conflicts", "--json"))[0]["conflict_key"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: faults.append(message.text) if message.type == "error" else None,
        )
        page.on(
            "response",
            lambda answer: (
                faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
            ),
        )
        page.goto(f"{site.product.url}/login")
        page.fill("#username", "admin")
        page.fill("#password", site.product.password())
        page.click("button.primary")
        page.wait_for_url(lambda url: "/login" not in url)
        uid = str(study["0020000D"]["Value"][0])
        yield Console(page, faults, site.product.url, uid, conflict)
        browser.close()


PAGES = (
    "/studies", "/studies/{study}", "/elsewhere", "/peers", "/peers/new", "/health", "/people",
    "/tokens", "/account", "/audit", "/attention", "/attention/conflicts/{conflict}",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_f186_pages_are_sound_and_usable_by_everybody(console: Console, path: str) -> None:
    console.faults.clear()
    console.go(path.format(study=console.study, conflict=console.conflict))
    console.page.wait_for_load_state("networkidle")
    assert console.page.title()
    assert console.page.locator("h1").count() == 1
    found = Axe().run(console.page).response["violations"]
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert console.faults == []


@pytest.mark.parametrize("path", PAGES)
def test_f186_pages_fit_a_telephone_and_a_small_desktop(console: Console, path: str) -> None:
    page = console.page
    try:
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            console.go(path.format(study=console.study, conflict=console.conflict))
            assert page.evaluate("document.documentElement.scrollWidth") == width
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


@pytest.mark.parametrize(
    "path", ["/attention", "/attention/conflicts/{conflict}", "/health", "/studies"]
)
def test_f186_a_telephone_shows_tables_without_sliding_them(console: Console, path: str) -> None:
    page = console.page
    try:
        page.set_viewport_size({"width": 390, "height": 800})
        console.go(path.format(conflict=console.conflict))
        hidden = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert hidden
        assert set(hidden) == {0}
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


def test_f186_a_conflict_is_opened_from_its_finding_by_the_keyboard(console: Console) -> None:
    page = console.page
    console.go("/health")
    page.get_by_role("link", name=re.compile("came under a UID that other content has")).click()
    expect(page.locator("#kind")).to_have_value("conflict")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(re.compile("Conflict"))
    row = page.locator(".sides-compared tr", has_text="PatientName")
    expect(row).to_contain_text("Else, Somebody")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the other one").click()
    file = pydicom.dcmread(download.value.path())
    assert file.PatientName == "Else^Somebody"


def test_f186_the_button_of_the_viewer_is_on_a_small_desktop(console: Console) -> None:
    page = console.page
    try:
        page.set_viewport_size({"width": 1280, "height": 800})
        console.go("/studies")
        hidden = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert hidden == [0]
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


def test_f186_a_range_of_dates_is_kept_in_the_address(console: Console) -> None:
    page = console.page
    console.go("/studies")
    rows = page.locator("#list tbody tr")
    total = rows.count()
    page.fill("#since", "2026-03-02")
    page.fill("#until", "2026-03-02")
    page.wait_for_url("**/studies?*since=2026-03-02&until=2026-03-02*")
    expect(rows).not_to_have_count(total)
    dates = {text[:10] for text in page.locator("#list td:nth-child(4)").all_inner_texts()}
    assert dates == {"2026-03-02"}
    found = rows.count()
    # Sent to a colleague, whose browser may have no script.
    context = page.context.browser.new_context(  # type: ignore[union-attr]
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    other = context.new_page()
    other.goto(page.url)
    assert other.locator("#list tbody tr").count() == found
    assert other.input_value("#since") == "2026-03-02"
    other.fill("#since", "2999-01-01")
    other.fill("#until", "")
    other.click("button:text('Search')")
    expect(other.locator("#list h2")).to_have_text("Nothing found")
    context.close()
    rows.first.locator("td.number a").click()
    expect(page).to_have_url(re.compile("/studies/[0-9.]+$"))


def test_f186_a_header_is_searched_where_it_is(console: Console) -> None:
    page = console.page
    console.go(f"/studies/{console.study}")
    page.locator("a[data-open-row]").first.click()
    page.locator("a[data-open-row]").first.click()
    lines = page.locator(".header-lines tbody tr")
    expect(lines.first).to_be_visible()
    whole = lines.count()
    page.keyboard.press("/")
    page.keyboard.type("sopinstance ui")
    shown = page.locator(".header-lines tbody tr:visible")
    expect(shown).to_have_count(1)
    expect(shown).to_contain_text("SOPInstanceUID")
    page.locator("#filter").fill("")
    expect(shown).to_have_count(whole)


def test_f186_a_picture_that_cannot_be_drawn_gives_its_place_to_a_word(console: Console) -> None:
    page = console.page
    page.route(re.compile("/thumbnail"), lambda route: route.fulfill(status=404, body="{}"))
    try:
        console.go(f"/studies/{console.study}")
        expect(page.locator("span.thumbnail.none").first).not_to_be_empty()
        expect(page.locator("img.thumbnail")).to_have_count(0)
    finally:
        page.unroute(re.compile("/thumbnail"))
        console.faults.clear()


def test_s10_a_search_in_the_console_is_audited_without_the_words(console: Console) -> None:
    console.go("/studies?q=TWO&modality=CT")
    console.go("/audit")
    console.page.locator("tbody a").first.click()
    entry = console.page.locator("#content")
    expect(entry).to_contain_text("words")
    expect(entry).to_contain_text("modality")
    expect(entry).not_to_contain_text("TWO")


def test_f186_lists_are_walked_by_keyboard(console: Console) -> None:
    page = console.page
    console.go("/studies")
    box = page.locator("#q")
    page.keyboard.press("/")
    expect(box).to_be_focused()
    expect(box).to_have_value("")
    box.press_sequentially("TWO")
    expect(page).to_have_url(re.compile("q=TWO"))
    page.keyboard.press("Escape")
    # What was found stays, and can be walked.
    expect(box).to_have_value("TWO")
    expect(page.locator("table[data-rows] tbody tr")).to_have_count(1)
    page.keyboard.press("j")
    expect(page.locator("a[data-open-row]")).to_be_focused()

    console.go("/studies?days=")
    # The browser puts the focus there a moment after the page has loaded.
    expect(box).to_be_focused()
    page.keyboard.press("Escape")
    rows = page.locator("table[data-rows] tbody tr")
    assert rows.count() > 2
    for key, row in (("j", 0), ("j", 1), ("k", 0)):
        page.keyboard.press(key)
        expect(rows.nth(row).locator("a[data-open-row]")).to_be_focused()
    address = rows.nth(0).locator("a[data-open-row]").get_attribute("href")
    # A list that is drawn anew under somebody's hands keeps its current row.
    with page.expect_response("**/studies?*"):
        page.locator("#modality").dispatch_event("change")
    expect(page.locator("tr.is-current a[data-open-row]")).to_have_attribute("href", str(address))
    expect(page.locator("tr.is-current a[data-open-row]")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{address}")


def test_figures_lead_to_their_lists(console: Console) -> None:
    console.go("/health")
    figure = console.page.locator("a.figure").filter(has_text="Studies").first
    assert int(figure.locator("b").inner_text()) > 3
    figure.click()
    console.page.wait_for_url("**/studies")


@pytest.mark.skipif(not (DIST / "index.html").is_file(), reason="the viewer was not prepared")
def test_f188_the_viewer_is_one_click_away_from_a_study(console: Console) -> None:
    console.go(f"/studies/{console.study}")
    link = console.page.get_by_role("link", name=re.compile("viewer", re.IGNORECASE)).first
    address = link.get_attribute("href") or ""
    assert address.startswith("/viewer/")
    assert f"StudyInstanceUIDs={console.study}" in address
    answer = console.page.goto(console.url + address)
    assert answer is not None
    assert answer.status == 200
    expect(console.page.locator("#root")).not_to_be_empty(timeout=60_000)
