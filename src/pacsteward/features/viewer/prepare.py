"""Makes the published OHIF package into the files that we serve below ``/viewer/``.

What enters is the unpacked npm package ``@ohif/app``, whose prebuilt files assume that they live
at the root of a site; what leaves is a folder with the parts that we use, rewritten for
``/viewer/``, without inline script and compressed beforehand. Run once, by the set-up step.

Every rewrite states how often its pattern must occur. Another count means that the package is not
the one that was examined: preparing then fails and says where, instead of giving a viewer that is
black in one corner.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacsteward.base.errors import Broken, Invalid

BASE: Final = "/viewer/"

MANIFEST_NAME: Final = "prepared.json"

_DROPPED: Final = (
    # Runtime of AI-assisted segmentation tools; 136 MB.
    "ort/",
    "customizations/",
    # A service worker would cache patients' images outside of our control.
    "sw.js",
    "init-service-worker.js",
    # Sign-in at other companies; some of these name outside servers.
    "google.js",
    "silent-refresh.html",
    "oidc-client.min.js",
    # For browsers that are gone.
    "es6-shim.min.js",
    "polyfill.min.js",
    # For other web servers.
    "_headers",
    "_redirects",
    "serve.json",
    "assets/apple-touch-",
    "assets/mstile-",
    "assets/yandex-",
    "assets/coast-",
    "assets/firefox_app_",
    "assets/browserconfig.xml",
    "assets/manifest.webapp",
    # Ours is generated.
    "app-config.js",
)
_DROPPED_SUFFIXES: Final = (".map",)

_COMPRESSED: Final = frozenset({".js", ".css", ".wasm", ".svg", ".json", ".html"})
_COMPRESS_FROM_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One replacement in the files that `files` names.

    Parameters
    ----------
    files
        Pattern of file names, as `Path.glob` takes it.
    count
        How often `pattern` must occur, in all files together.
    """

    what: str
    files: str
    pattern: str
    replacement: str
    count: int


REWRITES: Final = (
    Rewrite(
        "tags of touch icons, tiles and the service worker",
        "index.html",
        r'<(?:link rel="(?:apple-touch-[a-z-]+|yandex-tableau-widget)"[^>]*>'
        r'|link rel="icon"[^>]*href="/assets/coast-[^>]*>'
        r'|meta name="msapplication-(?:TileImage|config)"[^>]*>'
        r'|script[^>]*src="/init-service-worker\.js"></script>)',
        "",
        26,
    ),
    Rewrite(
        "first inline script",
        "index.html",
        r'<script>console\.time\("scriptToView"\),window\.PUBLIC_URL="/"</script>',
        '<script src="/boot.js"></script>',
        1,
    ),
    Rewrite(
        "second inline script",
        "index.html",
        r'<script>function browserImportFunction\(n\)\{return import\(n\)\}window\.PUBLIC_URL="/"'
        r"</script>",
        "",
        1,
    ),
    # Seven of the package and boot.js.
    Rewrite("links", "index.html", r'(href|src)="/', rf'\1="{BASE}', 8),
    Rewrite(
        "public path of entry and worker bundles",
        "*.js",
        r'__webpack_require__\.p = "/"',
        f'__webpack_require__.p = "{BASE}"',
        8,
    ),
    Rewrite("font", "*.css", r"url\(/(?!/)", f"url({BASE}", 5),
    Rewrite(
        "slide microscopy",
        "app.bundle.*.js",
        r"'/dicom-microscopy-viewer/",
        f"'{BASE}dicom-microscopy-viewer/",
        1,
    ),
    Rewrite("icons", "manifest.json", r'"/assets/', f'"{BASE}assets/', 9),
)

_BOOT: Final = (
    f'window.PUBLIC_URL = "{BASE}";\n'
    "function browserImportFunction(name) {\n  return import(name);\n}\n"
)

