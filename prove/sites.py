"""What most promises need: a product over an empty folder on either database, and its senders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.load import SETTINGS, Load
from tests.support.postgres import running_cluster
from tests.support.product import Product
from tests.support.survey import Findings, survey

KINDS = ("sqlite", "postgresql")


@dataclass
class Site:
    """A product that is harmed, and what was found of it so far."""

    product: Product
    token: str
    load: Load
    findings: Findings = field(default_factory=Findings)
    _surveyed: int = 0

    def survey_recent(self) -> Findings:
        """Survey the studies that something was sent to since the last time."""
        recent = list(self.load.tried.values())[self._surveyed :]
        # What is in doubt when the senders pause is sent again later, to the same study.
        self._surveyed = max(0, len(self.load.tried) - 20)
        return self._survey({one.study for one in recent}, with_c_find=False)

    def survey_all(self) -> Findings:
        """Survey everything, by all doors."""
        return self._survey(None, with_c_find=True)

    def _survey(self, studies: set[str] | None, *, with_c_find: bool) -> Findings:
        found = survey(
            self.product,
            self.token,
            self.load.acknowledged,
            self.load.tried,
            studies=studies,
            with_c_find=with_c_find,
        )
        self.findings.add(found)
        return found


@contextmanager
def site(
    folder: Path, url: str = "", *, dimse_senders: int = 4, **environment: str
) -> Iterator[Site]:
    """Give a running product with senders that have not begun; `url` of a database, or SQLite."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**SETTINGS, **environment}
    if url:
        settings["PACSTEWARD_DATABASE_URL"] = url
    product = Product(folder / "archive", settings).start()
    try:
        token = product.token()
        load = Load(product.dimse_port, product.url, token, dimse_senders)
        yield Site(product, token, load)
    finally:
        if product.process is not None and product.process.poll() is None:
            product.kill()


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Give the URL of an empty database of a kind; empty for SQLite in the data folder."""
    with running_cluster() if kind == "postgresql" else nullcontext() as cluster:
        yield cluster.new_database() if cluster is not None else ""


@contextmanager
def sending(load: Load) -> Iterator[Load]:
    """Have the senders run within a block."""
    load.start()
    try:
        yield load
    finally:
        load.stop()


def beneath(say: Callable[[str], None], kind: str) -> Callable[[str], None]:
    """Put the kind of database before each line."""
    return lambda line: say(f"{kind}: {line}")
