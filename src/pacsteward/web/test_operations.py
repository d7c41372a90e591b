"""The JSON API is made after the start, and once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pacsteward.security import AuditBook
from pacsteward.web import api
from pacsteward.web.conftest import Visitor
from pacsteward.web.guard import Guard
from pacsteward.web.operations import ApiOperation, Interface

TOGETHER = 8


async def greet() -> str:
    return "hello"


def test_first_requests_that_come_together_find_one_api(audit: AuditBook) -> None:
    interface = Interface(
        [ApiOperation("GET", "/greeting", greet, "self", "Greet.")],
        Guard(audit),
        version="1",
        state={},
    )
    barrier = Barrier(TOGETHER)

    def ask(_number: int) -> int:
        barrier.wait()
        return id(interface._made())

    with ThreadPoolExecutor(TOGETHER) as threads:
        assert len(set(threads.map(ask, range(TOGETHER)))) == 1


def test_a_stranger_finds_the_api_made(door: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    door.app.state.prepare()
    monkeypatch.setattr(api, "build_api", None)
    assert door.get("/api/v1/anything").status_code == 401
