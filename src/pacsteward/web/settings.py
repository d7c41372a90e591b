"""Settings of the HTTP door."""

from __future__ import annotations

import ipaddress
import os
from typing import ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from pacsteward.base.settings import Section

_PROCESSES_MAX: Final = 2
"""As many as are begun unasked: the other cores are for what comes in."""


ProxyHeaders = Literal["x-forwarded", "forwarded"]
"""In which of the two ways a proxy tells where a request comes from."""


class WebSettings(Section):
    """How the HTTP door looks from outside."""

    section: ClassVar[str] = "web"

    processes: int = Field(
        0,
        ge=0,
        le=16,
        description=(
            "Processes that answer HTTP side by side; 0 takes two where the machine has two cores "
            "or more, else one. Processes."
        ),
    )
    public_url: str = Field(
        "",
        description=(
            "Address that users and viewers reach us at, e.g. https://pacs.example; links in "
            "answers begin with it. Empty takes it from each request. A URL."
        ),
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description=(
            "Addresses or networks of reverse proxies whose headers are believed; "
            "`web.proxy_headers` says which. Nobody's are, when it is empty. A list of addresses."
        ),
    )
    proxy_headers: ProxyHeaders = Field(
        "x-forwarded",
        description=(
            "What the trusted proxies write: `x-forwarded` for X-Forwarded-For, -Proto and "
            "-Host, `forwarded` for the one of RFC 7239. The other kind is not looked at, since a "
            "proxy passes on what the caller wrote there. A word."
        ),
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description=(
            "Origins of web pages elsewhere that may use DICOMweb and the API with a token, e.g. "
            "https://viewer.example. A list of URLs."
        ),
    )
    body_max_bytes: int = Field(
        8 * 1024 * 1024,
        ge=1024,
        description="Largest request body; storing studies is not limited by it. Bytes.",
    )
    headers_max: int = Field(
        100, ge=20, le=10_000, description="Header lines that a request may have. Lines."
    )
    header_block_bytes_max: int = Field(
        64 * 1024,
        ge=1024,
        le=64 * 1024,
        description="Names and values of a request's header lines together. Bytes.",
    )
    json_depth_max: int = Field(
        64,
        ge=8,
        le=500,
        description="Arrays and objects within each other that a JSON body may have. Levels.",
    )
    request_stall_s: float = Field(
        30.0,
        gt=0,
        description="A request that sends nothing for this long is given up. Seconds.",
    )

    @property
    def process_count(self) -> int:
        """How many processes answer HTTP here."""
        return self.processes or min(_PROCESSES_MAX, len(os.sched_getaffinity(0)))

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            ipaddress.ip_network(value, strict=False)
        return values

    @field_validator("public_url")
    @classmethod
    def _is_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (
            parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/")
        ):
            raise ValueError("must be like https://pacs.example, without a path")
        return value.rstrip("/")

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
                raise ValueError("must be like https://viewer.example, without a path")
        return values
