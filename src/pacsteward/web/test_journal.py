"""Names of requests."""

from __future__ import annotations

import os

from starlette.routing import Mount, Route

from pacsteward.web import journal
from pacsteward.web.journal import new_request_id


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
