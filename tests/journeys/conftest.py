"""Fixtures of the journeys: a running product, filled or empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.peers import dcmtk
from tests.support.product import Product
from tests.support.samples import study_files


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """A running product with nothing in it."""
    running = Product(tmp_path / "archive").start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def api(product: Product) -> Iterator[httpx.Client]:
    """Give an administrator's client of the product that a module has for all its tests."""
    with product.client() as client:
        yield client


@pytest.fixture(scope="package")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, list[Path]]]:
    """A running product that holds four pretend studies (CT, CR, MR, US), and their files.

    Shared by all tests that only read.
    """
    root = tmp_path_factory.mktemp("hospital")
    files = study_files(root / "files")
    running = Product(root / "archive").start()
    sent = dcmtk(
        "storescu",
        "-aet",
        "CT1",
        "+sd",
        "+r",
        "127.0.0.1",
        str(running.dimse_port),
        str(root / "files"),
    )
    assert sent.returncode == 0, sent.stderr
    yield running, files
    running.stop()
