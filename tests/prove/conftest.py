"""One product for all short forms that only add to it, and how much they do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prove.images import running
from prove.promise import Scale

from tests.support.product import Product


@pytest.fixture(scope="package")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Give a running product that other proofs use, too, each for studies of its own."""
    with running(tmp_path_factory.mktemp("prove")) as product:
        yield product


@pytest.fixture
def scale(tmp_path: Path) -> Scale:
    """Give the short form's scale."""
    return Scale(is_quick=True, folder=tmp_path, seed=1, say=print)
