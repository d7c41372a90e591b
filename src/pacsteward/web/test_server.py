"""The HTTP door as a whole: errors, limits, headers, and what the log says of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from tests.support.console import Visitor

from pacsteward.security import Access
from pacsteward.web.conftest import OpenDoor
from pacsteward.web.headers import PAGE_POLICY
from pacsteward.web.limits import is_deeper

# Errors


def test_error_is_a_problem_document_for_programs(door: Visitor, token: dict[str, str]) -> None:
    """RFC 9457."""
    answer = door.get("/dicom-web/missing", headers=token)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["title"] == "Study 1.2.3 is not here."
    assert document["detail"] == "Nobody sent it. Send it."
    assert document["status"] == 404
    assert document["request_id"] == answer.headers["x-request-id"]


def test_full_disk_is_507(door: Visitor, token: dict[str, str]) -> None:
    assert door.get("/dicom-web/full", headers=token).status_code == 507


def test_fault_of_ours_tells_nothing_and_is_logged(door: Visitor, token: dict[str, str]) -> None:
    with capture_logs() as lines:
        answer = door.get("/dicom-web/broken", headers=token)
    failed = next(line for line in lines if line["event"] == "request_failed")
    assert failed["path"] == "/dicom-web/broken"
    assert failed["request_id"] == answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert "MUELLER" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"] in answer.json()["remedy"]


@pytest.mark.parametrize(
    ("address", "logged"),
    [
        ("/dicom-web/links?PatientName=DOE", "/dicom-web/links"),
        ("/api/v1/things?number=7", "/api/v1/things"),
        ("/dicom-web/DOE^JANE", "(no route)"),
    ],
)
def test_request_is_logged_by_its_route_and_never_by_what_was_asked(
    door: Visitor,
    token: dict[str, str],
    address: str,
    logged: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with capture_logs() as lines, caplog.at_level("DEBUG", "pacsteward.web"):
        door.get(address, headers=token)
    assert [line["path"] for line in lines if line["event"] == "request"] == [logged]
    assert "DOE" not in str(lines)


def test_faults_of_a_request_are_listed_without_what_was_sent(
    door: Visitor, token: dict[str, str]
) -> None:
    answer = door.get("/api/v1/things?number=secret-value", headers=token)
    assert answer.status_code == 400
    assert answer.json()["faults"][0]["place"] == "query.number"
    assert "secret-value" not in answer.text


def test_unknown_address_and_wrong_method(door: Visitor, token: dict[str, str]) -> None:
    assert door.get("/dicom-web/nothing", headers=token).status_code == 404
    answer = door.patch("/dicom-web/links", headers=token)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    page = door.get("/nothing", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert "There is nothing at this address" in page.text


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/dicom-web/studies", "DELETE, POST, OPTIONS"),
        ("/hall", "GET, HEAD, POST, OPTIONS"),
        ("/api/v1/things", "DELETE, GET, POST, OPTIONS"),
    ],
)
def test_options_tell_what_an_address_takes_and_open_it_to_no_other_site(
    door: Visitor, token: dict[str, str], path: str, methods: str
) -> None:
    asked = {"origin": "https://viewer.example", "access-control-request-method": "GET"}
    answer = door.options(path, headers=token | asked)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, methods, b"")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_options_tell_nobody_what_machines_are_offered(door: Visitor) -> None:
    for path in ("/dicom-web/studies", "/api/v1/things"):
        answer = door.options(path)
        assert answer.status_code == 401
        assert "allow" not in answer.headers
    assert door.options("/dicom-web/nothing").status_code == 401


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE"])
def test_a_method_that_a_page_does_not_take_tells_nobody_which_ones_it_takes(
    door: Visitor, method: str
) -> None:
    answer = door.request(method, "/hall")
    assert answer.headers["location"].startswith("/login")
    assert "allow" not in answer.headers
    assert answer.headers["content-security-policy"] == PAGE_POLICY
    wrong = door.request(method, "/hall", headers={"authorization": "Bearer wrong"})
    assert (wrong.status_code, "allow" in wrong.headers) == (401, False)


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/login", "GET, HEAD, POST, OPTIONS"), ("/healthz", "GET, HEAD, OPTIONS")],
)
def test_what_everybody_may_reach_tells_everybody_what_it_takes(
    door: Visitor, path: str, methods: str
) -> None:
    answer = door.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)
    assert door.delete(path).status_code == 405


def test_options_of_no_address_are_not_found(door: Visitor, token: dict[str, str]) -> None:
    for path in ("/dicom-web/nothing", "/api/v1/nothing", "/nothing"):
        assert door.options(path, headers=token).status_code == 404


def test_head_is_get_without_a_body(door: Visitor, token: dict[str, str]) -> None:
    answer = door.head("/dicom-web/links", headers=token)
    assert answer.status_code == 200
    assert answer.content == b""


def test_description_of_the_api_names_permissions(door: Visitor, token: dict[str, str]) -> None:
    document = door.get("/api/openapi.json", headers=token).json()
    assert document["openapi"].startswith("3.")
    assert document["servers"] == [{"url": "/api/v1"}]
    assert document["paths"]["/things"]["get"]["x-permission"] == "studies.find"
    assert set(document["components"]["securitySchemes"]) == {"bearer", "basic"}


# Headers


def test_pages_run_our_own_script_and_style_only(door: Visitor) -> None:
    """S11."""
    answer = door.sign_in("ada").get("/hall", params={"words": "<script>alert(1)</script>"})
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>alert" not in answer.text
    assert " style=" not in answer.text
    assert "onclick" not in answer.text


def test_data_never_comes_alive(door: Visitor, token: dict[str, str]) -> None:
    """S13."""
    answer = door.get("/dicom-web/live", headers=token)
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_answer_has_the_safe_headers(door: Visitor, token: dict[str, str]) -> None:
    answers = [
        door.get("/login"),
        door.get("/healthz"),
        door.get("/dicom-web/links"),
        door.get("/dicom-web/links", headers=token),
        door.get("/dicom-web/broken", headers=token),
        door.get("/nothing"),
        door.get("/static/console.css"),
        door.post("/body", content=b"x" * 9_000_000, headers=token),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "content-security-policy" in answer.headers
        assert "cache-control" in answer.headers
        assert len(answer.headers["x-request-id"]) == 12


def test_marked_files_are_kept_by_the_browser(door: Visitor) -> None:
    assert "immutable" in door.get("/static/console.css?v=abc").headers["cache-control"]
    assert door.get("/static/console.css").headers["cache-control"] == "no-cache"


# CORS: C63


def test_other_origins_are_not_told_anything_by_default(
    door: Visitor, token: dict[str, str]
) -> None:
    answer = door.get("/dicom-web/links", headers={**token, "origin": "https://viewer.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_origins_of_the_settings_may_use_dicomweb(
    open_door: OpenDoor, token: dict[str, str]
) -> None:
    door = open_door(cors_origins=("https://viewer.example",))
    preflight = door.options(
        "/dicom-web/links",
        headers={
            "origin": "https://viewer.example",
            "access-control-request-method": "GET",
            "access-control-request-headers": "authorization, accept, content-type, range",
        },
    )
    assert preflight.status_code == 200
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "accept", "content-type", "range"))
    answer = door.get("/dicom-web/links", headers={**token, "origin": "https://viewer.example"})
    assert answer.headers["access-control-allow-origin"] == "https://viewer.example"
    exposed = answer.headers["access-control-expose-headers"]
    assert all(name in exposed for name in ("Content-Range", "ETag", "Warning"))
    assert "access-control-allow-credentials" not in answer.headers
    refused = door.options(
        "/dicom-web/links",
        headers={"origin": "https://evil.example", "access-control-request-method": "GET"},
    )
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


# Limits


def test_body_has_a_limit_but_studies_do_not(door: Visitor, token: dict[str, str]) -> None:
    nine = b"x" * (9 * 1024 * 1024)
    answer = door.post("/body", content=nine, headers=token)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert door.post("/dicom-web/studies", content=nine, headers=token).text == str(len(nine))


def test_body_without_a_promised_length_has_the_same_limit(
    door: Visitor, token: dict[str, str]
) -> None:
    pieces = (b"x" * 1024 * 1024 for _ in range(9))
    assert door.post("/body", content=pieces, headers=token).status_code == 413


@pytest.mark.parametrize(
    "headers", [{f"x-{number}": "1" for number in range(120)}, {"x-long": "x" * 70_000}]
)
def test_headers_have_limits(door: Visitor, token: dict[str, str], headers: dict[str, str]) -> None:
    assert door.get("/dicom-web/links", headers=token | headers).status_code == 431


@pytest.mark.parametrize(
    ("body", "is_deep"),
    [
        (b"[" * 64 + b"]" * 64, False),
        (b"[" * 65 + b"]" * 65, True),
        (b'{"a":' * 65 + b"1" + b"}" * 65, True),
        (b'{"a":' * 64 + b"1" + b"}" * 64, False),
        (b"[" + b"[]," * 5000 + b"[]]", False),
        (b'["' + b"[" * 500 + b'"]', False),
        (b'["\\"' + b"[" * 500 + b'"]', False),
        (b'["a\\\\",' + b"[" * 70 + b"]" * 71, True),
        (b"[" * 50_000 + b"]" * 50_000, True),
        (b"[" * 100, True),
    ],
)
def test_depth_of_json_is_seen_without_parsing_it(body: bytes, is_deep: bool) -> None:
    assert is_deeper(body, 64) is is_deep


def test_json_has_a_limit_of_depth(door: Visitor, token: dict[str, str]) -> None:
    for kind in ("application/json", "application/dicom+json", None):
        headers = token if kind is None else {**token, "content-type": kind}
        for depth, status in ((64, 200), (65, 400)):
            body = b"[" * depth + b"]" * depth
            answer = door.post("/body", content=body, headers=headers)
            assert answer.status_code == status, (kind, depth)
        assert "64 levels deep" in answer.json()["title"]
    headers = {**token, "content-type": "text/plain"}
    assert door.post("/body", content=b"[" * 100, headers=headers).status_code == 200


def test_request_that_stops_coming_in_is_given_up(
    open_door: OpenDoor, token: dict[str, str]
) -> None:
    """R13."""
    application = open_door(request_stall_s=0.05).app
    sent: list[dict[str, object]] = []

    async def stalled() -> dict[str, object]:
        await asyncio.sleep(60)
        raise AssertionError

    async def keep(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/body",
        "raw_path": b"/body",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "headers": [
            (b"host", b"pacs.example"),
            (b"authorization", token["authorization"].encode()),
        ],
    }
    asyncio.run(asyncio.wait_for(application(scope, stalled, keep), 5))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


# Where a request comes from and went to: C25


def base(door: Visitor, token: dict[str, str], **headers: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = door.get("/dicom-web/links", headers=token | named)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_proxies_are_not_believed_unless_named(door: Visitor, token: dict[str, str]) -> None:
    said = {
        "x_forwarded_proto": "https",
        "x_forwarded_host": "evil.example",
        "x_forwarded_for": "203.0.113.9",
        "forwarded": "for=203.0.113.9;proto=https;host=evil.example",
    }
    assert base(door, token, **said) == {"base": "http://pacs.example/", "client": "127.0.0.1"}


@pytest.mark.parametrize(
    "said",
    [
        {
            "x_forwarded_proto": "https",
            "x_forwarded_host": "pacs.hospital.example",
            "x_forwarded_for": "203.0.113.9",
        },
        {"forwarded": 'for=203.0.113.9;proto=https;host="pacs.hospital.example"'},
        {"forwarded": 'For="203.0.113.9:4711" ; Proto=HTTPS ; Host=pacs.hospital.example'},
        {
            # The client wrote a lie of its own before the proxy added the truth.
            "x_forwarded_for": "6.6.6.6, 203.0.113.9",
            "x_forwarded_proto": "https",
            "x_forwarded_host": "pacs.hospital.example",
        },
        {
            "forwarded": "for=6.6.6.6;host=evil.example, "
            "for=203.0.113.9;proto=https;host=pacs.hospital.example"
        },
    ],
)
def test_named_proxy_is_believed(
    open_door: OpenDoor, token: dict[str, str], said: dict[str, str]
) -> None:
    kind = "forwarded" if "forwarded" in said else "x-forwarded"
    door = open_door(trusted_proxies=("127.0.0.0/8",), proxy_headers=kind)
    assert base(door, token, **said) == {
        "base": "https://pacs.hospital.example/",
        "client": "203.0.113.9",
    }


_LIES = {
    "x-forwarded": {
        "x_forwarded_for": "6.6.6.6",
        "x_forwarded_proto": "http",
        "x_forwarded_host": "evil.example",
    },
    "forwarded": {"forwarded": "for=6.6.6.6;proto=http;host=evil.example"},
}
_TRUTHS = {
    "x-forwarded": {
        "x_forwarded_for": "203.0.113.9",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "pacs.hospital.example",
    },
    "forwarded": {"forwarded": "for=203.0.113.9;proto=https;host=pacs.hospital.example"},
}


@pytest.mark.parametrize(
    ("written", "passed_on"), [("x-forwarded", "forwarded"), ("forwarded", "x-forwarded")]
)
def test_what_a_proxy_only_passes_on_is_not_believed(
    open_door: OpenDoor, token: dict[str, str], written: str, passed_on: str
) -> None:
    """A proxy writes one kind of headers, and leaves what the caller wrote into the other."""
    door = open_door(trusted_proxies=("127.0.0.1",), proxy_headers=written)
    assert base(door, token, **_TRUTHS[written], **_LIES[passed_on]) == {
        "base": "https://pacs.hospital.example/",
        "client": "203.0.113.9",
    }


def test_two_named_proxies_are_looked_through(open_door: OpenDoor, token: dict[str, str]) -> None:
    door = open_door(trusted_proxies=("127.0.0.1", "10.0.0.5"), proxy_headers="forwarded")
    found = base(
        door,
        token,
        forwarded="for=203.0.113.9;proto=https;host=outer.example, for=10.0.0.5;host=inner",
    )
    assert found == {"base": "https://outer.example/", "client": "203.0.113.9"}


def test_nonsense_of_a_proxy_is_left_aside(open_door: OpenDoor, token: dict[str, str]) -> None:
    for kind, said in (
        ("forwarded", {"forwarded": "for=unknown;proto=gopher;host=a/b"}),
        ("forwarded", {"forwarded": ";;;,,,=="}),
        ("x-forwarded", {"x_forwarded_for": "x" * 5000, "x_forwarded_host": "a b"}),
    ):
        door = open_door(trusted_proxies=("127.0.0.1",), proxy_headers=kind)
        assert base(door, token, **said)["base"] == "http://pacs.example/"


def test_public_url_goes_before_everything(open_door: OpenDoor, token: dict[str, str]) -> None:
    door = open_door(public_url="https://pacs.public.example:8443")
    assert base(door, token)["base"] == "https://pacs.public.example:8443/"


@pytest.mark.parametrize(
    "host", ["evil.example/path", "a b", 'a"b', "x@y", "", "a:b", "ä".encode()]
)
def test_strange_host_is_refused(door: Visitor, token: dict[str, str], host: str) -> None:
    answer = door.get("/dicom-web/links", headers={**token, "host": host})
    assert answer.status_code == 400


# Menu


def test_menu_shows_what_one_may_open(door: Visitor) -> None:
    text = door.sign_in("rob").get("/hall").text
    assert 'href="/hall" aria-current="page"' in text
    assert "/office" not in text
    assert "/office" in door.sign_in("ada").get("/hall").text


def test_start_page_is_where_ones_work_is(door: Visitor) -> None:
    """An auditor may see the office, which stands before the book in the menu."""
    assert door.sign_in("tom").get("/").headers["location"] == "/book"


def test_who_may_open_no_start_page_begins_with_the_menu(door: Visitor) -> None:
    assert door.sign_in("rob").get("/").headers["location"] == "/hall"


def test_answer_that_breaks_off_is_never_taken_for_whole(access: Access) -> None:
    """Once bytes are on their way an error can only cut the connection."""
    from pacsteward.web.journal import Journal

    async def breaks(_scope: object, _receive: object, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise OSError("disk gone")

    sent: list[dict[str, object]] = []

    async def keep(message: dict[str, object]) -> None:
        sent.append(message)

    async def nothing() -> AsyncIterator[None]:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    asyncio.run(Journal(breaks)(scope, nothing, keep))  # type: ignore[arg-type]
    assert sent[-1]["more_body"] is True
