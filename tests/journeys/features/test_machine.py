"""Functions of the machine: logs, figures, health, processes, rebuild, API and wheel are sound.

Numbers F178 to F201 are those of the feature list.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from pynetdicom.sop_class import Verification

from tests.support.dicomweb import EXPLICIT, Site, instance_path
from tests.support.peers import dcmtk
from tests.support.product import PACSTEWARD, Product
from tests.support.samples import part10, small
from tests.support.scu import associated, find, keys, store, store_bytes

pytestmark = pytest.mark.journey

ROOT = Path(__file__).parents[3]


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
    with site.product.stranger() as stranger:
        assert stranger.get("/metrics").status_code == 401
    with site.product.client("auditor") as auditor:
        assert auditor.get("/metrics").status_code == 403
    associations = r'pacsteward_associations_total\{.*outcome="accepted".*\}'
    requests = r"pacsteward_http_request_seconds_count\{.*\}"
    before = site.http.get("/metrics")
    assert before.headers["content-type"].startswith("text/plain; version=0.0.4")
    with associated(site.product, [(Verification, [EXPLICIT])]) as association:
        assert association.send_c_echo().Status == 0
    assert figure(site.http.get("/metrics").text, requests) > figure(before.text, requests)
    deadline = time.monotonic() + 60
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


def health(stranger: httpx.Client) -> tuple[int, int]:
    return tuple(stranger.get(path).status_code for path in ("/healthz", "/readyz"))  # type: ignore[return-value]


def await_health(product: Product, wanted: tuple[int, int]) -> None:
    deadline = time.monotonic() + 60
    with product.stranger() as stranger:
        while True:
            try:
                if (seen := health(stranger)) == wanted:
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
                deadline = time.monotonic() + 60
                while store(product, [data])[0].Status != 0:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert [status.Status for status in store(product, [data])] == [0xA700]


def await_echo(product: Product) -> None:
    deadline = time.monotonic() + 60
    while dcmtk("echoscu", "127.0.0.1", str(product.dimse_port)).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_jobs_stand_back_behind_those_who_send_and_read(site: Site) -> None:
    assert site.product.process is not None
    family = psutil.Process(site.product.process.pid).children(recursive=True)
    ordinary = psutil.Process().nice()
    deadline = time.monotonic() + 60
    # 19 is the most there is: the tests themselves may stand back.
    while (found := niceness(family)).pop("pacs-jobs") != {min(ordinary + 5, 19)}:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert set.union(*found.values()) == {ordinary}


def niceness(family: list[psutil.Process]) -> dict[str, set[int]]:
    """Return how far the threads of each process stand back."""
    return {
        process.name(): {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in process.threads()}
        for process in family
    }


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
    readable = []
    for method, path, operation in operations:
        assert operation["summary"], path
        assert operation["x-permission"], path
        assert operation["responses"], path
        needed = [one for one in operation.get("parameters", []) if one.get("required")]
        if method == "get" and not needed:
            assert site.http.get(prefix + path).status_code == 200, path
            readable.append(prefix + path)
    assert readable
    with site.product.stranger() as stranger:
        for path in readable:
            assert stranger.get(path).status_code == 401, path
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
    places = {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    asked = [sys.executable, "-c", "import pacsteward; print(pacsteward.__file__)"]
    found = subprocess.check_output(asked, env=os.environ | places, text=True)
    assert found.strip() == str(home / "pacsteward" / "__init__.py")
    product = Product(tmp_path / "data", places).start()
    try:
        assert "given password" in product.run("access", "list")
        with product.stranger() as stranger:
            for page in ("/login", "/static/console.css"):
                assert stranger.get(page).status_code == 200
    finally:
        product.stop()
    assert (tmp_path / "data" / "index.db").is_file()
