"""Real peers: dcmtk's programs and Debian's Orthanc, started and asked as their users would."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port


def need(program: str) -> str:
    """Return the path of `program`, or skip the test that needs it."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def dcmtk(program: str, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one of dcmtk's programs to its end."""
    return subprocess.run(
        [need(program), *words],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


@dataclass
class StoreScp:
    """dcmtk's storescp, receiving into a folder."""

    folder: Path
    options: tuple[str, ...] = ()
    ae_title: str = "SINK"
    port: int = field(default_factory=free_port)

    def __enter__(self) -> StoreScp:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                need("storescp"),
                *("-aet", self.ae_title, "-od", str(self.folder), "+B", *self.options),
                str(self.port),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _await_port(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def received(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@dataclass
class Orthanc:
    """Debian's Orthanc over fresh storage."""

    folder: Path
    modalities: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    ae_title: str = "ORTHANC"
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)

    def __enter__(self) -> Orthanc:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "peer",
            "StorageDirectory": str(self.folder),
            "IndexDirectory": str(self.folder),
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {name: list(peer) for name, peer in self.modalities.items()},
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(settings))
        self._process = subprocess.Popen(
            [need("Orthanc"), str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _await_port(self.http_port)
        _await_port(self.port)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)


def _await_port(port: int, timeout_s: float = 30) -> None:
    import socket

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"Nothing listens on port {port}.")
