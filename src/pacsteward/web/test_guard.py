"""The guard before every address: who is asked for credentials, who is refused, and how."""

from __future__ import annotations

import base64
import itertools

import pytest
from tests.support.console import PASSWORD, Visitor

from pacsteward.base.errors import Unavailable
from pacsteward.security import Access, AuditBook, AuditFilter
from pacsteward.web.guard import safe_next
from pacsteward.web.server import PUBLIC_PATHS


def basic(name: str, password: str) -> dict[str, str]:
    pair = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"authorization": f"Basic {pair}"}


# Nobody there: S2


def test_visitor_of_a_page_is_sent_to_sign_in_and_back(door: Visitor) -> None:
    answer = door.get("/hall?words=a%20b&x=1")
    assert answer.status_code == 302
    assert answer.headers["location"] == "/login?next=%2Fhall%3Fwords%3Da%2520b%26x%3D1"
    assert door.get("/").headers["location"] == "/login"
    sent = door.post("/hall", data={"words": "x"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")


@pytest.mark.parametrize(
    ("before", "link"),
    [
        # A form with a fault stands where it was sent to, and that cannot be gone to.
        ("http://pacs.example/hall/keep?words=x", "/login?next=%2Fhall"),
        ("http://pacs.example/nowhere/at/all", "/login"),
        ("http://pacs.example/hall" + "/x" * 3_000, "/login"),
        ("http://pacs.example/hall?words=x", "/login?next=%2Fhall%3Fwords%3Dx"),
        ("http://evil.example/hall", "/login"),
        ("http://pacs.example//evil.example/", "/login"),
        ("https://pacs.example/hall", "/login"),
        ("http://[", "/login"),
    ],
)
def test_who_was_signed_out_meanwhile_goes_on_where_the_form_stands(
    door: Visitor, before: str, link: str
) -> None:
    sent = door.post("/hall", data={"words": "x"}, headers={"referer": before})
    assert (sent.status_code, sent.headers["location"]) == (303, link)
    assert "what you sent was not done" in door.get(link).text
    assert "was not done" not in door.get(link).text
    asked = door.get("/hall?words=y", headers={"referer": before, "hx-request": "true"})
    assert (asked.status_code, asked.headers["hx-redirect"]) == (401, link)
    assert "was not done" not in door.get(link).text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/dicom-web/links"),
        ("POST", "/dicom-web/studies"),
        ("HEAD", "/dicom-web/links"),
        ("GET", "/dicom-web/nothing/here"),
        ("PUT", "/dicom-web/links"),
        ("GET", "/api/v1/things"),
        ("GET", "/api/v1/nothing"),
        ("DELETE", "/api/v1/things"),
        ("GET", "/api/openapi.json"),
    ],
)
def test_program_without_credentials_is_asked_for_them(
    door: Visitor, method: str, path: str
) -> None:
    answer = door.request(method, path)
    assert answer.status_code == 401
    challenges = answer.headers.get_list("www-authenticate")
    assert [challenge.split()[0] for challenge in challenges] == ["Bearer", "Basic"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_script_of_a_page_is_not_answered_with_the_browsers_password_window(door: Visitor) -> None:
    answer = door.get("/dicom-web/links", headers={"sec-fetch-mode": "cors"})
    assert answer.status_code == 401
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="pacsteward"']


def test_unknown_addresses_tell_a_stranger_nothing(door: Visitor) -> None:
    for path in ("/instances", "/.git/config", "/admin", "/..%2f..%2fetc/passwd", "/static/../x"):
        assert door.get(path).status_code in (401, 404), path


def test_public_addresses_are_those_on_the_list(door: Visitor) -> None:
    assert PUBLIC_PATHS == ("/login", "/logout", "/healthz", "/readyz", "/static/")
    assert door.get("/login").status_code == 200
    assert door.get("/healthz").json() == {"status": "alive"}
    assert door.get("/readyz").json() == {"status": "ready"}
    assert door.get("/static/console.css").status_code == 200
    assert door.get("/static/../settings.py").status_code == 404
    assert door.get("/static/%2e%2e/settings.py").status_code == 404


def test_public_route_that_is_not_on_the_list_is_refused_at_start(access, audit) -> None:
    from pacsteward.web import BoundRoute, Parts, WebSettings, build_server

    leak = BoundRoute(("GET",), "/leak", lambda _request: None, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="/leak is public"):
        build_server(Parts(access, audit, WebSettings.model_validate({}), routes=[leak]))


# Somebody there


def test_token_opens_as_bearer_and_as_password_of_basic(door: Visitor, access: Access) -> None:
    text = access.make_token("script", ["radiologist"])
    for headers in (
        {"authorization": f"Bearer {text}"},
        {"authorization": f"bearer   {text}"},
        basic("whoever", text),
        basic("", text),
    ):
        assert door.get("/api/v1/things", headers=headers).json()["actor"] == "script"


@pytest.mark.parametrize(
    "value",
    [
        "Bearer wrong",
        "Bearer",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Digest x",
        "x" * 4000,
        "\xe9",
    ],
)
def test_wrong_credentials_are_401_everywhere(door: Visitor, value: str) -> None:
    for path in ("/dicom-web/links", "/api/v1/things", "/hall"):
        answer = door.get(path, headers={"authorization": value.encode("latin-1")})
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers.get_list("www-authenticate")[0]


def test_password_of_a_person_is_not_taken_by_basic(door: Visitor) -> None:
    assert door.get("/api/v1/things", headers=basic("ada", PASSWORD)).status_code == 401


def test_revoked_token_is_refused_by_the_next_request(
    door: Visitor, access: Access, token: dict[str, str]
) -> None:
    assert door.get("/api/v1/things", headers=token).status_code == 200
    access.tokens.revoke("script")
    assert door.get("/api/v1/things", headers=token).status_code == 401


def test_missing_permission_is_403_and_never_401(door: Visitor, token: dict[str, str]) -> None:
    """C62."""
    for method, path in (
        ("DELETE", "/dicom-web/studies"),
        ("DELETE", "/api/v1/things"),
    ):
        answer = door.request(method, path, headers=token)
        assert answer.status_code == 403
        assert "insufficient_scope" in answer.headers["www-authenticate"]
        assert answer.json()["kind"] == "forbidden"
        assert answer.json()["why"] == "It needs the permission peers.change."
    page = door.sign_in("rob").get("/office")
    assert page.status_code == 403
    assert "people.see" in page.text
    assert page.headers["content-type"].startswith("text/html")


def test_refusals_are_in_the_audit_book(
    door: Visitor, audit: AuditBook, token: dict[str, str]
) -> None:
    """S10."""
    door.get("/dicom-web/links")
    door.get("/dicom-web/links", headers={"authorization": "Bearer wrong"})
    door.delete("/dicom-web/studies", headers=token)
    refused = audit.entries(AuditFilter(only_failures=True))
    assert [(entry.actor, entry.address) for entry in refused] == [
        ("script", "127.0.0.1"),
        ("nobody", "127.0.0.1"),
        ("nobody", "127.0.0.1"),
    ]
    assert "DELETE /dicom-web/studies was refused" in refused[0].what


def test_every_door_asks_every_role(door: Visitor, access: Access) -> None:
    """S3: the table of roles, against every door of this house."""
    from pacsteward.security import ROLES, permissions_of
    from pacsteward.web.conftest import OPERATIONS, ROUTES

    doors = [
        *((method, route.path, route.permission) for route in ROUTES for method in route.methods),
        *((one.method, f"/api/v1{one.path}", one.permission) for one in OPERATIONS),
    ]
    tokens = {role: access.make_token(f"of-{role}", [role]) for role in ROLES}
    for (method, path, permission), role in itertools.product(doors, ROLES):
        headers = {"authorization": f"Bearer {tokens[role]}"}
        held = permissions_of([role])
        may = "*" in held or permission in held
        answer = door.request(method, path, headers=headers)
        assert (answer.status_code != 403) is may, (method, path, role)
        assert answer.status_code != 401


# Do they mean it: S12


def test_form_needs_its_token(door: Visitor) -> None:
    door.sign_in("rob")
    assert door.post("/hall", data={"words": "x"}).status_code == 403
    assert door.post("/hall", data={"words": "x", "form_token": "0" * 40}).status_code == 403
    answer = door.fill_in("/hall", "/hall", words="The picture")
    assert (answer.status_code, answer.headers["location"]) == (303, "/hall")
    assert "The picture was kept." in door.get("/hall").text
    assert "The picture was kept." not in door.get("/hall").text


def test_form_token_of_another_session_does_not_fit(door: Visitor) -> None:
    door.sign_in("rob")
    old = door.form_token("/hall")
    door.sign_in("rob")
    assert door.post("/hall", data={"form_token": old}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://pacs.example"},
        {"origin": "http://["},
    ],
)
def test_other_sites_cannot_use_the_browser_of_somebody(
    door: Visitor, access: Access, headers: dict[str, str]
) -> None:
    text = access.make_token("script", ["radiologist"])
    door.sign_in("rob")
    form_token = door.form_token("/hall")
    sent = door.post("/hall", data={"form_token": form_token}, headers=headers)
    assert sent.status_code == 403
    assert door.post("/api/v1/things", headers=headers).status_code == 403
    door.cookies.clear()
    assert door.post("/api/v1/things", headers=headers | basic("x", text)).status_code == 403
    assert door.post("/login", data={"username": "x"}, headers=headers).status_code == 403


