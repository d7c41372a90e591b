"""R9 and R10, the short forms."""

from __future__ import annotations

import pytest
from prove.promise import Scale
from prove.same_uids import dispute_uids, share_study

from tests.support.product import Product

pytestmark = pytest.mark.timeout(300)


def test_r9_counts_are_exact_when_eight_senders_share_a_study(
    product: Product, scale: Scale
) -> None:
    outcome = share_study(product, scale)
    assert outcome.passed, outcome.details


def test_r10_success_is_never_said_of_a_content_that_is_not_kept(
    product: Product, scale: Scale
) -> None:
    outcome = dispute_uids(product, scale, 5)
    assert outcome.passed, outcome.details
