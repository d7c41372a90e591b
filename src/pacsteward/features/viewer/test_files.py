"""Labels of the viewer's files, and paths that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacsteward.base.errors import NotFound
from pacsteward.features.viewer.files import find
from pacsteward.features.viewer.prepare import prepare
from pacsteward.features.viewer.test_prepare import package

SLIDES = "dicom-microscopy-viewer/load.worker.min.js"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewer")
    prepare(package(folder), folder / "dist")
    (folder / "dist" / "0123456789abcdef.wasm").write_bytes(b"\0asm")
    return folder / "dist"


@pytest.mark.parametrize("name", ["", "viewer", "viewer/dicomweb", "index.html", "notfoundstudy"])
def test_addresses_within_the_application_give_its_page(name: str, dist: Path) -> None:
    file = find(name, takes_gzip=False, dist=dist)
    assert file.path.name == "index.html"
    assert file.headers["cache-control"] == "private, no-cache"


def test_files_are_labelled_and_packed(dist: Path) -> None:
    file = find("app.bundle.1.js", takes_gzip=True, dist=dist)
    assert file.media_type == "text/javascript; charset=utf-8"
    assert file.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in find("app.bundle.1.js", takes_gzip=False, dist=dist).headers
    wasm = find("0123456789abcdef.wasm", takes_gzip=True, dist=dist)
    assert wasm.media_type == "application/wasm"
    assert wasm.headers["cache-control"].startswith("private, max-age=")


def test_only_the_decode_worker_may_build_functions_from_texts(dist: Path) -> None:
    policies = {
        name: find(name, takes_gzip=True, dist=dist).headers["content-security-policy"]
        for name in ("", "app.bundle.1.js", "1.bundle.1.js", "app-config.js", SLIDES)
    }
    assert {name for name, policy in policies.items() if "'unsafe-eval'" in policy} == {
        "1.bundle.1.js",
        SLIDES,
    }
    assert all("default-src 'none'" in policy for policy in policies.values())


@pytest.mark.parametrize(
    "name",
    [
        "missing.js",
        "../prepare.py",
        "../../feature.py",
        "/etc/passwd.js",
        "assets/../../app-config.js",
        "prepared.json.gz",
        "LICENSE.js",
        "app.bundle.1.js.gz",
        "\0.js",
    ],
)
def test_s8_nothing_outside_is_served(name: str, dist: Path) -> None:
    with pytest.raises(NotFound):
        find(name, takes_gzip=True, dist=dist)
