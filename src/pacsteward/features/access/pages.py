"""People, tokens and the own account in the console."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pacsteward.base.errors import CORRECTABLE, PacstewardError
from pacsteward.feature import House, Page
from pacsteward.features.access import accounts, audit_pages
from pacsteward.security import Person, Token, TooManyTries, hash_of
from pacsteward.web import (
    SESSION_COOKIE,
    Column,
    Form,
    Request,
    Response,
    arrange,
    form_of,
    query_text,
    redirect,
    render,
    wishes_of,
)
from pacsteward.web.threads import in_thread, in_thread_of

_CHECKS: Final = ThreadPoolExecutor(4, thread_name_prefix="passwords")
"""Each check takes 64 MiB and a core. In the common threads people who change their passwords
would hold up everybody else, as at sign-in."""

PEOPLE_COLUMNS = (
    Column("Name", "name"),
    Column("Roles", ""),
    Column("State", ""),
    Column("Last signed in", "last_signed_in_at"),
    Column("Since", "created_at"),
    Column(""),
)
TOKEN_COLUMNS = (
    Column("Name", "name"),
    Column("Begins with", ""),
    Column("Roles", ""),
    Column("State", ""),
    Column("Last used", "last_used_at"),
    Column("Made", "made_at"),
    Column(""),
)

# People ------------------------------------------------------------------------------------------


def show_people(house: House, request: Request) -> Response:
    """List everybody who may sign in."""
    people = house.access.people.all()
    grid = arrange(
        people,
        PEOPLE_COLUMNS,
        wishes_of(request, PEOPLE_COLUMNS, sort="name"),
        words_of=lambda person: f"{person.name} {' '.join(person.roles)}",
        key_of=getattr,
    )
    return render(
        request,
        "access/people.html",
        grid=grid,
        people=people,
        state_of=accounts.state_of_person,
    )


def add_person(house: House, request: Request) -> Response:
    """Show the empty form, or add somebody; the password is shown once."""
    if request.method != "POST":
        return _person_form(request)
    form = form_of(request)
    access = house.access.people
    try:
        person = access.add(
            form.text("name"),
            form.text("password", strip=False),
            form.many("roles"),
            by=request.state.actor,
            is_given=True,
        )
    except CORRECTABLE as error:
        return _person_form(request, form, error)
    return redirect("/people", f"{person.name} was added, and will be asked for an own password.")


def _person_form(
    request: Request, form: Form | None = None, error: PacstewardError | None = None
) -> Response:
    return render(
        request,
        "access/person_new.html",
        status_code=400 if error else 200,
        name=form.text("name") if form else "",
        chosen=form.many("roles") if form else (),
        roles=accounts.role_options(),
        error=error,
    )


def show_person(house: House, request: Request) -> Response:
    """Show somebody, with what can be done."""
    return _person_page(house, request, query_text(request, "name"))


def _person_page(
    house: House,
    request: Request,
    name: str,
    *,
    error: PacstewardError | None = None,
    new_password: str = "",
) -> Response:
    person = house.access.people.need(name)
    return render(
        request,
        "access/person.html",
        status_code=400 if error else 200,
        person=person,
        state=accounts.state_of_person(person),
        roles=accounts.role_options(),
        error=error,
        new_password=new_password,
    )


def change_roles(house: House, request: Request) -> Response:
    """Give somebody other roles."""
    form = form_of(request)
    name = form.text("name")
    return _changed(
        house,
        request,
        lambda: house.access.people.change_roles(name, form.many("roles"), by=request.state.actor),
        f"The roles of {name} were changed; they hold from now on.",
    )


def set_disabled(house: House, request: Request) -> Response:
    """Keep somebody out, or let them in again."""
    form = form_of(request)
    name, is_disabled = form.text("name"), form.flag("is_disabled")
    words = "was disabled; all sessions have ended" if is_disabled else "may sign in again"
    return _changed(
        house,
        request,
        lambda: house.access.people.set_disabled(
            name, is_disabled=is_disabled, by=request.state.actor
        ),
        f"{name} {words}.",
    )


def remove_person(house: House, request: Request) -> Response:
    """Remove somebody."""
    name = form_of(request).text("name")
    try:
        house.access.people.remove(name, by=request.state.actor)
    except CORRECTABLE as error:
        return _person_page(house, request, name, error=error)
    return redirect("/people", f"{name} was removed.")


def reset_password(house: House, request: Request) -> Response:
    """Give somebody a random password and show it, this once."""
    name = form_of(request).text("name")
    password = house.access.people.reset_password(name, by=request.state.actor)
    return _person_page(house, request, name, new_password=password)


def _changed(house: House, request: Request, act: Callable[[], None], notice: str) -> Response:
    name = form_of(request).text("name")
    try:
        act()
    except CORRECTABLE as error:
        return _person_page(house, request, name, error=error)
    return redirect("/people", notice)


# Tokens ------------------------------------------------------------------------------------------


def show_tokens(house: House, request: Request) -> Response:
    """List all tokens."""
    return _token_page(house, request)


def _token_page(
    house: House,
    request: Request,
    *,
    form: Form | None = None,
    error: PacstewardError | None = None,
    made: tuple[str, str] | None = None,
) -> Response:
    tokens = house.access.tokens.all()
    now = house.clock.now()
    grid = arrange(
        tokens,
        TOKEN_COLUMNS,
        wishes_of(request, TOKEN_COLUMNS, sort="name"),
        words_of=_token_words,
        key_of=getattr,
    )
    return render(
        request,
        "access/tokens.html",
        status_code=400 if error else 200,
        grid=grid,
        tokens=tokens,
        states={token.name: accounts.state_of_token(token, now) for token in tokens},
        roles=accounts.role_options(),
        name=form.text("name") if form else "",
        chosen=form.many("roles") if form else ("machine",),
        expires=form.text("expires") if form else "",
        error=error,
        made=made,
    )


def _token_words(token: Token) -> str:
    return f"{token.name} {token.begins_with} {token.made_by} {' '.join(token.roles)}"


def make_token(house: House, request: Request) -> Response:
    """Make a token and show it, this once."""
    form = form_of(request)
    try:
        text = house.access.make_token(
            form.text("name"),
            form.many("roles"),
            expires_at=accounts.end_of_day(form.text("expires")),
            by=request.state.actor,
        )
    except CORRECTABLE as error:
        return _token_page(house, request, form=form, error=error)
    return _token_page(house, request, made=(form.text("name").lower(), text))


def revoke_token(house: House, request: Request) -> Response:
    """Refuse a token from now on."""
    name = form_of(request).text("name")
    house.access.tokens.revoke(name, by=request.state.actor)
    return redirect("/tokens", f"{name} was revoked; its next request is refused.")


# Own account -------------------------------------------------------------------------------------


def show_account(house: House, request: Request) -> Response:
    """Show who one is, and let the password be changed."""
    return _account_page(house, request)


def _account_page(house: House, request: Request, error: PacstewardError | None = None) -> Response:
    actor = request.state.actor
    person: Person | None = house.access.people.get(actor.name) if actor.kind == "person" else None
    return render(
        request,
        "access/account.html",
        status_code=_status_of(error),
        person=person,
        role_words=accounts.ROLE_WORDS,
        error=error,
    )


def _status_of(error: PacstewardError | None) -> int:
    if error is None:
        return 200
    return 429 if isinstance(error, TooManyTries) else 400


async def change_password(house: House, request: Request) -> Response:
    """Change the own password, after the wait that earlier failures have earned.

    The present one must be given: a session that was left open shall not give the account away.
    """
    form, actor, access = form_of(request), request.state.actor, house.access
    try:
        with access.guard.queue(actor.address):
            await asyncio.sleep(await in_thread(access.wait_s, actor.name, actor.address))
            await in_thread_of(
                _CHECKS,
                access.change_own_password,
                actor,
                form.text("present", strip=False),
                form.text("password", strip=False),
                form.text("again", strip=False),
                keep_session=hash_of(request.cookies.get(SESSION_COOKIE, "")),
            )
    except TooManyTries as error:
        response = await in_thread(_account_page, house, request, error)
        response.headers["retry-after"] = str(error.retry_after_s)
        return response
    except CORRECTABLE as error:
        return await in_thread(_account_page, house, request, error)
    return redirect("/account", "Your password was changed. Your other sessions have ended.")


PAGES = (
    Page("/people", show_people, "people.see", "People", menu=90),
    Page("/people/new", add_person, "people.change", "New person", methods=("GET", "POST")),
    Page("/people/edit", show_person, "people.see", "Person"),
    Page("/people/roles", change_roles, "people.change", "Roles", methods=("POST",)),
    Page("/people/disable", set_disabled, "people.change", "Disable", methods=("POST",)),
    Page("/people/remove", remove_person, "people.change", "Remove", methods=("POST",)),
    Page("/people/reset", reset_password, "people.change", "Reset password", methods=("POST",)),
    Page("/tokens", show_tokens, "people.see", "Tokens", menu=91),
    Page("/tokens/make", make_token, "tokens.change", "Make a token", methods=("POST",)),
    Page("/tokens/revoke", revoke_token, "tokens.change", "Revoke", methods=("POST",)),
    Page("/account", show_account, "self", "My account"),
    Page("/account/password", change_password, "self", "Change password", methods=("POST",)),
    *audit_pages.PAGES,
)
