"""Preparing the published package, and refusing one that is not as expected."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pacsteward.base.errors import Broken, Invalid
from pacsteward.features.viewer.prepare import prepare, read_manifest


def package(folder: Path, *, bundles: int = 8) -> Path:
    """Write a package that looks like the real one where it matters."""
    dist = folder / "package" / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "ort").mkdir()
    (dist / "dicom-microscopy-viewer").mkdir()
    (dist / "dicom-microscopy-viewer" / "load.worker.min.js").write_text("new Function()")
    (dist.parent / "package.json").write_text('{"version": "3.13.2"}')
    (dist.parent / "LICENSE").write_text("MIT")
    dropped = (
        '<link rel="apple-touch-icon" href="/assets/apple-touch-icon.png">' * 21
        + '<link rel="yandex-tableau-widget" href="/assets/yandex-browser-manifest.json">'
        + '<link rel="icon" type="image/png" sizes="228x228" href="/assets/coast-228x228.png">'
        + '<meta name="msapplication-TileImage" content="/assets/mstile-144x144.png">'
        + '<meta name="msapplication-config" content="/assets/browserconfig.xml">'
        + '<script rel="preload" as="script" type="module" src="/init-service-worker.js"></script>'
    )
    (dist / "index.html").write_text(
        '<html><head><script>console.time("scriptToView"),window.PUBLIC_URL="/"</script>'
        + dropped
        + '<link rel="manifest" href="/manifest.json"><link rel="icon shortcut" href="/a.ico">'
        '<link rel="icon" href="/b.png"><link rel="icon" href="/c.png">'
        '<script src="/app-config.js"></script>'
        '<script>function browserImportFunction(n){return import(n)}window.PUBLIC_URL="/"</script>'
        '<script defer src="/app.bundle.1.js"></script><link href="/app.bundle.css">'
        "</head></html>"
    )
    for number in range(bundles):
        name = "app.bundle.1.js" if number == 0 else f"{number}.bundle.1.js"
        text = '__webpack_require__.p = "/";\n' + "x" * 2000
        if number == 0:
            text += "import('/dicom-microscopy-viewer/a.js')"
        if number == 1:
            text += "var CharLSWASM = 1"
        (dist / name).write_text(text)
        (dist / f"{name}.map").write_text("{}")
    (dist / "app.bundle.css").write_text("url(/font.woff2) " * 5 + "url(data:x)")
    (dist / "manifest.json").write_text(json.dumps([f"/assets/{n}.png" for n in range(9)]))
    (dist / "sw.js").write_text("caches")
    (dist / "ort" / "ort.wasm").write_bytes(b"x")
    (dist / "assets" / "apple-touch-icon.png").write_bytes(b"x")
    (dist / "assets" / "favicon.ico").write_bytes(b"x")
    return dist.parent


def test_the_package_is_adapted_to_its_place(tmp_path: Path) -> None:
    dest = tmp_path / "dist"
    prepared = prepare(package(tmp_path), dest)
    slides = "dicom-microscopy-viewer/load.worker.min.js"
    assert prepared.decode_workers == ("1.bundle.1.js", slides)
    page = (dest / "index.html").read_text()
    assert 'src="/viewer/boot.js"' in page
    assert "<script>" not in page
    assert '="/' not in page.replace('="/viewer/', "")
    assert '__webpack_require__.p = "/viewer/"' in (dest / "app.bundle.1.js").read_text()
    assert "'/viewer/dicom-microscopy-viewer/" in (dest / "app.bundle.1.js").read_text()
    assert (dest / "app.bundle.css").read_text().count("url(/viewer/font.woff2)") == 5
    assert not (dest / "sw.js").exists()
    assert not (dest / "ort").exists()
    assert not (dest / "app.bundle.1.js.map").exists()
    assert [path.name for path in (dest / "assets").iterdir()] == ["favicon.ico"]
    packed = gzip.decompress((dest / "app.bundle.1.js.gz").read_bytes())
    assert packed == (dest / "app.bundle.1.js").read_bytes()
    assert read_manifest(dest) == ("3.13.2", frozenset({"1.bundle.1.js", slides}))


def test_another_package_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    dest = tmp_path / "dist"
    dest.mkdir()
    (dest / "old").write_text("still here")
    with pytest.raises(Invalid, match="public path"):
        prepare(package(tmp_path, bundles=7), dest)
    assert (dest / "old").read_text() == "still here"


def test_a_viewer_that_was_never_prepared_says_so(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="not installed"):
        read_manifest(tmp_path)
