"""The HTTP door and the console kit.

Rooms take from here what a page or a route is written with; nothing else of the framework.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from pacsteward.web.authentication import SESSION_COOKIE
from pacsteward.web.forms import Form, form_of, is_inline, query_text, redirect
from pacsteward.web.grid import Column, Grid, Wishes, arrange, wishes_of
from pacsteward.web.operations import ApiOperation
from pacsteward.web.page import leave_notice, render
from pacsteward.web.server import PUBLIC_PATHS, BoundRoute, Parts, build_server
from pacsteward.web.settings import WebSettings

__all__ = [
    "PUBLIC_PATHS",
    "SESSION_COOKIE",
    "ApiOperation",
    "BoundRoute",
    "Column",
    "Form",
    "Grid",
    "JSONResponse",
    "Parts",
    "PlainTextResponse",
    "RedirectResponse",
    "Request",
    "Response",
    "WebSettings",
    "Wishes",
    "arrange",
    "build_server",
    "form_of",
    "is_inline",
    "leave_notice",
    "query_text",
    "redirect",
    "render",
    "wishes_of",
]
