"""Names of requests."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.routing import Mount, Route

from pacsteward.base.db import patience
from pacsteward.web import journal
from pacsteward.web.journal import Journal, new_request_id
from pacsteward.web.threads import in_thread


def test_forked_processes_give_different_names() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, new_request_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as told:
        theirs = told.read()
    ours = new_request_id()
    assert len(theirs) == len(ours) == 12
    assert theirs[:6] != ours[:6]


def test_what_is_mounted_is_named_once() -> None:
    mount = Mount("/api/v1", routes=[])
    assert journal._address({"root_path": "/api/v1", "route": mount}) == "/api/v1"
    route = Route("/peers/{name}", lambda _request: None)
    scope = {"root_path": "/api/v1", "route": route, "path_params": {"name": "Doe^John"}}
    assert journal._address(scope) == "/api/v1/peers/{name}"


def test_a_request_waits_for_the_database_once_whichever_threads_it_asks_from() -> None:
    seen: list[Any] = []

    async def write_twice(*_of_the_request: Any) -> None:
        for _ in range(2):
            seen.append(await in_thread(patience._patience.get))

    async def two_requests() -> None:
        for _ in range(2):
            await Journal(write_twice)({"type": "http", "method": "GET"}, nothing, nothing)

    async def nothing(*_message: Any) -> Any: ...

    asyncio.run(two_requests())
    first, again, second, _ = seen
    assert first is not None
    assert first is again
    assert first is not second