def test_own_scripts_may_use_the_api_in_a_session(door: Visitor) -> None:
    door.sign_in("rob")
    form_token = door.form_token("/hall")
    assert door.post("/api/v1/things").status_code == 403
    for headers in (
        {"x-form-token": form_token},
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://pacs.example"},
    ):
        assert door.post("/api/v1/things", headers=headers).status_code == 200


def test_token_needs_no_form_token(door: Visitor, token: dict[str, str]) -> None:
    assert door.post("/api/v1/things", headers=token).status_code == 200
    assert door.post("/hall", data={"words": "x"}, headers=token).status_code == 303


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/hall?x=1", "/hall?x=1"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nset-cookie: x", "/"),
        ("hall", "/"),
        ("//[", "/"),
    ],
)
def test_after_sign_in_nobody_is_sent_elsewhere(text: str, path: str) -> None:
    assert safe_next(text) == path


# While the database is away


_AWAY = Unavailable("The database did not answer.", why="Nobody at 10.0.0.9.", remedy="Try again.")


def _take_away(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the question for the number of changes fail as that of a stopped PostgreSQL does."""

    def number() -> int:
        raise _AWAY

    monkeypatch.setattr(access.changes, "number_at_once", number)


@pytest.fixture
def database_away(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    _take_away(access, monkeypatch)


@pytest.mark.parametrize("path", ["/hall", "/api/v1/things", "/dicom-web/links"])
@pytest.mark.usefixtures("database_away")
def test_nobody_can_be_known_while_the_database_is_away(
    door: Visitor, token: dict[str, str], path: str
) -> None:
    """That is 503 and no fault of ours, and nobody unknown reads where the database is."""
    for shown in (token, {"cookie": "pacsteward_session=something"}):
        answer = door.get(path, headers=shown)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "5"
        assert "The database did not answer." in answer.text
        assert "10.0.0.9" not in answer.text


def test_signing_out_while_the_database_is_away_is_not_said_to_be_done(
    door: Visitor, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session would go on, without the cookie that could end it."""
    door.sign_in("ada")
    with monkeypatch.context() as away:
        _take_away(access, away)
        answer = door.post("/logout")
        assert answer.status_code == 503, answer.text
        assert "10.0.0.9" not in answer.text
        assert "set-cookie" not in answer.headers
    assert door.get("/hall").status_code == 200
    assert door.post("/logout").status_code == 303
    assert door.get("/hall").status_code == 302


def test_who_signs_in_while_the_database_is_away_does_not_read_where_it_is(
    door: Visitor, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sign_in(*_args: object, **_more: object) -> None:
        raise _AWAY

    monkeypatch.setattr(access, "sign_in", sign_in)
    answer = door.post("/login", data={"username": "ada", "password": "x"})
    assert answer.status_code == 503, answer.text
    assert "10.0.0.9" not in answer.text


@pytest.mark.usefixtures("database_away")
def test_what_everybody_may_have_needs_no_database(door: Visitor) -> None:
    for path in ("/healthz", "/readyz", "/login"):
        answer = door.get(path, headers={"cookie": "pacsteward_session=something"})
        assert answer.status_code == 200, answer.text
