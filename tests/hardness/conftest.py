"""The product that all attacks share; what one leaves behind is there for the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hardness.target import Target
from tests.support.product import Product
from tests.support.samples import part10, small


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Give a running product that has done a little of everything."""
    root = tmp_path_factory.mktemp("hardness")
    outside = root / "outside"
    for name in ("home", "tmp"):
        (outside / name).mkdir(parents=True)
    places = {"HOME": str(outside / "home"), "TMPDIR": str(outside / "tmp")}
    running = Target(Product(root / "archive", places).start(), outside)
    _warm_up(running)
    yield running
    for client in (*running.clients.values(), running.stranger):
        client.close()
    running.product.stop()


def _warm_up(target: Target) -> None:
    """Load what is loaded late, so that it does not count as growth."""
    stored = target.client().post(
        "/dicom-web/studies",
        content=part10(small(1)),
        headers={"content-type": "application/dicom"},
    )
    assert stored.status_code == 200, stored.text
    for path in ("instances/2.25.99.1.1.1/rendered", "instances/2.25.99.1.1.1"):
        answer = target.client().get(f"/dicom-web/studies/2.25.99.1/series/2.25.99.1.1/{path}")
        assert answer.status_code == 200, answer.text
    assert target.client().get("/studies").status_code == 200
    target.echo_s()
