"""Reading forms, and answering them.

A form that changes something is sent by POST and answered by a redirect, so that going back never
sends it twice. The door has checked its form token before the page sees it.
"""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pacsteward.base.errors import Invalid
from pacsteward.web.page import leave_notice

FIELDS_MAX = 200
TOKEN_FIELD = "form_token"  # noqa: S105


class Form:
    """What was filled in. Texts come stripped; a field that is missing is empty."""

    def __init__(self, data: FormData) -> None:
        self._data = data

    def text(self, name: str, *, strip: bool = True) -> str:
        """Return a text.

        Parameters
        ----------
        strip
            False for passwords, whose spaces count.
        """
        value = self._data.get(name, "")
        if not isinstance(value, str):
            return ""
        return value.strip() if strip else value

    def many(self, name: str) -> tuple[str, ...]:
        """Return all values of a name: ticked boxes."""
        return tuple(value for value in self._data.getlist(name) if isinstance(value, str))

    def flag(self, name: str) -> bool:
        """Say whether a box was ticked."""
        return bool(self.text(name))

    def number(self, name: str, *, title: str, empty: int | None = None) -> int:
        """Return a whole number.

        Parameters
        ----------
        empty
            What a field that was emptied means; None: it must be filled in.

        Raises
        ------
        Invalid
            It is none.
        """
        text = self.text(name)
        if not text and empty is not None:
            return empty
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise Invalid(
                f"{title} must be a whole number.",
                why=f"Found {text[:40]!r}.",
                remedy="Write it in digits.",
            )
        return int(text)


def form_of(request: Request) -> Form:
    """Return the form that was sent; the door has read it."""
    form: Form = request.state.form
    return form


def redirect(path: str, notice: str = "", *, tone: str = "good") -> Response:
    """Send the browser on with GET, and have the next page say `notice`."""
    response = RedirectResponse(path, 303)
    if notice:
        leave_notice(response, notice, tone)
    return response


def is_inline(request: Request) -> bool:
    """Say whether a script of the page asks, and wants only the part that changes."""
    return request.headers.get("hx-request") == "true"


def query_text(request: Request, name: str, length_max: int = 200) -> str:
    """Return a parameter of the address, stripped; "" when it is missing."""
    return request.query_params.get(name, "").strip()[:length_max]
