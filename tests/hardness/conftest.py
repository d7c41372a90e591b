"""The product that all attacks share; what one leaves behind is there for the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hardness.target import Target, under_attack


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Give a running product that has done a little of everything."""
    with under_attack(tmp_path_factory.mktemp("hardness")) as running:
        yield running
