"""The outside of the machine: commands, ports, signals, sign-in; what scripts depend on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from itertools import chain
from pathlib import Path

import psutil
import pytest

from tests.support.peers import dcmtk
from tests.support.product import PACSTEWARD, Product

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    running = Product(tmp_path_factory.mktemp("outside") / "archive").start()
    yield running
    running.stop()


def test_s1_first_start_prints_a_password_that_signs_in_and_never_again(product: Product) -> None:
    with product.stranger() as browser:
        page = browser.get("/login")
        assert page.status_code == 200
        answer = browser.post("/login", data={"username": "admin", "password": product.password()})
        assert answer.status_code in (302, 303)
        assert browser.get("/", follow_redirects=True).status_code == 200
        browser.get("/logout")
        assert browser.get("/").headers["location"].startswith("/login")


def test_s2_anonymous_visitors_get_nothing(product: Product) -> None:
    closed = ("/dicom-web/studies", "/api/v1/peers", "/api/openapi.json", "/metrics", "/wado")
    with product.stranger() as stranger:
        for path in ("/", "/studies", "/peers", "/viewer/"):
            answer = stranger.get(path)
            assert answer.status_code in (302, 303), path
            assert answer.headers["location"].startswith("/login"), path
        for path in closed:
            answer = stranger.get(path)
            assert answer.status_code == 401, path
            assert "www-authenticate" in answer.headers
        for path in ("/healthz", "/readyz"):
            assert stranger.get(path).status_code == 200


def test_a_token_is_good_as_bearer_and_as_basic_password(product: Product) -> None:
    token = product.run("access", "token", "script", "--role", "machine")
    path, bearer = "/dicom-web/studies", {"Authorization": f"Bearer {token}"}
    with product.stranger() as script:
        assert script.get(path, headers=bearer).status_code in (200, 204)
        assert script.get(path, auth=("anything", token)).status_code in (200, 204)
        assert script.get(path, auth=("anything", token[:-1])).status_code == 401


def test_a_role_without_the_permission_is_answered_403(product: Product) -> None:
    with product.client("auditor") as client:
        assert client.get("/dicom-web/studies").status_code == 403


def test_a_person_who_was_added_on_the_command_line_can_sign_in(product: Product) -> None:
    product.run(
        "access",
        "add-person",
        "rita",
        "--role",
        "radiologist",
        "--password-stdin",
        stdin="correct horse battery\n",
    )
    with product.stranger() as browser:
        answer = browser.post(
            "/login", data={"username": "rita", "password": "correct horse battery"}
        )
    assert answer.status_code in (302, 303)


def test_s1_a_stranger_is_refused_with_1_1_3_when_unknown_callers_are_not_admitted(
    tmp_path: Path,
) -> None:
    running = Product(tmp_path / "archive", {"PACSTEWARD_DICOM__ADMIT_UNKNOWN": "never"}).start()
    try:
        done = dcmtk("echoscu", "-v", "-aet", "STRANGER", "127.0.0.1", str(running.dimse_port))
        assert done.returncode != 0
        assert "Calling AE Title Not Recognized" in done.stderr + done.stdout
        running.run("peers", "add", "STRANGER", "127.0.0.1", "104")
        done = dcmtk("echoscu", "-aet", "STRANGER", "127.0.0.1", str(running.dimse_port))
        assert done.returncode == 0
    finally:
        running.stop()


def test_sigterm_ends_it_and_leaves_no_process(tmp_path: Path) -> None:
    running = Product(tmp_path / "archive").start()
    assert running.process is not None
    family = psutil.Process(running.process.pid).children(recursive=True)
    assert family
    assert running.stop() == 0
    assert not [process for process in family if process.is_running()]


def test_its_processes_die_with_it_however_it_dies(tmp_path: Path) -> None:
    running = Product(tmp_path / "archive").start()
    assert running.process is not None
    family = psutil.Process(running.process.pid).children(recursive=True)
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(timeout=60)
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


def test_a_second_start_is_quick_and_a_second_archive_on_the_same_folder_is_refused(
    tmp_path: Path,
) -> None:
    running = Product(tmp_path / "archive").start()
    running.stop()
    running.start()
    # Measured at about two seconds; a machine that tests on all its cores gets some grace.
    assert running.started_in_s < 15
    try:
        zero_ports = ["--dimse-port", "0", "--http-port", "0"]
        other = subprocess.run(
            [*PACSTEWARD, "serve", "--data", str(running.data), *zero_ports],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert other.returncode == 5
        assert "in use" in other.stderr + other.stdout
        assert "Traceback" not in other.stderr
    finally:
        running.stop()


@pytest.mark.parametrize("door", ["--dimse-port", "--http-port"])
def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path: Path, door: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ports = {"--dimse-port": "0", "--http-port": "0", door: port}
        other = subprocess.run(
            [*PACSTEWARD, "serve", "--data", str(tmp_path), *chain(*ports.items())],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert other.returncode == 8
    told = [line for line in other.stderr.splitlines() if line.startswith("pacsteward ")]
    assert len(told) == 1
    assert port in told[0]
    assert "another" in told[0]


def test_settings_are_explained_without_making_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    told = subprocess.run(
        [*PACSTEWARD, "settings", "explain", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PACSTEWARD_DATA": str(folder)},
    )
    where = {one["name"]: one["source"] for one in json.loads(told.stdout)}
    assert where["data"] == "PACSTEWARD_DATA"
    assert where["dicom.ae_title"] == "default"
    assert not folder.exists()


def test_a_folder_with_foreign_files_keeps_them(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    (folder / "landing").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "landing" / "other.bin").write_bytes(b"\0" * 100)
    running = Product(folder).start()
    running.stop()
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "landing" / "other.bin").read_bytes() == b"\0" * 100


def test_wrong_settings_are_reported_together_and_nothing_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PACSTEWARD, "serve", "--data", str(tmp_path / "x")],
        env={**os.environ, "PACSTEWARD_HTTP_PORT": "high", "PACSTEWARD_DICOM__ADMIT_UNKNOWN": "x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "http_port" in done.stderr
    assert "dicom.admit_unknown" in done.stderr
    assert "Traceback" not in done.stderr
