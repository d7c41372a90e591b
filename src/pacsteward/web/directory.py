"""Finds the route of a request without asking all of them.

The framework tries one route after the other, a few microseconds each. With a hundred routes that
would cost a frame of a study more than everything else on its way. Here routes are looked up by
the first part of their path and by how many parts it has, so that a handful is left to try, in
their own order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

FOUND = "pacsteward.route"
"""Under which a request's scope holds the route that took it."""
_TAKEN = "pacsteward.methods"
"""And the methods that its address takes, where the request's is none of them."""


class KeyConvertor(Convertor[int]):
    """``{number:key}``: a number that a database can have as a key; a longer one leads nowhere."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        """Return the number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Return the piece of the path."""
        return str(value)


register_url_convertor("key", KeyConvertor())


class Directory(BaseRoute):
    """Many routes that look like one.

    Parameters
    ----------
    routes
        The first of several that match is taken, as ever.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = list(routes)
        # A parameter of type "path" takes any number of parts; such routes are tried always.
        by_length: dict[tuple[str, int], list[tuple[int, Route]]] = defaultdict(list)
        of_any_length: dict[str, list[tuple[int, Route]]] = defaultdict(list)
        anywhere: list[tuple[int, Route]] = []
        for place, route in enumerate(self.routes):
            first = _first_part(route.path)
            if first.startswith("{"):
                anywhere.append((place, route))
            elif ":path}" in route.path:
                of_any_length[first].append((place, route))
            else:
                by_length[first, route.path.count("/")].append((place, route))
        self._by_length = {
            key: _in_order(found, of_any_length[key[0]], anywhere)
            for key, found in by_length.items()
        }
        self._of_any_length = {
            first: _in_order(found, anywhere) for first, found in of_any_length.items()
        }
        self._anywhere = _in_order(anywhere)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Find the route; one for another method only if there is none for this one."""
        if scope["type"] != "http":
            return Match.NONE, {}
        partial: Scope = {}
        for route in self._candidates(scope["path"]):
            match, child = route.matches(scope)
            if match is Match.FULL:
                return match, {**child, FOUND: route}
            if match is Match.PARTIAL:
                partial = partial or {**child, FOUND: route, _TAKEN: set()}
                partial[_TAKEN] |= route.methods or set()
        return (Match.PARTIAL, partial) if partial else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request to the route that `matches` found."""
        if taken := scope.get(_TAKEN):
            # Of all routes at the address (RFC 9110 10.2.1); the framework would list the first's.
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(taken))})
        route: Route = scope[FOUND]
        await route.handle(scope, receive, send)

    def _candidates(self, path: str) -> Iterable[Route]:
        first = _first_part(path)
        found = self._by_length.get((first, path.count("/")))
        if found is None:
            found = self._of_any_length.get(first, self._anywhere)
        return found


def _first_part(path: str) -> str:
    return path[1:].partition("/")[0]


def _in_order(*groups: list[tuple[int, Route]]) -> tuple[Route, ...]:
    found = sorted((pair for group in groups for pair in group), key=lambda pair: pair[0])
    return tuple(route for _place, route in found)
