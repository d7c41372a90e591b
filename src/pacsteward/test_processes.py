"""The processes of the product, each by itself."""

from __future__ import annotations

import threading
import urllib.request
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from tests.support.full_disk import FullDisk
from uvicorn.config import WS_PROTOCOLS

from pacsteward.app import Place
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.processes import WebCompany, WebServer, run_web
from pacsteward.security.failures_in_memory import failure_places
from pacsteward.security.sessions_in_memory import session_places
from pacsteward.security.sign_in import SignInGuard, waiting_places
from pacsteward.serve import Kind, _runs
from pacsteward.web.listening import Listener


def test_what_some_request_needs_is_made_when_the_web_process_answers_already() -> None:
    """Nobody waits for it: neither for the start, nor whoever asks first."""
    listener = Listener("127.0.0.1", 0, 1)
    port = listener.sockets[0].getsockname()[1]
    ready, prepared, answered = threading.Event(), threading.Event(), threading.Event()

    def prepare() -> None:
        assert ready.is_set()
        # Longer than anybody waits for a start.
        assert answered.wait(20)
        prepared.set()

    config = uvicorn.Config(
        PlainTextResponse("hello"), lifespan="off", log_config=None, access_log=False
    )
    server = WebServer(config, listener.seat(0), ready.set, prepare)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(20)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert answer.read() == b"hello"
        answered.set()
        assert prepared.wait(20)
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_an_offered_websocket_is_left_alone_whatever_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9110 7.8: the answer comes in the protocol that was used so far."""
    # As if a library for it were there.
    monkeypatch.setitem(WS_PROTOCOLS, "auto", "asyncio:Protocol")
    place = Place.found(tmp_path, overrides={"http_port": 0})
    company = WebCompany.of(place)
    port = company.listener.sockets[0].getsockname()[1]
    ready, servers = threading.Event(), []

    class Noted(WebServer):
        def run(self, sockets: Any = None) -> None:
            servers.append(self)
            super().run(sockets)

    monkeypatch.setattr("pacsteward.processes.WebServer", Noted)
    thread = threading.Thread(
        target=run_web, args=(place, ready.set), kwargs={"company": company, "number": 0}
    )
    thread.start()
    try:
        assert ready.wait(60)
        client = HTTPConnection("127.0.0.1", port, timeout=20)
        client.request("GET", "/healthz", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert client.getresponse().status == 200
        client.close()
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_nobody_gives_way_to_a_web_process_that_has_ended() -> None:
    listener = Listener("127.0.0.1", 0, 2)
    company = WebCompany(listener, waiting_places(2), session_places(2), failure_places(2), 2)
    first, _second = listener.seat(0), listener.seat(1)
    first.came()
    company.note_end("jobs")
    assert first.is_busier
    company.note_end("web-2")
    assert not first.is_busier
    listener.close()


def test_the_doors_count_wrong_passwords_together_with_the_web_processes(
    tmp_path: Path, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, where the database that they share takes none."""
    company = WebCompany.of(Place.found(tmp_path, overrides={"http_port": 0}))
    FullDisk(database, monkeypatch).is_full = True
    guards = [SignInGuard(database, clock) for _ in range(company.size + 1)]
    for number, guard in enumerate(guards):
        company.count_together(guard, number if number < company.size else None)
    counted = [guard.note_failure("ada", "10.0.0.7") for guard in guards]
    assert counted == list(range(1, company.size + 2))
    doors = _runs(tuple(Kind), company)[Kind.DOORS]
    assert doors.args[0].keywords == {"company": company}  # type: ignore[attr-defined]
    company.listener.close()
