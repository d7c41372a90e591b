"""What most promises need: a product over an empty folder on either database, and its senders.

Several promises are one story with another harm in it, and `on_each_database` tells it: on SQLite
and on PostgreSQL senders send without a break while harm is done; then they pause, and all that
was acknowledged is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.load import SETTINGS, Load
from tests.support.postgres import running_cluster
from tests.support.product import Product
from tests.support.survey import Findings, survey

from prove.promise import Outcome, Scale, together

KINDS = ("sqlite", "postgresql")
PROCESS_ENDED = b"process ended; it is started again"
"""What the supervisor says of a process that ended without being told to."""

Say = Callable[[str], None]


@dataclass
class Site:
    """A product that is harmed, and what was found of it so far."""

    product: Product
    token: str
    load: Load
    findings: Findings = field(default_factory=Findings)
    _surveyed: int = 0

    def log_from(self, begin_bytes: int) -> bytes:
        """Give what the product has written to its log behind a place in it."""
        with self.product.log_file.open("rb") as log:
            log.seek(begin_bytes)
            return log.read()

    def pause_and_survey(self) -> Findings:
        """Survey what was sent lately while nobody sends, and have the senders go on."""
        self.load.pause()
        found = self.survey_recent()
        self.load.resume()
        return found

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


def on_each_database(scale: Scale, harm: Callable[[Site, Say], Outcome]) -> Outcome:
    """Have `harm` done under load to a new product on each kind of database, then survey it.

    Kept is what `harm` says was kept, if nothing is wrong with what was stored, and the senders
    met with nothing but answers and broken connections.
    """
    outcomes = {}
    for kind in KINDS:
        with database(kind) as url, site(scale.folder / kind, url) as place, sending(place.load):
            harmed = harm(place, beneath(scale.say, kind))
            place.load.pause()
            outcomes[kind] = _with_survey(harmed, place)
    return together(outcomes)


def _with_survey(harmed: Outcome, place: Site) -> Outcome:
    """Survey everything, and add what was found to what is known already."""
    last = place.survey_all()
    load, found = place.load, place.findings
    return Outcome(
        harmed.passed and found.is_clean and not load.surprises,
        f"{harmed.figure}, {len(load.acknowledged)} acknowledged, {found.words()}",
        {
            **harmed.details,
            "acknowledged": len(load.acknowledged),
            "tried": len(load.tried),
            "read_back": found.checked,
            "read_back_at_the_end": last.checked,
            "found": found.counts(),
            "examples": found.examples(),
            "answers": dict(load.statuses()),
            "surprises": dict(load.surprises),
        },
    )


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


def beneath(say: Say, kind: str) -> Say:
    """Put the kind of database before each line."""
    return lambda line: say(f"{kind}: {line}")
