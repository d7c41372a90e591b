"""Where a request comes from and what address it was sent to, also behind a reverse proxy.

Links in answers (RetrieveURL, BulkDataURI) are absolute, so they must bear the address that the
client used. It is the Host header; behind a proxy that the settings trust, what the proxy says in
X-Forwarded-*, or else in Forwarded; or always the public URL of the settings, where one is given.
Nobody else's word is taken, since whoever may choose these texts may also choose where a viewer
sends its next request, and under which address he himself appears in the audit.

Of the two kinds of headers only that one is read which the settings name. A proxy that writes one
kind passes the other on as the caller wrote it (nginx and HAProxy do), so whoever looked at both
would believe the caller.

After this layer ``scope["scheme"]``, the ``host`` header and ``scope["client"]`` are true, so
`request.base_url` and `request.client.host` are too.

References
----------
RFC 7239 — Forwarded; RFC 9110 7.2 — Host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from pacsteward.web import problem
from pacsteward.web.settings import ProxyHeaders

_HOST = re.compile(rb"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))\s*')


@dataclass(frozen=True, slots=True)
class _Said:
    """What a proxy says of the request that it passes on."""

    client: str = ""
    scheme: str = ""
    host: str = ""


class Origin:
    """ASGI middleware; the parameters are those of `OriginFinder`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        public_url: str = "",
        trusted_proxies: Iterable[str] = (),
        proxy_headers: ProxyHeaders = "x-forwarded",
    ) -> None:
        self._app = app
        self._finder = OriginFinder(
            public_url=public_url, trusted_proxies=trusted_proxies, proxy_headers=proxy_headers
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Settle where the request comes from and went to, and pass it on."""
        if scope["type"] != "http" or self._finder.settle(scope):
            await self._app(scope, receive, send)
            return
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"host"]
        response = problem.document(
            Request(scope), 400, "The Host header names no host.", remedy="Correct the address."
        )
        await response(scope, receive, send)


class OriginFinder:
    """Finds out where a request comes from and went to.

    Parameters
    ----------
    public_url
        Scheme and host to use always; "" takes them from the request.
    trusted_proxies
        Addresses and networks of proxies that are believed.
    proxy_headers
        The kind of headers that they write; the other kind is left aside.
    """

    def __init__(
        self,
        *,
        public_url: str = "",
        trusted_proxies: Iterable[str] = (),
        proxy_headers: ProxyHeaders = "x-forwarded",
    ) -> None:
        parts = urlsplit(public_url)
        self._public = _Said(scheme=parts.scheme, host=parts.netloc)
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in trusted_proxies]
        self._hops = _forwarded_hops if proxy_headers == "forwarded" else _x_forwarded_hops

    def settle(self, scope: Scope) -> bool:
        """Correct a request's client, scheme and host; whether the last one names a host."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        said = self._said_by_proxies(scope, headers) if self._trusted else _Said()
        if said.client:
            scope["client"] = (said.client, 0)
        scheme = self._public.scheme or said.scheme
        if scheme:
            scope["scheme"] = scheme
        host = self._public.host or said.host
        if host:
            kept = [(name, value) for name, value in headers if name != b"host"]
            scope["headers"] = headers = [*kept, (b"host", host.encode("latin-1"))]
        hosts = [value for name, value in headers if name == b"host"]
        # RFC 9112 3.2: in HTTP/1.1 there is one, and one only.
        needed = scope.get("http_version", "1.1") == "1.1"
        if len(hosts) == 1:
            return _HOST.fullmatch(hosts[0]) is not None
        return not hosts and not needed

    def _said_by_proxies(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> _Said:
        """Walk from the nearest proxy outwards, as far as each one is trusted."""
        client = scope["client"][0] if scope.get("client") else ""
        if not self._is_trusted(client):
            return _Said()
        found = _Said()
        for hop in reversed(self._hops(headers)):
            # The last word of scheme and host is that of the outermost trusted proxy.
            found = _Said(
                hop.client or found.client, hop.scheme or found.scheme, hop.host or found.host
            )
            if not self._is_trusted(hop.client):
                break
        return found

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def _forwarded_hops(headers: list[tuple[bytes, bytes]]) -> list[_Said]:
    """Return what each proxy on the way has added, the farthest first."""
    forwarded = _joined(headers, b"forwarded")
    return [_forwarded_hop(element) for element in forwarded.split(",")] if forwarded else []


def _x_forwarded_hops(headers: list[tuple[bytes, bytes]]) -> list[_Said]:
    """Return the same of proxies that do not know RFC 7239, as most do not."""
    clients = _listed(headers, b"x-forwarded-for")
    schemes = _listed(headers, b"x-forwarded-proto")
    hosts = _listed(headers, b"x-forwarded-host")
    count = max(len(clients), len(schemes), len(hosts), 0)
    # Proxies mostly append to X-Forwarded-For only and set the others once: the lists end at the
    # same proxy, the nearest.
    clients, schemes, hosts = (
        [""] * (count - len(texts)) + texts for texts in (clients, schemes, hosts)
    )
    return [
        _Said(_client(client), _scheme(scheme), _host(host))
        for client, scheme, host in zip(clients, schemes, hosts, strict=True)
    ]


def _forwarded_hop(element: str) -> _Said:
    values = {
        match[1].lower(): match[2] if match[2] is not None else match[3]
        for match in (_PAIR.fullmatch(pair) for pair in element.split(";"))
        if match
    }
    return _Said(
        _client(values.get("for", "")),
        _scheme(values.get("proto", "")),
        _host(values.get("host", "")),
    )


def _joined(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in headers if key == name)


def _listed(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    joined = _joined(headers, name)
    return [part.strip() for part in joined.split(",")] if joined else []


def _client(text: str) -> str:
    """Return the address alone; proxies may add a port, and brackets for IPv6 (RFC 7239 6)."""
    text = text.strip()
    for candidate in (text, text.strip("[]"), text.rpartition(":")[0].strip("[]")):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return ""


def _scheme(text: str) -> str:
    return text.lower() if text.lower() in ("http", "https") else ""


def _host(text: str) -> str:
    return text if _HOST.fullmatch(text.encode("latin-1", "replace")) else ""
