"""R12 on the HTTP door: nonsense is answered with a reason, and nothing breaks."""

# One case a line, as it goes over the wire.
# ruff: noqa: E501

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from tests.hardness.http_wire import PATIENCE_S, Heard, request, say
from tests.hardness.target import Target, at_once
from tests.support.samples import part10, small

AT = "/dicom-web/studies/2.25.99.1/series/2.25.99.1.1/instances/2.25.99.1.1.1"
WADO = "/wado?requestType=WADO&studyUID=2.25.99.1&seriesUID=2.25.99.1.1&objectUID=2.25.99.1.1.1"
NONSENSE = (
    "", "0", "-1", "1.5", "NaN", "inf", "1e9", "99999999999999999999", "0x10", "१", "1,,2", ",",
    "1;2", "null", "true", "../..", "%00", "%0d%0ax-a:%20b", "'\"--", "<script>", "A" * 3000, "%ff",
    "1%201", "+1", "[]", "{}", "1\\2", "*", "%u202e",
)  # fmt: skip
BAD_UIDS = (
    "0x1", "abc", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "1.2%00", "9" * 65, "1." * 300, "*",
    "1.2%0d%0a", "%ff%fe", "<script>", "1.2,1.3", "-1", "1%2f2", ".", "1.2.%F0%9F%98%80", "%20",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One request, as bytes after the token is known."""

    name: str
    make: Callable[[str], bytes]
    is_whole: bool = True
    may_succeed: bool = True
    """Whether a 2xx is right, too: the nonsense may be of a kind that has a meaning."""
    patience_s: float = PATIENCE_S
    """Longer for what is a lot of work."""


def get(path: str, *headers: str, may_succeed: bool = True, method: str = "GET") -> Case:
    name = f"{method} {path[:150]} {' '.join(headers)[:100]}"
    return Case(name, lambda token: request(method, path, token, *headers), may_succeed=may_succeed)


def post(
    path: str,
    body: bytes,
    *headers: str,
    name: str = "",
    length: int | str | None = None,
    is_whole: bool = True,
    may_succeed: bool = False,
    patience_s: float = PATIENCE_S,
) -> Case:
    return Case(
        f"POST {path} {name or body[:60]!r} {' '.join(headers)[:100]}",
        lambda token: request("POST", path, token, *headers, body=body, length=length),
        is_whole,
        may_succeed,
        patience_s,
    )


def paths() -> Iterator[Case]:
    """Addresses with UIDs that are none, and parts that do not exist."""
    for bad in BAD_UIDS:
        yield get(f"/dicom-web/studies/{bad}")
        yield get(f"/dicom-web/studies/{bad}/series")
        yield get(f"/dicom-web/studies/{bad}/metadata", may_succeed=False)
        yield get(f"/dicom-web/studies/2.25.99.1/series/{bad}/instances")
        yield get(f"{AT[:-13]}{bad}/rendered", may_succeed=False)
        yield get(f"/dicom-web/studies?StudyInstanceUID={bad}")
        yield get(f"/studies/{bad}", may_succeed=False)
        yield get(f"/wado?requestType=WADO&studyUID={bad}&seriesUID={bad}&objectUID={bad}")
        yield post(f"/dicom-web/studies/{bad}", part10(small(1)), "Content-Type: application/dicom")
    for frames in NONSENSE:
        yield get(f"{AT}/frames/{quote(frames, safe='%,')}", may_succeed=False)
        yield get(f"{AT}/frames/{quote(frames, safe='%,')}/rendered", may_succeed=False)
        yield get(f"{AT}/bulkdata/{quote(frames, safe='%,')}", may_succeed=False)
    for path in (
        "/",
        "//",
        "/%2e%2e/etc/passwd",
        "/static/../../../etc/passwd",
        "/static/%2e%2e/x",
    ):
        yield get(path)
    for path in ("/static/..%2f..%2fapp.py", "/viewer/../../x", "/viewer/%2e%2e%2f%2e%2e%2fx"):
        yield get(path)
    for path in ("/" + "a" * 20_000, "/%", "/%zz", "/\xff", "/a b", "*", "http://other/x", ""):
        yield get(path)
    for method in (
        "PUT",
        "DELETE",
        "TRACE",
        "CONNECT",
        "OPTIONS",
        "PATCH",
        "FOO",
        "G\0T",
        "A" * 99,
    ):
        yield get("/dicom-web/studies", method=method)
        yield get("/api/v1/peers", method=method)


def parameters() -> Iterator[Case]:
    """Query parameters of searches and pictures."""
    for value in NONSENSE:
        for name in ("limit", "offset", "includefield", "orderby", "fuzzymatching", "StudyDate"):
            yield get(f"/dicom-web/studies?{name}={quote(value, safe='%')}")
        for name in ("00100010", "PatientID", "NumberOfStudyRelatedSeries", "ModalitiesInStudy"):
            yield get(f"/dicom-web/instances?limit=9&{name}={quote(value, safe='%')}")
        yield get(f"/dicom-web/studies?{quote(value, safe='%')}=1")
        for name in ("viewport", "window", "quality", "iccprofile", "annotation", "accept"):
            yield get(f"{AT}/rendered?{name}={quote(value, safe='%,')}")
        for name in ("rows", "windowCenter", "frameNumber", "contentType", "transferSyntax"):
            yield get(f"{WADO}&{name}={quote(value, safe='%')}")
        yield get(f"/studies?limit={quote(value, safe='%')}&page={quote(value, safe='%')}")
        yield get(f"/studies?q={quote(value, safe='%')}")
        yield get(f"/audit?page={quote(value, safe='%')}")
        yield get(f"/api/v1/audit?limit={quote(value, safe='%')}")
    for port in ("0,0", "-1,5", "99999,99999", "1e9,1e9", "10,10,0,0,0,0", "5,5,9,9,9,9", "1,2,3"):
        yield get(f"{AT}/rendered?viewport={port}")
        yield get(f"{AT}/thumbnail?viewport={port}")
    for window in (
        "0,0,linear",
        "1,0,linear",
        "nan,inf,linear",
        "1,2,wrong",
        "1",
        "1e308,1e-308,sigmoid",
    ):
        yield get(f"{AT}/rendered?window={window}")
    yield get("/dicom-web/studies?" + "&".join(["PatientID=x"] * 2000))
    yield get(
        "/dicom-web/studies?" + "&".join(f"{n:08X}=x" for n in range(0x100010, 0x100010 + 500))
    )
    yield get("/dicom-web/studies?" + ".".join(["00400275"] * 50) + "=1")
    yield get("/dicom-web/studies?PatientName=" + "*a" * 500)
    yield get("/dicom-web/studies?StudyInstanceUID=" + ",".join(["1.2.3"] * 2000))


def headers() -> Iterator[Case]:
    """Headers that are broken, too many or too long."""
    accepts = (
        "", ";", "*", "*/*;q=9", "*/*;q=nan", "text", "application/dicom+json;q=0", "a/b/c",
        'multipart/related; type="', 'multipart/related; type="application/dicom', ",,,,", "/",
        "multipart/related; type=text/html", "application/dicom; transfer-syntax=1.2.3.999",
        "application/dicom; transfer-syntax=*;;;=", "image/jpeg;" * 500, "*/*," * 3000, "\xff/\xff",
        'multipart/related; type="application/octet-stream"; transfer-syntax=../../x',
        "application/dicom; charset=utf-99", "image/svg+xml", "text/html",
    )  # fmt: skip
    for accept in accepts:
        for path in (
            "/dicom-web/studies",
            AT,
            f"{AT}/metadata",
            f"{AT}/rendered",
            f"{AT}/frames/1",
        ):
            yield get(path, f"Accept: {accept}")
    for value in (
        "bytes=",
        "bytes=-",
        "bytes=9-1",
        "bytes=0-0,1-1," * 300,
        "x=1",
        "bytes=0-" + "9" * 30,
    ):
        yield get(AT, f"Range: {value}", "Accept: application/dicom")
        yield get(f"{AT}/frames/1", f"Range: {value}")
    for tag in ('"', "*", "W/", '""' * 500, "\xff"):
        yield get(f"{AT}/metadata", f"If-None-Match: {tag}")
        yield get("/static/console.css", f"If-Modified-Since: {tag}")
    for count in (99, 101, 500, 5000):
        yield get("/dicom-web/studies", *(f"X-{n}: {n}" for n in range(count)))
    for size in (8_000, 70_000, 300_000):
        yield get("/dicom-web/studies", "X-Long: " + "a" * size, may_succeed=size < 60_000)
        yield get(
            "/dicom-web/studies", "Cookie: " + "a=b; " * (size // 5), may_succeed=size < 60_000
        )
    for line in (
        "No colon",
        ": x",
        "A\0B: x",
        "X: a\0b",
        "X : a",
        " folded: x",
        "X:\x01\x02",
        "\xe4: x",
    ):
        yield get("/dicom-web/studies", line)
    for host in (
        "",
        "a b",
        "evil.example/x",
        "x:99999999",
        "x\r\nHost: y",
        "[::1",
        "<script>",
        "a,b",
    ):
        yield Case(
            f"Host {host!r}",
            lambda token, host=host: (  # type: ignore[misc]
                f"GET /dicom-web/studies HTTP/1.1\r\nHost: {host}\r\n"
                f"Authorization: Bearer {token}\r\n\r\n"
            ).encode(),
        )
    for words in (
        "Bearer",
        "Bearer ",
        "Bearer " + "x" * 9000,
        "Basic ===",
        "Basic YTo=",
        "Digest x",
        "\xff",
    ):
        yield Case(
            f"Authorization {words[:20]!r}",
            lambda _token, words=words: (  # type: ignore[misc]
                f"GET /dicom-web/studies HTTP/1.1\r\nHost: x\r\nAuthorization: {words}\r\n\r\n"
            ).encode("latin-1"),
            may_succeed=False,
        )
    for cookie in (
        "pacsteward_session=",
        "pacsteward_session=\xff",
        "pacsteward_notice=%%%",
        "a=" * 900,
    ):
        yield get("/login", f"Cookie: {cookie}")
        yield get("/login", "Cookie: pacsteward_notice=WyJnb29kIiwgMV0=")
    for forwarded in ("for=evil;host=evil", "\xff", "for=" * 2000):
        yield get("/dicom-web/studies", f"Forwarded: {forwarded}", f"X-Forwarded-For: {forwarded}")


def framing() -> Iterator[Case]:
    """Messages whose length is in doubt, as in request smuggling, and no HTTP at all."""
    get_ok = "GET /dicom-web/studies HTTP/1.1\r\nHost: x\r\n"
    shapes = {
        "two lengths": "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "length and chunked": "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        "chunked twice": "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "xchunked": "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "chunked with tab": "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tchunked\r\n\r\nzz\r\n",
        "bad chunk": "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n",
        "negative chunk": "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
        "huge chunk": "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n",
        "negative length": "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nabcde",
        "length in words": "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\nabcde",
        "length with plus": "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
        "length of 10^15": "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000000\r\n\r\nabcde",
        "length of 10^30": f"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1{'0' * 30}\r\n\r\nabcde",
        "two hosts": get_ok + "Host: y\r\n\r\n",
        "no host": "GET /healthz HTTP/1.1\r\n\r\n",
        "HTTP/1.0": "GET /healthz HTTP/1.0\r\n\r\n",
        "HTTP/0.9": "GET /healthz\r\n\r\n",
        "HTTP/2.0": "GET /healthz HTTP/2.0\r\n\r\n",
        "HTTP/9.9": "GET /healthz HTTP/9.9\r\n\r\n",
        "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0" * 40,
        "bare newlines": "GET /healthz HTTP/1.1\nHost: x\n\n",
        "bare returns": "GET /healthz HTTP/1.1\rHost: x\r\r",
        "folded header": get_ok + "X-A: b\r\n c\r\n\r\n",
        "header before request": "Host: x\r\n\r\n",
        "space before colon": get_ok + "Content-Length : 5\r\n\r\n",
        "upgrade": get_ok + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
        "upgrade to HTTP/2": get_ok + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
        "expect": "POST /login HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n",
        "TLS": "\x16\x03\x01\x02\x00\x01\x00" + "\0" * 200,
        "DICOM": "\x01\x00\x00\x00\x00\x44" + "\0" * 68,
        "nothing": "\r\n\r\n\r\n\r\n",
        "many requests": (get_ok + "\r\n") * 500,
    }  # fmt: skip
    for name, text in shapes.items():
        raw = text.encode("latin-1")
        yield Case(name, lambda _token, raw=raw: raw, is_whole=False)  # type: ignore[misc]
    for seed in range(60):
        dice = random.Random(seed)
        raw = bytearray(request("GET", "/dicom-web/studies?limit=1", "x" * 20, "Accept: */*"))
        for _ in range(dice.randint(1, 5)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        yield Case(f"flips {seed}", lambda _token, raw=bytes(raw): raw, is_whole=False)  # type: ignore[misc]
    for seed in range(20):
        raw_noise = random.Random(seed).randbytes(300)
        yield Case(f"noise {seed}", lambda _token, raw=raw_noise: raw, is_whole=False)  # type: ignore[misc]


def bodies() -> Iterator[Case]:
    """Bodies of STOW-RS and the API that are no such thing."""
    stow, related = "/dicom-web/studies", "Content-Type: multipart/related; type=application/dicom"
    file = part10(small(96))

    def part(content: bytes, head: bytes = b"Content-Type: application/dicom") -> bytes:
        return b"--B\r\n" + head + b"\r\n\r\n" + content + b"\r\n"

    good = f"{related}; boundary=B"
    yield post(stow, part(file) + b"--B--", related, name="no boundary")
    for boundary in ("", '""', "B" * 200, "\xff", "C", "B\0", '"B', "--B--"):
        yield post(stow, part(file) + b"--B--", f"{related}; boundary={boundary}", name=boundary)
    yield post(stow, b"", good, name="empty", length=0)
    yield post(stow, b"--B--", good, name="no parts")
    yield post(stow, part(file), good, name="no end", may_succeed=True)
    yield post(stow, part(file)[:-40], good, name="cut")
    yield post(stow, part(b""), good, name="empty part")
    yield post(
        stow, part(file) + b"--B--", good, name="length too large", length=10**6, is_whole=False
    )
    yield post(stow, part(file) + b"--B--", good, name="10^15", length=10**15, is_whole=False)
    yield post(stow, part(b"x") * 10_001 + b"--B--", good, name="10,001 parts", patience_s=20)
    yield post(stow, part(b"x", b"X: " + b"a" * 70_000) + b"--B--", good, name="long part head")
    yield post(stow, part(b"x", b"X: a\r\n" * 3000) + b"--B--", good, name="many part headers")
    yield post(stow, part(b"x", b"nonsense") + b"--B--", good, name="part head without colon")
    yield post(stow, b"--B\r\n" + b"a" * 100_000, good, name="part head without end")
    yield post(stow, part(b"<a/>", b"Content-Type: text/xml") + b"--B--", good, name="XML part")
    yield post(stow, part(b"x", b"Content-Type: \xff;;=") + b"--B--", good, name="part type")
    yield post(stow, b"\r\n" * 50_000, good, name="preamble without end")
    yield post(stow, b"--B" * 30_000, good, name="boundaries only")
    yield post(stow, part(b"--B\r\n" * 1000) + b"--B--", good, name="boundaries inside")
    yield post(stow, part(file * 3) + b"--B--", good, name="three in one", may_succeed=True)
    for kind in (
        "text/html",
        "application/json",
        "application/dicom+json",
        "",
        "x",
        "image/jpeg",
        "\xff",
    ):
        yield post(stow, file, f"Content-Type: {kind}", name=kind)
    for content in (
        b"",
        b"x",
        bytes(200),
        b"MZ" * 500,
        bytes(128) + b"DICM",
        file[:200],
        file[:-1],
    ):
        yield post(
            stow, content, "Content-Type: application/dicom", length=len(content), may_succeed=True
        )
    for encoding in ("gzip", "deflate", "br", "identity", "chunked"):
        yield post(
            stow, file, "Content-Type: application/dicom", f"Content-Encoding: {encoding}",
            name=encoding, may_succeed=True,
        )  # fmt: skip
    api, as_json = "/api/v1/peers", "Content-Type: application/json"
    texts = (
        b"", b"{", b"[", b"null", b"[]", b'"x"', b"{}", b"\xff\xfe", b"NaN", b'{"a":1}' * 99, b"\0",
        b"[" * 50_000, b'{"a":' * 50_000, b'{"ae_title":' + b"9" * 50_000 + b"}", b"1e999",
        b'{"ae_title":"A\\u0000B","host":"x","port":1}', b'{"ae_title":"\\ud800","host":"x","port":1}',
        b'{"ae_title":"' + b"A" * 5000 + b'","host":"x","port":1}',
        b'{"ae_title":"X1","host":"x\\r\\ny","port":104}', b'{"ae_title":"X2","host":"x","port":-1}',
        b'{"ae_title":"X3","host":"x","port":1e400}', b'{"ae_title":"X4","host":[],"port":{}}',
        b'{"ae_title":"X5","host":"x","port":104,"__class__":"x"}',
    )  # fmt: skip
    for body in texts:
        yield post(api, body, as_json, length=len(body), may_succeed=True)
        yield post("/api/v1/tokens", body, as_json, length=len(body), may_succeed=True)
        yield post("/api/v1/people", body, as_json, length=len(body), may_succeed=True)
    yield post(api, b"[" * (9 * 1024**2), as_json, name="9 MiB")
    yield post(api, b"{}", as_json, name="12 MiB promised", length=12 * 1024**2, is_whole=False)
    for body in (
        b"a=b&" * 5000,
        b"username=" + b"a" * 100_000,
        b"\xff" * 500,
        b"%" * 500,
        b"=&=&" * 900,
    ):
        form = "Content-Type: application/x-www-form-urlencoded"
        # Two passwords are looked at at a time, and guessing is slowed on purpose.
        yield post("/login", body, form, may_succeed=True, patience_s=20)
        yield post("/peers/new", body, form, may_succeed=True)
        multi = "Content-Type: multipart/form-data; boundary=B"
        yield post("/login", body, multi, may_succeed=True, patience_s=20)
        named = b'--B\r\nContent-Disposition: form-data; name="username"; filename="../x"\r\n\r\n'
        whole = named + body + b"\r\n--B--"
        yield post("/login", whole, multi, may_succeed=True, patience_s=20)


ALL = (paths, parameters, headers, framing, bodies)


def wrong(case: Case, heard: Heard) -> str:
    """Say what is wrong with an answer; "" when nothing is."""
    if heard.status < 0:
        return f"{case.name}: nothing for {heard.seconds:.1f} s"
    if heard.status >= 500 and heard.status not in (501, 503, 505):
        return f"{case.name}: {heard.status} {heard.body[:300]!r}"
    if 200 <= heard.status < 300 and not case.may_succeed:
        return f"{case.name}: {heard.status}"
    if "\r\nx-a:" in heard.head or "\r\nx-injected" in heard.head:
        return f"{case.name}: injected {heard.head}"
    if heard.status >= 400 and "application/problem+json" in heard.head:
        problem = json.loads(heard.body)
        if problem["status"] != heard.status or not problem["title"]:
            return f"{case.name}: {problem}"
    if b"Traceback" in heard.body:
        return f"{case.name}: a traceback"
    return ""


@pytest.mark.parametrize("cases", ALL, ids=lambda cases: cases.__name__)
def test_r12_http_nonsense_is_answered_or_cut(
    target: Target, cases: Callable[[], Iterator[Case]]
) -> None:
    token = target.token()
    port = target.product.http_port

    def ask(case: Case) -> str:
        raw = case.make(token)
        return wrong(case, say(port, raw, is_whole=case.is_whole, patience_s=case.patience_s))

    with target.unharmed():
        found = [fault for fault in at_once(ask, cases()) if fault]
        assert not found, "\n".join(found)
        assert target.client().get("/dicom-web/studies").status_code == 200


def test_errors_of_programs_are_problem_documents(target: Target) -> None:
    client = target.client()
    for path in ("/dicom-web/studies?limit=x", f"{AT}/frames/0", "/api/v1/nothing", "/dicom-web/x"):
        answer = client.get(path)
        assert 400 <= answer.status_code < 500, path
        assert answer.headers["content-type"] == "application/problem+json", path


def test_a_request_of_http_1_1_names_its_host(target: Target) -> None:
    """RFC 9112 3.2."""
    port = target.product.http_port
    assert say(port, b"GET /healthz HTTP/1.1\r\n\r\n").status == 400
    assert say(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status == 400
    assert say(port, b"GET /healthz HTTP/1.0\r\n\r\n").status == 200


def test_a_smuggled_request_is_never_answered(target: Target) -> None:
    """What a proxy takes for a body must not become a second request here."""
    inner = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    outer = (
        b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: %d\r\n\r\n0\r\n\r\n" % (len(inner) + 5)
    )
    heard = say(target.product.http_port, outer + inner, is_whole=False)
    assert heard.status in (0, 400)
    assert b"HTTP/1.1 200" not in heard.body


def test_r12_there_are_enough_requests() -> None:
    assert sum(len(list(cases())) for cases in ALL) >= 800