_DECODERS: Final = (
    ("*.bundle.*.js", "var CharLSWASM"),
    ("dicom-microscopy-viewer/*.worker.min.js", "new Function"),
)
"""Where the workers are that decode JPEG, JPEG-LS and JPEG 2000, and what tells them: one each."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made.

    Parameters
    ----------
    version
        Of the package.
    decode_workers
        Files whose response must allow ``unsafe-eval``: their WebAssembly wrappers build
        functions from texts, and a worker obeys the policy of its own script's response.
    """

    version: str
    decode_workers: tuple[str, ...]
    files: int
    size_bytes: int


def prepare(package: Path, dest: Path) -> Prepared:
    """Make `dest` from an unpacked ``@ohif/app``.

    Parameters
    ----------
    package
        Folder with ``package.json`` and ``dist/``.
    dest
        Replaced as a whole; what was there before stays until the new one is complete.

    Raises
    ------
    Invalid
        A pattern occurs more or less often than in the version that was examined.
    """
    version = str(json.loads((package / "package.json").read_text("utf-8"))["version"])
    building = dest.with_name(dest.name + ".new")
    shutil.rmtree(building, ignore_errors=True)
    _copy(package / "dist", building)
    shutil.copy2(package / "LICENSE", building / "LICENSE")
    for rewrite in REWRITES:
        _apply(rewrite, building)
    (building / "boot.js").write_text(_BOOT, "utf-8")
    workers = _decode_workers(building)
    _compress(building)
    prepared = Prepared(version, workers, *_measure(building))
    (building / MANIFEST_NAME).write_text(
        json.dumps({"version": version, "decode_workers": list(workers)}, indent=2) + "\n", "utf-8"
    )
    shutil.rmtree(dest, ignore_errors=True)
    building.rename(dest)
    return prepared


def read_manifest(dist: Path) -> tuple[str, frozenset[str]]:
    """Return version and decode workers of a prepared folder.

    Raises
    ------
    Broken
        It was never prepared.
    """
    try:
        manifest = json.loads((dist / MANIFEST_NAME).read_text("utf-8"))
    except FileNotFoundError as error:
        raise Broken(
            "The viewer is not installed.",
            why="Its files were not prepared when the product was set up.",
            remedy="Run `make setup`, or install the published wheel, which has them.",
        ) from error
    return str(manifest["version"]), frozenset(manifest["decode_workers"])


def _copy(dist: Path, building: Path) -> None:
    for source, name in _files(dist):
        if name.startswith(_DROPPED) or name.endswith(_DROPPED_SUFFIXES):
            continue
        target = building / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _apply(rewrite: Rewrite, folder: Path) -> None:
    found = 0
    for path in sorted(folder.glob(rewrite.files)):
        text, count = re.subn(rewrite.pattern, rewrite.replacement, path.read_text("utf-8"))
        if count:
            path.write_text(text, "utf-8")
        found += count
    if found != rewrite.count:
        raise Invalid(
            "The viewer's package is not the one that was examined.",
            why=f"{rewrite.what} ({rewrite.files}): expected {rewrite.count} places, "
            f"found {found}.",
            remedy="Look at what changed, correct REWRITES and run the browser tests.",
        )


def _decode_workers(folder: Path) -> tuple[str, ...]:
    workers = []
    for pattern, mark in _DECODERS:
        marked = [
            path.relative_to(folder).as_posix()
            for path in sorted(folder.glob(pattern))
            if not path.name.startswith("app.") and mark in path.read_text("utf-8")
        ]
        if len(marked) != 1:
            raise Invalid(
                "The viewer's package is not the one that was examined.",
                why=f"Expected one file {pattern} with decoders, found {len(marked)}.",
                remedy="Find the decode worker and correct how it is recognised.",
            )
        workers += marked
    return tuple(workers)


def _compress(folder: Path) -> None:
    """Write a ``.gz`` beside each file that shrinks; level 9, since it happens only once."""
    for path, _name in list(_files(folder)):
        if path.suffix in _COMPRESSED and path.stat().st_size >= _COMPRESS_FROM_BYTES:
            packed = gzip.compress(path.read_bytes(), 9, mtime=0)
            path.with_name(path.name + ".gz").write_bytes(packed)


def _measure(folder: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path, _name in _files(folder)]
    return len(sizes), sum(sizes)


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.relative_to(folder).as_posix()
