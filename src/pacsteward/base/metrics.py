"""Figures for monitoring, counted where things happen and shown in one place.

Each process counts in its own memory, in `REGISTRY`, and writes a snapshot of it to
``DIR/run/metrics-<process>.prom`` every few seconds. Whoever is asked for ``/metrics`` puts its own
figures and the snapshots of the others together; every figure bears the label ``process``, so
nothing is added up behind the back of the reader.

A counter is made once, at the top of the module that counts::

    STORED = metrics.counter("instances_stored", "Instances that were kept.", ["outcome"])
    STORED.labels("stored").inc()
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

logger = logging.getLogger(__name__)

REGISTRY: Final = CollectorRegistry()
"""All figures of this process. The library's own registry is not used: anything may add to it."""

ProcessCollector(registry=REGISTRY)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

PREFIX: Final = "pacsteward_"

EVERY_S = 5.0
STALE_AFTER_S = 60.0
"""A snapshot that was not renewed for so long is of a process that is gone."""

SECONDS_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def counter(name: str, prose: str, labels: Sequence[str] = ()) -> Counter:
    """Make a figure that only rises; `name` without prefix and unit suffix ``_total``."""
    return Counter(PREFIX + name, prose, labels, registry=REGISTRY)


def histogram(
    name: str,
    prose: str,
    labels: Sequence[str] = (),
    *,
    buckets: Sequence[float] = SECONDS_BUCKETS,
) -> Histogram:
    """Make a figure of how values are spread, e.g. times in seconds."""
    return Histogram(PREFIX + name, prose, labels, registry=REGISTRY, buckets=buckets)


class Snapshots:
    """The snapshots of all processes of a data folder, seen from one of them.

    Parameters
    ----------
    folder
        ``DIR/run``.
    process_name
        Our own: ``"keeper"``, ``"doors"``, ``"web"``, ``"jobs"``.
    registry
        What we count in.
    """

    def __init__(
        self, folder: Path, process_name: str, registry: CollectorRegistry = REGISTRY
    ) -> None:
        if not re.fullmatch(r"[a-z0-9-]+", process_name):
            raise ValueError(f"{process_name!r} cannot be the name of a process.")
        self._folder = folder
        self._name = process_name
        self._registry = registry
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, every_s: float = EVERY_S) -> None:
        """Write a snapshot now and then, in a thread; call it after the fork, not before."""
        self._thread = threading.Thread(
            target=self._run, args=(every_s,), name="metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End, and take our snapshot away."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)
        self._path().unlink(missing_ok=True)

    def write(self) -> None:
        """Write our snapshot; readers see the old one or the new one, never half of one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._path().with_suffix(".draft")
        draft.write_bytes(generate_latest(self._registry))
        draft.replace(self._path())

    def text(self) -> bytes:
        """Return the figures of all processes in the text format of Prometheus."""
        families: dict[str, Metric] = {}
        own = generate_latest(self._registry).decode()
        for name, text in [(self._name, own), *self._others()]:
            _merge(families, name, text)
        together = CollectorRegistry()
        together.register(_Given(families.values()))
        return generate_latest(together)

    def silent(self, names: Sequence[str]) -> list[str]:
        """Name those of some processes that are gone, or stand still, for a minute.

        Not one that hangs in part: its snapshot is written by a thread of its own.
        """
        return [name for name in names if not _is_fresh(self._path(name))]

    def _run(self, every_s: float) -> None:
        while True:
            try:
                self.write()
            except OSError as error:
                # A full disk: the figures are old until there is room again.
                logger.warning("Figures were not written.", extra={"error": error.strerror})
            if self._stopping.wait(every_s):
                return

    def _others(self) -> list[tuple[str, str]]:
        found = []
        for path in sorted(self._folder.glob("metrics-*.prom")):
            if path == self._path() or not _is_fresh(path):
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except OSError:
                # Its process ended between our look at its age and at its text.
                continue
            found.append((path.stem.removeprefix("metrics-"), text))
        return found

    def _path(self, name: str = "") -> Path:
        return self._folder / f"metrics-{name or self._name}.prom"


def _is_fresh(snapshot: Path) -> bool:
    try:
        return time.time() - snapshot.stat().st_mtime < STALE_AFTER_S
    except OSError:
        return False


class _Given(Collector):
    """Hands out families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


def _merge(families: dict[str, Metric], process_name: str, text: str) -> None:
    """Add the figures of one process; a family is written once, with the samples of all."""
    for found in text_string_to_metric_families(text):
        family = families.setdefault(
            found.name, Metric(found.name, found.documentation, found.type, found.unit)
        )
        family.samples += [
            Sample(
                sample.name,
                {**sample.labels, "process": process_name},
                sample.value,
                sample.timestamp,
                sample.exemplar,
            )
            for sample in found.samples
        ]
