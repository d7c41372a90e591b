"""QIDO-RS: searching for studies, series and instances.

Enters: query parameters. Leaves: a DICOM JSON array. No result is 204 without a body, as PS3.18
has it. An answer that was cut says in a Warning header how many results there are besides.

References
----------
PS3.18 10.6 (Search transaction), 8.3.4 (its parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from threading import BoundedSemaphore
from types import MappingProxyType
from typing import Final

from pacsteward.archive import Match
from pacsteward.base.errors import Exhausted, WouldWait
from pacsteward.dicom.attributes import Level, name_of
from pacsteward.dicom.matching import Criterion, Query, Single
from pacsteward.dicom.tags import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from pacsteward.dicom.uids import check_uid
from pacsteward.dicom.web.answers import (
    Request,
    Response,
    encoded_json_answer,
    encoded_list_answer,
    list_form,
    no_content,
    service_url,
    warning,
)
from pacsteward.dicom.web.parameters import Search, read_search
from pacsteward.feature import House, Route
from pacsteward.features.query.identifiers import named
from pacsteward.features.query.resources import ResultWriter, every_attribute, returned
from pacsteward.features.query.settings import QuerySettings
from pacsteward.web.short_way import WholeAnswer

_IN_PATH: Final[Mapping[str, tuple[Level, int, str]]] = MappingProxyType(
    {
        "study": (Level.STUDY, STUDY_INSTANCE_UID, "StudyInstanceUID"),
        "series": (Level.SERIES, SERIES_INSTANCE_UID, "SeriesInstanceUID"),
    }
)


def search(level: Level) -> Callable[[House, Request], Response]:
    """Make the handler of a search whose results stand for `level`."""

    def handle(house: House, request: Request) -> Response:
        form = list_form(request)
        asked = _read(house, request, level)
        house.audit.make_room()
        matches = house.archive.find(_with_one_more(asked.query))
        with ExitStack() as turn:
            results = _written(request, asked.query, matches, turn)
            has_more = asked.query.limit is not None and next(matches, None) is not None
            remarks = _recorded(house, request, asked, len(results), has_more=has_more)
            if not results:
                return no_content(remarks)
            return encoded_list_answer(request, form, results, headers=remarks)

    return handle


def search_at_once(level: Level) -> Callable[[House, Request], WholeAnswer]:
    """Make what answers such a search on the event loop, or raises `WouldWait`."""

    def handle(house: House, request: Request) -> WholeAnswer:
        form = list_form(request)
        if form.is_multipart or house.audit.is_crowded:
            raise WouldWait
        asked = _read(house, request, level)
        matches = house.archive.find_at_once(_with_one_more(asked.query))
        if asked.query.limit is not None and len(matches) > asked.query.limit:
            raise WouldWait  # how many there are besides has to be counted
        # They are few, and no turn is waited for on an event loop.
        writer = _writer(request, asked.query)
        results = [writer.write(match) for match in matches]
        remarks = _recorded(house, request, asked, len(results), has_more=False)
        if not results:
            return no_content(remarks)
        return encoded_json_answer(request, form, results, headers=remarks)

    return handle


def _with_one_more(query: Query) -> Query:
    """Ask for one more than is given: it tells whether there are others."""
    return query if query.limit is None else replace(query, limit=query.limit + 1)


def _written(
    request: Request, query: Query, matches: Iterable[Match], turn: ExitStack
) -> list[str]:
    """Return the results; for many of them the answer's turn is waited for, and held by `turn`."""
    writer = _writer(request, query)
    wanted = islice(matches, query.limit)
    results = [writer.write(match) for match in islice(wanted, LONG)]
    if len(results) == LONG:
        turn.enter_context(_LONG_ANSWERS)
        results += [writer.write(match) for match in wanted]
    return results


def _writer(request: Request, query: Query) -> ResultWriter:
    return ResultWriter(query.level, query.returns, service_url(request))


LONG: Final = 500
_LONG_ANSWERS: Final = BoundedSemaphore(4)
"""Long answers that are written together. They share one processor, so that more of them would be
ready no sooner, and each has megabytes in memory while it is written."""


def _recorded(
    house: House, request: Request, asked: Search, given: int, *, has_more: bool
) -> dict[str, str]:
    """Have the search recorded; return the headers with what is to be said of its answer."""
    house.audit.record_query(
        request.state.actor,
        level=asked.query.level,
        keys=named(asked.query),
        matches=given,
    )
    return warning(*_remarks(house, asked, given, has_more=has_more))


def _read(house: House, request: Request, level: Level) -> Search:
    fixed: dict[int, Criterion] = {}
    path_has = set()
    for name, (parent, tag, keyword) in _IN_PATH.items():
        if name in request.path_params:
            fixed[tag] = Single(check_uid(request.path_params[name], keyword))
            path_has.add(parent)
    # Within a study nothing is cut: a client that asks for its series without a limit wants all of
    # them (C16).
    most = None if fixed else house.settings.of(QuerySettings).max_results
    asked = read_search(
        level,
        request.query_params.multi_items(),
        returns=returned(level, path_has=frozenset(path_has)),
        fixed=fixed,
        max_results=most,
    )
    needed = [STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID][: _DEPTH[level]]
    more = every_attribute(level) if asked.wants_all else ()
    returns = tuple(dict.fromkeys([*asked.query.returns, *needed, *more]))
    return replace(asked, query=replace(asked.query, returns=returns))


_DEPTH: Final = {Level.STUDY: 1, Level.SERIES: 2, Level.IMAGE: 3}


def _remarks(house: House, asked: Search, given: int, *, has_more: bool) -> list[str]:
    remarks = list(asked.warnings)
    if unsupported := house.archive.unsupported(asked.query):
        names = ", ".join(name_of(tag) for tag in unsupported)
        remarks.append(f"The following attributes cannot be matched and were ignored: {names}")
    if has_more:
        remarks.append(_additional(house, asked.query, given))
    return remarks


def _additional(house: House, query: Query, given: int) -> str:
    """Say how much was left out, in the words of PS3.18 8.3.4.4."""
    try:
        count = house.archive.count(query) - query.offset - given
    except Exhausted:
        # Counting may take longer than finding; that there are more is known all the same.
        return "There are additional results that can be requested"
    return f"There are {max(count, 1)} additional results that can be requested"


def _routes(path: str, level: Level) -> Route:
    return Route(
        "GET",
        f"/dicom-web{path}",
        search(level),
        "studies.find",
        search_at_once(level),
        takes_query=True,
    )


ROUTES = (
    _routes("/studies", Level.STUDY),
    _routes("/series", Level.SERIES),
    _routes("/instances", Level.IMAGE),
    _routes("/studies/{study}/series", Level.SERIES),
    _routes("/studies/{study}/instances", Level.IMAGE),
    _routes("/studies/{study}/series/{series}/instances", Level.IMAGE),
)
