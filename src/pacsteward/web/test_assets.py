"""Fetching what is pinned: the right content, whole, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pacsteward.base.errors import Invalid
from pacsteward.web import assets
from pacsteward.web.assets import Pin, fetch, read_pins


def integrity_of(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def an_archive(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return packed.getvalue()


PACKED = an_archive({"package/dist/x.js": b"x()", "package/LICENSE": b"free"})
PIN = Pin(
    name="x",
    package="x.org",
    version="1.0.0",
    integrity=integrity_of(PACKED),
    to="static/x",
    files={"dist/x.js": "x.js"},
)


def giving(content: bytes) -> Callable[[Pin, Path], Path]:
    def download(_pin: Pin, scratch: Path) -> Path:
        path = scratch / "x.tgz"
        path.write_bytes(content)
        return path

    return download


def never(_pin: Pin, _scratch: Path) -> Path:
    raise AssertionError("fetched again")


def test_pinned_files_are_put_in_place_once(tmp_path: Path) -> None:
    assert fetch(PIN, tmp_path, download=giving(PACKED))
    assert (tmp_path / "static/x/x.js").read_bytes() == b"x()"
    assert not (tmp_path / "static/x/LICENSE").exists()
    assert not fetch(PIN, tmp_path, download=never)


def test_another_content_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    forged = an_archive({"package/dist/x.js": b"steal()"})
    with pytest.raises(Invalid, match="not what was pinned"):
        fetch(PIN, tmp_path, download=giving(forged))
    assert list(tmp_path.iterdir()) == []


def test_changed_pin_is_fetched_again(tmp_path: Path) -> None:
    fetch(PIN, tmp_path, download=giving(PACKED))
    changed = replace(PIN, files={"dist/x.js": "y.js"})
    assert fetch(changed, tmp_path, download=giving(PACKED))
    assert (tmp_path / "static/x/y.js").exists()
    assert not (tmp_path / "static/x/x.js").exists()


@pytest.mark.parametrize(
    "evil",
    [
        an_archive({"package/../../../evil": b"x"}),
        an_archive({"/tmp/evil": b"x"}),
        an_archive({"package/dist/x.js": b"x"}, {"package/elsewhere": "/etc"}),
    ],
    ids=["upwards", "absolute", "a link"],
)
def test_archive_cannot_write_elsewhere(tmp_path: Path, evil: bytes) -> None:
    """S8."""
    with pytest.raises(Invalid, match="no package has"):
        fetch(replace(PIN, integrity=integrity_of(evil)), tmp_path, download=giving(evil))
    assert list(tmp_path.iterdir()) == []


def test_half_made_folder_is_made_again(tmp_path: Path) -> None:
    fetch(PIN, tmp_path, download=giving(PACKED))
    (tmp_path / "static/x" / assets.MARK).unlink()
    assert fetch(PIN, tmp_path, download=giving(PACKED))


def test_every_pin_of_the_product_is_complete() -> None:
    for pin in read_pins():
        assert pin.integrity.startswith("sha512-")
        assert pin.files or pin.prepare
        assert not Path(pin.to).is_absolute()
        assert pin.mark
