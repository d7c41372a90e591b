"""The directory finds the route that trying one after the other would find."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route, Router
from starlette.testclient import TestClient

from pacsteward.web.directory import Directory

PATHS = (
    ("GET", "/"),
    ("GET", "/studies"),
    ("POST", "/studies"),
    ("GET", "/studies/{study}"),
    ("GET", "/studies/{study}/metadata"),
    ("GET", "/studies/{study}/{rest:path}"),
    ("GET", "/studies/{study}/series/{series}"),
    ("GET", "/files/{name:path}"),
    ("GET", "/audit/{number:int}"),
    ("GET", "/audit/chain"),
    ("GET", "/{word}/about"),
    ("DELETE", "/files/all"),
)


def routes() -> list[Route]:
    async def handle(_request: object) -> PlainTextResponse:
        return PlainTextResponse("")

    return [Route(path, handle, methods=[method]) for method, path in PATHS]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/studies",
        "/studies/",
        "/studies/1.2",
        "/studies/1.2/metadata",
        "/studies/1.2/series/1.3",
        "/studies/1.2/series/1.3/x/y",
        "/files/",
        "/files/a",
        "/files/a/b/c.js",
        "/files/all",
        "/audit/7",
        "/audit/x",
        "/audit/chain",
        "/studies/about",
        "/any/about",
        "/nothing",
        "/nothing/at/all",
        "",
    ],
)
def test_directory_finds_what_trying_one_after_the_other_finds(method: str, path: str) -> None:
    scope = {"type": "http", "method": method, "path": path, "root_path": ""}
    every = routes()
    expected: tuple[Match, object] = (Match.NONE, None)
    for route in Router(every).routes:
        match, _child = route.matches(scope)
        if match is Match.FULL:
            expected = (match, route)
            break
        if match is Match.PARTIAL and expected[0] is Match.NONE:
            expected = (match, route)
    match, child = Directory(every).matches(scope)
    assert (match, child.get("pacsteward.route")) == expected


def test_a_wrong_method_is_told_all_that_the_address_takes() -> None:
    client = TestClient(Starlette(routes=[Directory(routes())]))
    answer = client.put("/studies")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert client.put("/studies/1.2").headers["allow"] == "GET, HEAD"
