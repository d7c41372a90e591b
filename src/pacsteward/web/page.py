"""Rendering of console pages.

A room's page is a function that ends in ``render(request, "room/name.html", …)``. The template
extends ``layout.html`` and builds with the macros of ``kit.html``. Everything that is put into a
page is escaped; there is no way around it in our templates.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PrefixLoader,
    StrictUndefined,
)
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

HERE = Path(__file__).parent
STATIC = HERE / "static"
NOTICE_COOKIE = "pacsteward_notice"


@dataclass(frozen=True, slots=True)
class MenuItem:
    """An entry of the menu; shown to those who may open it."""

    title: str
    path: str
    permission: str
    place: int


class Pages:
    """What all pages need: templates and the menu. Made once by the server.

    Parameters
    ----------
    template_folders
        Folder of each room's templates, by the room's name.
    """

    def __init__(
        self,
        template_folders: Mapping[str, Path],
        menu: Iterable[MenuItem] = (),
        *,
        version: str = "",
    ) -> None:
        rooms: dict[str, BaseLoader] = {
            name: FileSystemLoader(folder) for name, folder in template_folders.items()
        }
        self.environment = Environment(
            loader=ChoiceLoader([FileSystemLoader(HERE / "templates"), PrefixLoader(rooms)]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=without_tricks,
        )
        self.environment.globals["static"] = static_url
        self.environment.filters.update(
            moment=moment, ago=ago, size=size, number=number, counted=counted, commands=commands
        )
        self.menu = sorted(menu, key=lambda item: (item.place, item.title))
        self.version = version


_TRICKS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def without_tricks(value: Any) -> Any:
    """Show control characters, and those that turn the reading direction, as what they are: odd.

    A name with U+202E in it makes the rest of its line read backwards, so that one file or
    patient looks like another (S11). Hebrew and Arabic need none of these.
    """
    if isinstance(value, str) and _TRICKS.search(value):
        return type(value)(_TRICKS.sub("\N{REPLACEMENT CHARACTER}", value))
    return value


def render(
    request: Request, template: str, *, status_code: int = 200, **context: Any
) -> HTMLResponse:
    """Return a page.

    Parameters
    ----------
    template
        ``"room/name.html"``; a room's names begin with the room.
    context
        What the template uses. Given besides: ``actor``, ``menu``, ``path``, ``form_token``,
        ``notice`` (left by the page before), ``visit``.
    """
    pages: Pages = request.scope["pacsteward.pages"]
    # Whatever was asked for, a page is what is answered, with a page's headers.
    request.scope["pacsteward.kind"] = "page"
    state = request.state
    actor = getattr(state, "actor", None)
    notice = _notice_of(request)
    html = pages.environment.get_template(template).render(
        request=request,
        actor=actor,
        visit=getattr(state, "visit", None),
        menu=[item for item in pages.menu if actor and actor.may(item.permission)],
        path=request.scope["path"],
        here=_current(pages.menu, request.scope["path"]),
        form_token=getattr(state, "form_token", ""),
        notice=notice,
        product_version=pages.version,
        now=datetime.now(UTC),
        **context,
    )
    response = HTMLResponse(html, status_code)
    if notice is not None:
        response.delete_cookie(NOTICE_COOKIE, path="/", httponly=True, samesite="lax")
    return response


def leave_notice(response: Any, words: str, tone: str = "good") -> None:
    """Have the next page say `words`; it says them once.

    Parameters
    ----------
    tone
        ``"good"``, ``"warning"`` or ``"bad"``.
    """
    text = urlsafe_b64encode(json.dumps([tone, words[:500]]).encode()).decode()
    response.set_cookie(NOTICE_COOKIE, text, max_age=60, path="/", httponly=True, samesite="lax")


def _notice_of(request: Request) -> tuple[str, str] | None:
    text = request.cookies.get(NOTICE_COOKIE, "")
    if not text:
        return None
    try:
        tone, words = json.loads(urlsafe_b64decode(text))
    except (ValueError, TypeError, Base64Error):
        return None
    if tone not in ("good", "warning", "bad") or not isinstance(words, str):
        return None
    return tone, words


def _current(menu: Iterable[MenuItem], path: str) -> str:
    """Return the menu's entry that `path` lies below."""
    below = [
        item.path
        for item in menu
        if path == item.path or (item.path != "/" and path.startswith(item.path + "/"))
    ]
    return max(below, key=len, default="")


@cache
def static_url(name: str) -> str:
    """Return the address of a file in ``static/``; it changes when the file does.

    A file that the set-up step has not fetched yet gives "": pages work without.
    """
    path = STATIC / name
    if not path.is_file():
        return ""
    mark = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={mark}"


def moment(value: datetime | None, empty: str = "never") -> Markup:
    """Write a moment in this machine's time zone, which it names; pointing at it shows UTC."""
    if value is None:
        return Markup("{}").format(empty)
    local = value.astimezone()
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{} <small class="zone">{}</small></time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        utc.strftime("%Y-%m-%d %H:%M:%S UTC"),
        local.strftime("%Y-%m-%d %H:%M:%S"),
        local.strftime("%Z"),
    )


_SPANS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"))


def ago(value: datetime | None, empty: str = "never") -> Markup:
    """Write how long ago a moment is, in its largest unit."""
    if value is None:
        return Markup("{}").format(empty)
    seconds = (datetime.now(UTC) - value).total_seconds()
    words = next(
        (f"{int(seconds // span)} {unit} ago" for span, unit in _SPANS if seconds >= span),
        "just now",
    )
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        value.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        words,
    )


def size(value: float) -> str:
    """Write a number of bytes with three digits and its unit."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def number(value: float) -> str:
    """Write a number with narrow spaces between its thousands (ISO 80000-1 7.3.1)."""
    return f"{value:,}".replace(",", "\u202f")


def counted(count: float | str | None, word: str) -> str:
    """Write how many of something there are: "1 instance", "24 instances"; "series" stays."""
    amount = int(count or 0)
    many = word if amount == 1 or word.endswith("s") else f"{word}s"
    return f"{number(amount)} {many}"


def commands(text: str) -> Markup:
    """Write what stands between backticks, as remedies name commands, as code."""
    pieces = re.split("`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else piece
        for place, piece in enumerate(pieces)
    )
