"""Answers that are given at once are those that the long way gives, header by header."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from pacsteward.app import Place, opened_house
from pacsteward.application import build_application, build_protocol
from pacsteward.archive import Selection
from pacsteward.base.clock import ManualClock
from pacsteward.feature import House
from pacsteward.features.retrieve import pictures
from pacsteward.features.retrieve.pictures import PictureCache
from pacsteward.security import HOUSE
from pacsteward.web.protocol import PatientProtocol
from tests.support.product import Product
from tests.support.scu import store

pytestmark = pytest.mark.journey

FILES = (
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "image_dfl.dcm",
    "examples_palette.dcm",
    "rtplan.dcm",
)
"""Native and compressed, either byte order, deflated, and one without pixels."""

ACCEPTS = (
    "",
    "*/*",
    "application/dicom",
    "application/octet-stream",
    'multipart/related; type="application/octet-stream"',
    'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    'multipart/related; type="application/dicom"',
    'multipart/related; type="application/dicom"; transfer-syntax=*',
    'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.5',
    "image/jpeg, multipart/related; type=image/*; q=0.5",
    "application/zip",
    "text/html",
    "nonsense",
)

TAILS = ("", "/frames/1", "/frames/2", "/frames/1,2", "/frames/0", "/frames/99", "/frames/one")

PICTURES = ("/rendered", "/thumbnail", "/frames/1/rendered", "/frames/2/thumbnail")

NOW = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)

LONG_WAY = {"if-unmodified-since": "Sun, 01 Nov 2026 00:00:00 GMT"}
"""Nobody looks at it here, and with it a request is not plain any more."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other work on the machine decide which way a request goes."""
    monkeypatch.setattr("pacsteward.base.db.look._SLOW_S", 60.0)
    monkeypatch.setattr("pacsteward.archive.find.AT_ONCE_S", 10.0)


@dataclass
class Served:
    """The web door over an archive, in this process, and how it answered."""

    house: House
    token: str
    clock: ManualClock
    url: str = ""
    at_once: list[bool] = field(default_factory=list)

    def client(self, token: str = "") -> httpx.Client:
        headers = {"authorization": f"Bearer {token or self.token}", "accept-encoding": ""}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Dataset]]]:
    """A data folder that a running product keeps, and what is in it."""
    # No study is complete meanwhile: for one request after that all is looked up anew.
    quiet = {"PACSTEWARD_ARCHIVE__STUDY_QUIET_S": "86400"}
    running = Product(tmp_path_factory.mktemp("short-way") / "archive", quiet).start()
    objects = list(_objects())
    for one in objects:
        assert store(running, [one])[0].Status == 0
    yield running.data, objects
    running.stop()


