"""``pacsteward serve``: prepare the data folder, start the processes, say where everything is."""

from __future__ import annotations

import ipaddress
import resource
import sys
import time
from collections.abc import Collection
from enum import StrEnum
from functools import partial

from pacsteward.app import Place, ServerSettings, first_steps
from pacsteward.base import faults, log
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.settings import DicomSettings
from pacsteward.output import EXIT_CODES
from pacsteward.processes import run_doors, run_jobs, run_keeper, run_web
from pacsteward.supervisor import ChildFailed, Supervisor, Tell


class Kind(StrEnum):
    """The kinds of processes."""

    KEEPER = "keeper"
    DOORS = "doors"
    WEB = "web"
    JOBS = "jobs"


OPEN_FILES = 65_536
"""As many as deploy/pacsteward.service gives."""

RUNS = {
    Kind.KEEPER: run_keeper,
    Kind.DOORS: run_doors,
    Kind.WEB: run_web,
    Kind.JOBS: run_jobs,
}


def serve_all(place: Place, *, only: Kind | None = None) -> int:
    """Run the archive over `place` until SIGTERM; return the exit code.

    Raises
    ------
    PacstewardError
        It cannot start: the folder is in use, a port is taken, a setting is wrong.
    """
    began = time.monotonic()
    password = first_steps(place)
    _log_to(place, "supervisor")
    _allow_open_files()
    chosen = (only,) if only else tuple(Kind)
    supervisor = Supervisor(
        {kind.value: partial(_run, kind, place) for kind in chosen},
    )
    try:
        supervisor.start()
    except ChildFailed as failed:
        # The process itself or the log has said why.
        return failed.exit_code
    if not supervisor.is_stopping:
        _greet(place, password, chosen, seconds=time.monotonic() - began)
    return supervisor.watch()


def _allow_open_files() -> None:
    """Raise the limit of open files: a login shell gives 1024, no more than the associations."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _run(kind: Kind, place: Place, tell_ready: Tell) -> None:
    """Run one kind of process; a fault that can be named ends it with one clear line."""
    _log_to(place, kind.value)
    faults.arm_from_environment()
    try:
        RUNS[kind](place, tell_ready)
    except PacstewardError as error:
        print(f"pacsteward {kind.value}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CODES[error.kind]) from error


def _log_to(place: Place, process_name: str) -> None:
    file = place.data / "logs" / "pacsteward.log"
    log.configure(process_name, level=place.server.log_level, file=file)


def _greet(place: Place, password: str | None, kinds: Collection[Kind], *, seconds: float) -> None:
    server = place.server
    ae_title = place.settings.of(DicomSettings).ae_title
    web = f"http://{_address(server)}:{server.http_port}"
    lines = [f"Pacsteward is ready after {seconds:.1f} s."]
    if Kind.WEB in kinds:
        lines.append(f"  console   {web}/")
    if password:
        lines.append(f"  sign in   admin, password {password}  (shown this once)")
    if Kind.DOORS in kinds:
        lines.append(f"  DICOM     {ae_title} at {server.host}:{server.dimse_port}")
    if Kind.WEB in kinds:
        lines.append(f"  DICOMweb  {web}/dicom-web")
    lines.append(f"  data      {place.data.resolve()}")
    if not _is_this_machine(server.host):
        lines.append(
            "  beware    it listens beyond this machine without TLS: put a TLS proxy in front of "
            "HTTP, and trust the network that DICOM is on"
        )
    print("\n".join(lines), flush=True)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(server: ServerSettings) -> str:
    return f"[{server.host}]" if ":" in server.host else server.host
