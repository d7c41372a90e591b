"""Our JSON API below ``/api/v1``: typed by FastAPI, guarded like everything else.

References
----------
OpenAPI 3.1; RFC 9457 — problem details.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from pacsteward.base.errors import PacstewardError
from pacsteward.web import problem
from pacsteward.web.guard import Guard
from pacsteward.web.operations import DESCRIPTION_PATH, PREFIX, ApiOperation, Provided


class _Refused(Exception):
    """Carries the guard's answer out of the framework."""

    def __init__(self, response: Response) -> None:
        self.response = response


def build_api(
    operations: Iterable[ApiOperation], guard: Guard, *, version: str, state: Mapping[str, Any]
) -> FastAPI:
    """Make the application that is mounted at `PREFIX`.

    Parameters
    ----------
    state
        What endpoints find in ``request.app.state``: the house.
    """
    api = FastAPI(
        title="Pacsteward",
        version=version,
        summary="Everything that the console does, for scripts.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        servers=[{"url": PREFIX}],
    )
    for name, value in state.items():
        setattr(api.state, name, value)
    for operation in operations:
        api.add_api_route(
            operation.path,
            _with_dependencies(operation.endpoint),
            methods=[operation.method],
            summary=operation.summary,
            tags=[operation.tag] if operation.tag else None,
            dependencies=[Depends(_asking(guard, operation.permission))],
            responses=_PROBLEMS,
            openapi_extra={"x-permission": operation.permission},
            status_code=operation.status_code,
        )
    api.add_exception_handler(_Refused, _answer_refused)
    api.add_exception_handler(PacstewardError, _answer_error)
    api.add_exception_handler(RequestValidationError, _answer_validation)
    api.add_exception_handler(HTTPException, _answer_http)
    return api


def describe(api: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description."""
    document = api.openapi()
    document.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic", "description": "A token as password."},
    }
    document["security"] = [{"bearer": []}, {"basic": []}]
    return document


def _with_dependencies(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return the endpoint with FastAPI's own mark on what is `Provided`."""
    signature = inspect.signature(endpoint, eval_str=True)
    marked = functools.update_wrapper(functools.partial(endpoint), endpoint)
    marked.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            parameter.replace(annotation=_dependency(parameter.annotation))
            for parameter in signature.parameters.values()
        ]
    )
    return marked


def _dependency(annotation: Any) -> Any:
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, Provided):
            return Annotated[annotation.__origin__, Depends(mark.by)]
    return annotation


def _asking(guard: Guard, permission: str) -> Callable[[Request], Any]:
    async def check(request: Request) -> None:
        request.scope["pacsteward.kind"] = "api"
        refusal = await guard.check(request, permission, "api")
        if refusal is not None:
            raise _Refused(refusal)

    return check


def _answer_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, _Refused)
    return error.response


def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PacstewardError)
    return problem.answer(request, error)


def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request.scope["pacsteward.kind"] = "api"
    if request.state.actor is None:
        # Nobody needs to learn which operations there are.
        return problem.unauthorized(request, is_wrong=request.state.is_wrong)
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(sorted(_methods_taken(request)))}
    return problem.answer_http(request, error)


def _methods_taken(request: Request) -> set[str]:
    """List what all operations at this address take; the framework lists the first one's."""
    taken: set[str] = set()
    for route in request.app.routes:
        match, _child = route.matches(request.scope)
        if match is not Match.NONE:
            taken |= route.methods or set()
    return taken


def _answer_validation(request: Request, error: Exception) -> Response:
    """List every fault with its place; what was sent is left out, it may be a secret."""
    assert isinstance(error, RequestValidationError)
    faults = [
        {"place": ".".join(str(part) for part in fault["loc"]), "why": fault["msg"]}
        for fault in error.errors()
    ]
    return problem.document(
        request,
        400,
        "The request does not fit its description.",
        why=" ".join(f"{fault['place']}: {fault['why']}." for fault in faults),
        remedy=f"{DESCRIPTION_PATH} describes what is taken.",
        kind="invalid",
        faults=faults,
    )


_PROBLEM = {
    "content": {
        problem.MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "properties": {
                    name: {"type": "integer" if name == "status" else "string"}
                    for name in ("type", "title", "status", "detail", "kind", "why", "remedy")
                },
            }
        }
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request does not fit.", **_PROBLEM},
    401: {"description": "Credentials are needed.", **_PROBLEM},
    403: {"description": "The permission is missing.", **_PROBLEM},
}
