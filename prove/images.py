"""What the proofs share: a product, and images of which each has pixels that no other one has."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.hardness.target import at_once
from tests.support.product import Product
from tests.support.scu import store_bytes

from pacsteward.archive.fixtures.sender import CT, EXPLICIT, data_set

SENDERS = 4


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Product]:
    """Give a running product with a new archive; ``settings`` are variables of its environment."""
    product = Product(folder / "archive", settings).start()
    try:
        yield product
    finally:
        product.stop()


_TOKENS: dict[Path, str] = {}


def client_of(product: Product) -> httpx.Client:
    """Return an HTTP client; a token is asked for once, since a command takes its time."""
    token = _TOKENS.get(product.data) or product.token()
    _TOKENS[product.data] = token
    return httpx.Client(
        base_url=product.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
    )


@dataclass(frozen=True, slots=True)
class Image:
    """One object as it is sent.

    Parameters
    ----------
    mark
        The first bytes of its pixels, which are nowhere else.
    """

    uid: str
    study: str
    series: str
    data: bytes
    mark: bytes

    @property
    def at(self) -> str:
        """Where DICOMweb has it."""
        return f"/dicom-web/studies/{self.study}/series/{self.series}/instances/{self.uid}"


def image(
    study: str, series: int, number: int, *, rows: int = 64, frames: int = 1, version: int = 0
) -> Image:
    """Make an image of 16 bits a pixel; another ``version`` has other pixels."""
    series_uid = f"{study}.{series}"
    uid = f"{series_uid}.{number}"
    mark = hashlib.sha256(f"{uid}/{version}".encode()).digest()
    size = rows * rows * 2 * frames
    word = struct.Struct("<H").pack
    data = data_set(
        uid,
        study=study,
        series=series_uid,
        number=number,
        pixels=(mark * (size // len(mark) + 1))[:size],
        patient_id=f"PROOF-{study}",
        t00280002=("US", word(1)),
        t00280004=("CS", "MONOCHROME2"),
        t00280008=("IS", str(frames)),
        t00280010=("US", word(rows)),
        t00280011=("US", word(rows)),
        t00280101=("US", word(16)),
        t00280102=("US", word(15)),
        t00280103=("US", word(0)),
    )
    return Image(uid, study, series_uid, data, mark)


def send(
    product: Product, images: Sequence[Image], *, senders: int = SENDERS
) -> list[tuple[int, str]]:
    """Send images by several associations at once; return statuses and comments in their order."""
    shares = [images[number::senders] for number in range(senders)]

    def share(number: int) -> list[tuple[int, str]]:
        return store_bytes(
            product,
            [(one.uid, one.data) for one in shares[number]],
            sop_class=CT,
            syntax=EXPLICIT,
            calling=f"SENDER{number}",
        )

    answered = at_once(share, range(senders), threads=senders)
    return [answered[place % senders][place // senders] for place in range(len(images))]