def _objects() -> Iterator[Dataset]:
    several = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    several.NumberOfFrames = "3"
    several.PixelData = several.PixelData + bytes(range(256)) * (2 * len(several.PixelData) // 256)
    single = [dcmread(str(get_testdata_file(name, download=False))) for name in FILES]
    for number, one in enumerate([several, *single], start=1):
        one.StudyInstanceUID, one.SeriesInstanceUID = "2.25.98.1", "2.25.98.1.1"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.98.1.1.{number}"
        yield one


@contextmanager
def served(data: Path) -> Iterator[Served]:
    """Open a second web door over the same folder, and note what is answered at once."""
    place = Place.found(data)
    with opened_house(place) as house:
        name = f"short-way-{time.monotonic_ns()}"
        found = Served(house, house.access.make_token(name, ["administrator"]), ManualClock(NOW))
        # The first access of each minute takes the long way, and no minute begins by itself here.
        house.audit._clock = found.clock

        class Noted(build_protocol(place, house)):  # type: ignore[misc]
            def _is_answered_by(self, short_way: object) -> bool:
                answered = bool(super()._is_answered_by(short_way))
                found.at_once.append(answered)
                return answered

        with listening(build_application(place, house), Noted) as port:
            found.url = f"http://127.0.0.1:{port}"
            yield found


@contextmanager
def listening(app: object, protocol: type[PatientProtocol]) -> Iterator[int]:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        port=0,
        http=protocol,
        loop="uvloop",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def plain(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """Return an answer without what differs from one to the next: date, number, boundary."""
    headers = dict(answer.headers)
    number = headers.pop("x-request-id")
    del headers["date"]
    body = answer.content.replace(number.encode(), b"NUMBER")
    if boundary := re.search(r"boundary=(\S+)", headers.get("content-type", "")):
        headers["content-type"] = headers["content-type"].replace(boundary[1], "BOUNDARY")
        body = body.replace(boundary[1].encode(), b"BOUNDARY")
    return answer.status_code, headers, body


def test_an_answer_at_once_is_the_answer_of_the_long_way(
    stored: tuple[Path, list[Dataset]],
) -> None:
    data, objects = stored
    with served(data) as door, door.client() as client:
        at_once: Counter[tuple[str, int]] = Counter()
        for one in objects:
            for tail in TAILS:
                for accept in ACCEPTS:
                    path = instance_path(one) + tail
                    headers = {"accept": accept}
                    client.get(path, headers=headers | LONG_WAY)  # and the audit book has it
                    short = client.get(path, headers=headers)
                    was_at_once = door.at_once[-1]
                    long = client.get(path, headers=headers | LONG_WAY)
                    assert not door.at_once[-1]
                    assert plain(short) == plain(long), (one.SOPInstanceUID, tail, accept)
                    at_once[tail, short.status_code] += was_at_once
    # Whole objects and single frames, and no failure and nothing else.
    assert set(+at_once) == {("", 200), ("/frames/1", 200), ("/frames/2", 200)}
    assert at_once["", 200] > 20
    assert at_once["/frames/1", 200] > 20


def test_a_picture_that_is_drawn_at_once_is_the_one_that_a_thread_draws(
    stored: tuple[Path, list[Dataset]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, objects = stored
    with served(data) as door, door.client() as client:
        at_once: Counter[str] = Counter()
        for one in objects:
            for path in (instance_path(one) + tail for tail in (*PICTURES, "/frames/9/rendered")):
                for accept in ("", "image/jpeg", "image/png", "text/html"):
                    headers = {"accept": accept}
                    client.get(path, headers=headers | LONG_WAY)  # and the audit book has it
                    monkeypatch.setattr(pictures, "_CACHE", PictureCache())
                    short = client.get(path, headers=headers)
                    was_at_once = door.at_once[-1]
                    again = client.get(path, headers=headers)
                    # What was drawn is remembered, in whatever way, and drawn no more.
                    assert door.at_once[-1] == (short.status_code == 200)
                    monkeypatch.setattr(pictures, "_CACHE", PictureCache())
                    long = client.get(path, headers=headers | LONG_WAY)
                    assert not door.at_once[-1]
                    assert plain(short) == plain(again) == plain(long), (path, accept)
                    syntax = one.file_meta.TransferSyntaxUID
                    is_native = not (syntax.is_compressed or syntax.is_deflated)
                    is_jpeg = short.headers["content-type"] == "image/jpeg"
                    is_small = one.get("Rows", 0) * one.get("Columns", 0) <= 512 * 512
                    is_quick = is_native and is_small and is_jpeg and short.status_code == 200
                    assert was_at_once == is_quick, (path, accept)
                    at_once[path.removeprefix(instance_path(one))] += was_at_once
    assert set(+at_once) == set(PICTURES)


SEARCHES = (
    "/studies?StudyInstanceUID=2.25.98.1",
    "/studies?0020000D=2.25.98.1&includefield=all&limit=1",
    "/studies?StudyInstanceUID=2.25.98.1,2.25.98.3&fuzzymatching=true",
    "/studies?StudyInstanceUID=2.25.98.1&NobodyKnowsThis=1",
    "/studies?PatientID=nobody%20here",
    "/studies?PatientID=nobody&NobodyKnowsThis=1",
    "/studies?PatientID=1%5C2",
    "/studies?StudyInstanceUID=2.25.98.1&offset=1",
    "/studies?StudyInstanceUID=2.25.98.1&includefield=" + ",".join(["StudyDescription"] * 150),
    "/studies?StudyInstanceUID=2.25.98.1&limit=none",
    "/studies?StudyInstanceUID=2.25.98.1&accept=application/json",
    "/studies?PatientName=*",
    "/studies",
    "/series?StudyInstanceUID=2.25.98.1",
    "/studies/2.25.98.1/series",
    "/studies/2.25.98.1/series/2.25.98.1.1/instances?limit=3",
    "/studies/2.25.98.1/series/2.25.98.1.1/instances",
    "/studies/no-uid/series",
    "/instances?SOPInstanceUID=2.25.98.1.1.1",
)


def test_a_search_that_is_answered_at_once_has_the_answer_of_the_long_way(
    stored: tuple[Path, list[Dataset]],
) -> None:
    data, _objects = stored
    with served(data) as door, door.client() as client:
        at_once: Counter[tuple[str, int]] = Counter()
        for search in SEARCHES:
            for accept in ("", "application/dicom+json", "application/dicom+xml", "text/html"):
                path, headers = f"/dicom-web{search}", {"accept": accept}
                short = client.get(path, headers=headers)
                was_at_once = door.at_once[-1]
                long = client.get(path, headers=headers | LONG_WAY)
                assert not door.at_once[-1]
                assert plain(short) == plain(long), (search, accept)
                at_once[search, short.status_code] += was_at_once
    # What names few rows, and nothing that is refused.
    assert {search for (search, status), count in at_once.items() if count and status == 204} == {
        "/studies?PatientID=nobody%20here",
        "/studies?PatientID=nobody&NobodyKnowsThis=1",
        "/studies?StudyInstanceUID=2.25.98.1&offset=1",
    }
    assert {search for (search, status), count in at_once.items() if count and status == 200} == {
        "/studies?StudyInstanceUID=2.25.98.1",
        "/studies?0020000D=2.25.98.1&includefield=all&limit=1",
        "/studies?StudyInstanceUID=2.25.98.1&NobodyKnowsThis=1",
        "/studies?StudyInstanceUID=2.25.98.1&accept=application/json",
        "/studies/2.25.98.1/series/2.25.98.1.1/instances",
    }
    assert sum(count for (_search, status), count in at_once.items() if status >= 300) == 0


def test_each_search_is_in_the_audit_book_whichever_way_it_was_answered(
    stored: tuple[Path, list[Dataset]],
) -> None:
    data, _objects = stored
    path = "/dicom-web/studies?StudyInstanceUID=2.25.98.1"
    with served(data) as door, door.client() as client:
        client.get(path)
        door.house.audit.close()
        before = door.house.audit.count()
        client.get(path)
        assert door.at_once[-1]
        client.get(path, headers=LONG_WAY)
        assert not door.at_once[-1]
        door.house.audit.close()
        assert door.house.audit.count() == before + 2
        first, second = door.house.audit.entries(limit=2)
        assert first.what == second.what
        assert first.actor == second.actor
        assert first.objects == second.objects


def test_what_is_not_plain_goes_the_long_way(stored: tuple[Path, list[Dataset]]) -> None:
    data, objects = stored
    path = instance_path(objects[0]) + "/frames/1"
    with served(data) as door, door.client() as client:
        client.get(path)
        assert client.get(path).status_code == 200
        assert door.at_once[-1]
        for ask in (
            lambda: client.head(path),
            lambda: client.get(path + "?accept=*/*"),
            lambda: client.get(path, headers={"range": "bytes=0-1"}),
            lambda: client.get(path, headers={"origin": "http://elsewhere.example"}),
            lambda: client.get(path, headers={"connection": "close"}),
            lambda: client.request("GET", path, content=b"body"),
            lambda: client.get(path.replace("/frames", "%2Fframes")),
            lambda: client.get(path.replace("2.25.98.1/", "2.25.98.2/", 1)),
            lambda: httpx.get(door.url + path, timeout=60),
            lambda: httpx.get(door.url + path, auth=("x", "wrong"), timeout=60),
        ):
            before = len(door.at_once)
            answer = ask()
            assert answer.status_code in (200, 401, 404)
            assert True not in door.at_once[before:]


def test_the_short_way_asks_for_the_permission_and_forgets_no_revocation(
    stored: tuple[Path, list[Dataset]],
) -> None:
    data, objects = stored
    path = instance_path(objects[0]) + "/frames/1"
    with served(data) as door:
        token = door.house.access.make_token("leaves", ["radiologist"])
        sender = door.house.access.make_token("sends", ["auditor"])
        with door.client(token) as client:
            assert client.get(path).status_code == 200
            assert client.get(path).status_code == 200
            assert door.at_once[-1]
            door.house.access.tokens.revoke("leaves", by=HOUSE)
            assert client.get(path).status_code == 401
        with door.client(sender) as client:
            for _ in range(2):
                assert client.get(path).status_code == 403
                assert not door.at_once[-1]


def test_every_minute_the_first_access_is_in_the_audit_book(
    stored: tuple[Path, list[Dataset]],
) -> None:
    data, objects = stored
    path = instance_path(objects[0]) + "/frames/1"
    with served(data) as door, door.client() as client:
        before = door.house.audit.count()
        assert client.get(path).status_code == 200
        assert not door.at_once[-1]
        assert door.house.audit.count() == before + 1
        assert client.get(path).status_code == 200
        assert door.at_once[-1]
        door.clock.advance(60)
        assert client.get(path).status_code == 200
        assert not door.at_once[-1]
        assert door.house.audit.count() == before + 2


def test_a_fault_on_the_short_way_is_left_to_the_long_one(
    stored: tuple[Path, list[Dataset]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, objects = stored
    path = instance_path(objects[0]) + "/frames/1"
    with served(data) as door, door.client() as client:
        client.get(path)
        for owner, name in (
            (door.house.archive.prompt, "instance"),
            (door.house.access, "recall_hash"),
        ):
            with monkeypatch.context() as broken:
                broken.setattr(owner, name, None)
                answer = client.get(path)
            assert not door.at_once[-1]
            assert answer.status_code == (200 if name == "instance" else 500)
        assert client.get(path).status_code == 200
        assert door.at_once[-1]


def test_what_was_rejected_is_not_given_at_once(stored: tuple[Path, list[Dataset]]) -> None:
    data, objects = stored
    path = instance_path(objects[1]) + "/frames/1"
    chosen = Selection(sop_instance_uids=(str(objects[1].SOPInstanceUID),))
    with served(data) as door, door.client() as client:
        client.get(path)
        assert client.get(path).status_code == 200
        assert door.at_once[-1]
        door.house.archive.reject(chosen, code="113001^DCM", actor=HOUSE)
        assert client.get(path).status_code == 404
        door.house.archive.restore(chosen, actor=HOUSE)
        assert client.get(path).status_code == 200
        assert door.at_once[-1]


def instance_path(one: Dataset) -> str:
    return (
        f"/dicom-web/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
        f"/instances/{one.SOPInstanceUID}"
    )
