"""A running archive asked over DICOMweb: its clients, and the bodies that go to and fro."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP

import httpx
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import Dataset

from tests.support.product import Product

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
SERVICE = "/dicom-web"
OCTETS = 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'
"""Accepts frames in whatever transfer syntax they are kept."""


@dataclass(frozen=True)
class Site:
    """A running archive, and ways to ask it."""

    product: Product
    http: httpx.Client
    client: DICOMwebClient

    def stow(self, *files: bytes) -> httpx.Response:
        body, headers = related(list(files))
        return self.http.post(f"{SERVICE}/studies", content=body, headers=headers)

    def studies(self, **asked: str) -> list[dict[str, dict[str, list[object]]]]:
        answer = self.http.get(f"{SERVICE}/studies", params=asked)
        return answer.json() if answer.status_code == 200 else []


@contextmanager
def opened_site(product: Product) -> Iterator[Site]:
    """Start a product, and ask it as its administrator until it is stopped."""
    product.start()
    token = product.token()
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=product.url, headers=headers, timeout=60) as http:
            yield Site(product, http, client_of(product, token))
    finally:
        product.stop()


def client_of(product: Product, token: str) -> DICOMwebClient:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    return DICOMwebClient(f"{product.url}{SERVICE}", session=session)


def related(parts: list[bytes], *, boundary: str = "part") -> tuple[bytes, dict[str, str]]:
    """Write a STOW-RS body by hand."""
    body = b"".join(
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n"
        for part in parts
    )
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return body + f"--{boundary}--\r\n".encode(), {"content-type": content_type}


def parts_of(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """Take a multipart answer apart with the standard library's mail parser."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + answer.content)
    boundary = message.get_param("boundary")
    pieces = answer.content.split(f"--{boundary}".encode())[1:-1]
    parts = []
    for piece in pieces:
        lines, _, payload = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))
        assert payload.endswith(b"\r\n")
        parts.append((headers["Content-Type"], payload[:-2]))
    return parts


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def instance_path(data: Dataset) -> str:
    return (
        f"{SERVICE}/studies/{data.StudyInstanceUID}/series/{data.SeriesInstanceUID}"
        f"/instances/{data.SOPInstanceUID}"
    )
