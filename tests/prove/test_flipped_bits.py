"""R11, the short form."""

from __future__ import annotations

import pytest
from prove.flipped_bits import flip
from prove.promise import Scale

from tests.support.product import Product

pytestmark = pytest.mark.timeout(300)


def test_r11_flipped_bits_are_all_found_and_never_served(product: Product, scale: Scale) -> None:
    outcome = flip(product, scale, 100, 8)
    assert outcome.passed, outcome.details
