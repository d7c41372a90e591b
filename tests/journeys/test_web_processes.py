"""Several processes answer HTTP as one: what is done in one holds in the others at once."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.product import Product

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Run an archive with two web processes."""
    folder: Path = tmp_path_factory.mktemp("web-processes")
    started = Product(folder / "archive", environment={"PACSTEWARD_WEB__PROCESSES": "2"}).start()
    yield started
    started.stop()


def until(wanted: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def process_of(product: Product, client: httpx.Client) -> int:
    """Return which process is at the other end of the connection that `client` keeps."""
    (ours,) = [
        link.laddr.port
        for link in psutil.Process().net_connections("tcp")
        if link.raddr and link.raddr.port == product.http_port and is_of(client, link.laddr.port)
    ]
    assert product.process is not None
    (pid,) = [
        child.pid
        for child in psutil.Process(product.process.pid).children()
        for link in child.net_connections("tcp")
        if link.raddr and link.raddr.port == ours
    ]
    return pid


def is_of(client: httpx.Client, port: int) -> bool:
    (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
    stream = connection._connection._network_stream
    return bool(stream.get_extra_info("client_addr")[1] == port)


def visitor(product: Product, **headers: str) -> httpx.Client:
    """Return a client with one connection that stays open."""
    client = httpx.Client(
        base_url=product.url, headers=headers, limits=httpx.Limits(max_connections=1), timeout=30
    )
    assert client.get("/healthz").status_code == 200
    return client


@contextmanager
def pair(product: Product) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Give two clients, each with a process of its own; the second one begins when it must."""
    deadline = time.monotonic() + 60
    while True:
        with closing(visitor(product)) as first, closing(visitor(product)) as second:
            if process_of(product, first) != process_of(product, second):
                yield first, second
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_session_and_token_are_one_for_all_processes(product: Product) -> None:
    with pair(product) as (here, there):
        form = {"username": "admin", "password": product.password()}
        assert here.post("/login", data=form).status_code == 303
        cookie = {"Cookie": f"pacsteward_session={here.cookies['pacsteward_session']}"}
        assert there.get("/studies", headers=cookie).status_code == 200

        name, bearer = "of-two", {}
        bearer["Authorization"] = "Bearer " + product.run(
            *("access", "token", name, "--role", "administrator")
        )
        for client in (here, there):
            answer = client.get("/dicom-web/studies", headers=bearer)
            assert answer.status_code in (200, 204)
        product.run("access", "revoke", name)
        for client in (there, here):
            assert client.get("/dicom-web/studies", headers=bearer).status_code == 401

        assert there.post("/logout", headers=cookie).status_code == 303
        assert here.get("/studies", headers=cookie).status_code == 302


def test_wrong_passwords_are_counted_together(product: Product) -> None:
    with pair(product) as (here, there):
        form = {"username": "nobody", "password": "wrong"}
        statuses = [
            client.post("/login", data=form).status_code
            for client in (here, there)
            for _ in range(5)
        ]
    assert statuses[0] == 401
    assert statuses[-1] == 429


def test_figures_of_each_are_shown_by_each(product: Product) -> None:
    with product.client() as client, pair(product):
        until(lambda: 'process="web-2"' in client.get("/metrics").text)
        names = set(re.findall(r'process="([a-z0-9-]+)"', client.get("/metrics").text))
    assert {"doors", "web", "web-2", "jobs"} <= names


def test_one_that_dies_takes_nobody_along(product: Product) -> None:
    with pair(product) as (here, there):
        victim = process_of(product, there)
        os.kill(victim, signal.SIGKILL)
        for _ in range(5):
            assert here.get("/healthz").status_code == 200
            visitor(product).close()
    with pair(product):
        assert product.process is not None
        assert victim not in [one.pid for one in psutil.Process(product.process.pid).children()]


def test_end_is_an_end(product: Product) -> None:
    """The last test of this product: with all processes gone nobody listens."""
    with pair(product):
        assert product.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{product.url}/healthz")
