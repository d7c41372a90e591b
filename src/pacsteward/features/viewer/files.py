"""The viewer's files: which one a path names, and how it is labelled for the browser.

References
----------
RFC 9111 5.2 (Cache-Control); WHATWG Fetch (nosniff); W3C CSP3 4.2.2 and 7.3 (a dedicated worker
obeys the policy of its own script's response).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from pacsteward.base.errors import NotFound
from pacsteward.features.viewer.prepare import read_manifest

HERE: Final = Path(__file__).parent
DIST: Final = HERE / "dist"

_OURS: Final[Mapping[str, Path]] = MappingProxyType({"app-config.js": HERE / "app-config.js"})

_MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".json": "application/json",
        ".wasm": "application/wasm",
        ".woff2": "font/woff2",
        ".svg": "image/svg+xml",
        ".png": "image/png",
        ".ico": "image/x-icon",
        ".gif": "image/gif",
        ".jpg": "image/jpeg",
    }
)

_HASHED: Final = re.compile(r"(^|\.)[0-9a-f]{16}\.(js|wasm|woff2|css)$")
"""Names that change with their content."""

KEPT: Final = "private, max-age=604800"
ASKED_EACH_TIME: Final = "private, no-cache"

_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{more}; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; object-src 'self' blob:; "
    "frame-src blob:; base-uri 'none'; frame-ancestors 'self'; form-action 'self'"
)
"""An encapsulated PDF is shown as an object that the page makes of its bytes (``blob:``), which
obeys this policy as the page does, so nothing in it may run."""

_CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class ViewerFile:
    """One file, ready to be sent.

    Parameters
    ----------
    path
        The file on the disk, compressed where `headers` say so.
    """

    path: Path
    media_type: str
    size_bytes: int
    etag: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def pieces(self) -> Iterator[bytes]:
        """Read it."""
        with self.path.open("rb") as file:
            while piece := file.read(_CHUNK):
                yield piece


def find(name: str, *, takes_gzip: bool, dist: Path = DIST) -> ViewerFile:
    """Return the file that a path below ``/viewer/`` names.

    Parameters
    ----------
    name
        Without a slash at its beginning. A name without an extension is an address within the
        application, and gives its page.

    Raises
    ------
    NotFound
        There is no such file.
    Broken
        The viewer is not installed.
    """
    version, decode_workers = _manifest(dist)
    if not PurePosixPath(name).suffix or name.endswith("/"):
        name = "index.html"
    plain = _OURS.get(name) or _inside(dist, name)
    packed = plain.with_name(plain.name + ".gz")
    is_packed = takes_gzip and name not in _OURS and packed.is_file()
    path = packed if is_packed else plain
    size = path.stat().st_size
    more = " 'unsafe-eval'" if name in decode_workers else ""
    headers = {
        "cache-control": KEPT if _HASHED.search(name) else ASKED_EACH_TIME,
        "content-security-policy": _POLICY.format(more=more),
        "vary": "Accept-Encoding",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    if is_packed:
        headers["content-encoding"] = "gzip"
    etag = f"{version}-{plain.stat().st_mtime_ns:x}-{size:x}"
    return ViewerFile(path, _MEDIA_TYPES[plain.suffix], size, etag, headers)


def _inside(dist: Path, name: str) -> Path:
    """Return a file below `dist`, and never another one (S8)."""
    names = _names(dist)
    if name not in names or PurePosixPath(name).suffix not in _MEDIA_TYPES:
        raise NotFound("The viewer has no such file.", remedy="Load the page again.")
    return dist / name


@cache
def _names(dist: Path) -> frozenset[str]:
    """List what there is, once: a name is looked up, never pieced together into a path."""
    return frozenset(
        path.relative_to(dist).as_posix() for path in dist.rglob("*") if path.is_file()
    )


@cache
def _manifest(dist: Path) -> tuple[str, frozenset[str]]:
    return read_manifest(dist)
