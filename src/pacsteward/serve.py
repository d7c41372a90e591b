"""``pacsteward serve``: prepare the data folder, start the processes, say where everything is."""

from __future__ import annotations

import ipaddress
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from functools import partial

from pacsteward.app import Place, ServerSettings, first_steps, make_folder, refuse_lost_index
from pacsteward.base import faults, log
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.settings import DicomSettings
from pacsteward.output import EXIT_CODES
from pacsteward.processes import (
    WebCompany,
    run_doors,
    run_jobs,
    run_keeper,
    run_web,
    web_name,
)
from pacsteward.supervisor import ChildFailed, Run, Supervisor, Tell
from pacsteward.web.settings import WebSettings


class Kind(StrEnum):
    """The kinds of processes."""

    KEEPER = "keeper"
    DOORS = "doors"
    WEB = "web"
    JOBS = "jobs"


OPEN_FILES = 65_536
"""As many as deploy/pacsteward.service gives."""

RunPlace = Callable[[Place, Tell], None]


def serve_all(place: Place, *, only: Kind | None = None) -> int:
    """Run the archive over `place` until SIGTERM; return the exit code.

    Raises
    ------
    PacstewardError
        It cannot start: the folder is in use, a port is taken, a setting is wrong, the index is
        lost.
    """
    began = time.monotonic()
    make_folder(place.data)
    refuse_lost_index(place)
    password = first_steps(place)
    _log_to(place, "supervisor")
    _allow_open_files()
    _send_no_telemetry()
    chosen = (only,) if only else tuple(Kind)
    company = WebCompany.of(place) if Kind.WEB in chosen else None
    runs = _runs(chosen, company)
    named: dict[str, Run] = {name: partial(_run, name, run, place) for name, run in runs.items()}
    supervisor = Supervisor(named) if company is None else _supervisor(named, company)
    try:
        supervisor.start()
    except ChildFailed as failed:
        # The process itself or the log has said why.
        _tell(password)
        return failed.exit_code
    if supervisor.is_stopping:
        _tell(password)
    else:
        _greet(place, password, chosen, seconds=time.monotonic() - began)
    return supervisor.watch()


def _allow_open_files() -> None:
    """Raise the limit of open files: a login shell gives 1024, no more than the associations."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _send_no_telemetry() -> None:
    """Forget what a machine says to OpenTelemetry: FastAPI reads it, and fails at some of it."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]


def _supervisor(named: Mapping[str, Run], company: WebCompany) -> Supervisor:
    """Return one that begins with the first web process, which is enough for a quiet house."""
    later = [web_name(number) for number in range(1, company.size)]
    return Supervisor(
        {name: run for name, run in named.items() if name not in later},
        later={name: named[name] for name in later},
        is_later_wanted=lambda: company.listener.is_crowded,
        when_ended=company.note_end,
        before_end=company.listener.close,
    )


def _runs(chosen: Collection[Kind], company: WebCompany | None) -> dict[str, RunPlace]:
    """Return what to run for the kinds that were chosen, by the name of the process."""
    runs: dict[str, RunPlace] = {}
    doors: RunPlace = partial(run_doors, company=company)
    elsewhere = {Kind.KEEPER: run_keeper, Kind.DOORS: doors, Kind.JOBS: run_jobs}
    for kind in chosen:
        if kind is not Kind.WEB:
            runs[kind] = partial(_elsewhere, elsewhere[kind], company)
        elif company is not None:
            for number in range(company.size):
                runs[web_name(number)] = partial(run_web, company=company, number=number)
    return runs


def _elsewhere(run: RunPlace, company: WebCompany | None, place: Place, tell_ready: Tell) -> None:
    """Run a process that answers no HTTP."""
    if company is not None:
        company.listener.close()
    run(place, tell_ready)


def _run(name: str, run: RunPlace, place: Place, tell_ready: Tell) -> None:
    """Run one process; a fault that can be named ends it with one clear line."""
    _log_to(place, name)
    faults.arm_from_environment()
    try:
        run(place, tell_ready)
    except PacstewardError as error:
        print(f"pacsteward {name}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CODES[error.kind]) from error


def _log_to(place: Place, process_name: str) -> None:
    file = place.data / "logs" / "pacsteward.log"
    log.configure(process_name, level=place.server.log_level, file=file)


def _greet(place: Place, password: str | None, kinds: Collection[Kind], *, seconds: float) -> None:
    server = place.server
    ae_title = place.settings.of(DicomSettings).ae_title
    here = f"http://{_address(server)}:{server.http_port}"
    web = place.settings.of(WebSettings).public_url or here
    lines = [f"Pacsteward is ready after {seconds:.1f} s."]
    if Kind.WEB in kinds:
        lines.append(f"  console   {web}/")
    if password:
        lines.append(_sign_in(password))
    if Kind.DOORS in kinds:
        lines.append(f"  DICOM     {ae_title} at {_address(server)}:{server.dimse_port}")
    if Kind.WEB in kinds:
        lines.append(f"  DICOMweb  {web}/dicom-web")
    if Kind.WEB in kinds and web != here:
        lines.append(f"  listens   {here}/  (for the proxy in front of it)")
    lines.append(f"  data      {place.data.resolve()}")
    if not _is_this_machine(server.host):
        lines.append(
            "  beware    it listens beyond this machine without TLS: put a TLS proxy in front of "
            "HTTP, and trust the network that DICOM is on"
        )
    if server.mllp_port not in (0, ServerSettings.model_fields["mllp_port"].default):
        lines.append("  beware    mllp_port has no effect: this version does not speak HL7")
    print("\n".join(lines), flush=True)


def _tell(password: str | None) -> None:
    """Give the password that was just made, although nothing came of the start."""
    if password:
        print(_sign_in(password), flush=True)


def _sign_in(password: str) -> str:
    return f"  sign in   admin, password {password}  (shown this once)"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(server: ServerSettings) -> str:
    """Return the host as an address has it; where it is all addresses, one that works from here."""
    host = server.host or "localhost"
    return f"[{host}]" if ":" in host else host
