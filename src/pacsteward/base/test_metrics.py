"""Figures of all processes stand together, each under its own name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from pacsteward.base import metrics
from pacsteward.base.metrics import STALE_AFTER_S, Snapshots


def process(folder: Path, name: str, stored: int) -> Snapshots:
    registry = CollectorRegistry()
    Counter("stored", 'Kept "well".\nTwo lines.', ["peer"], registry=registry).labels('CT"1\\').inc(
        stored
    )
    Gauge("waiting", "Waiting.", registry=registry).set(stored / 2)
    Histogram("took_seconds", "Time.", registry=registry, buckets=(1, 2)).observe(1.5)
    return Snapshots(folder, name, registry)


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_figures_of_all_processes_stand_together(tmp_path: Path) -> None:
    process(tmp_path, "doors", 5).write()
    text = process(tmp_path, "web", 2).text()
    found = samples(text)
    assert found[("stored_total", 'peer=CT"1\\', "process=doors")] == 5
    assert found[("stored_total", 'peer=CT"1\\', "process=web")] == 2
    assert found[("waiting", "process=doors")] == 2.5
    assert found[("took_seconds_bucket", "le=2.0", "process=web")] == 1
    assert text.count(b"# TYPE stored_total") == 1, "A family is announced once."


def test_own_figures_are_those_of_this_moment(tmp_path: Path) -> None:
    web = process(tmp_path, "web", 2)
    web.write()
    web._registry._names_to_collectors["waiting"].set(99)  # type: ignore[attr-defined]
    assert samples(web.text())[("waiting", "process=web")] == 99


def test_process_that_is_gone_is_not_shown(tmp_path: Path) -> None:
    doors, web = process(tmp_path, "doors", 5), process(tmp_path, "web", 2)
    doors.write()
    old = time.time() - STALE_AFTER_S - 1
    os.utime(tmp_path / "metrics-doors.prom", (old, old))
    assert b"doors" not in web.text()
    doors.write()
    assert b"doors" in web.text()
    doors.stop()
    assert b"doors" not in web.text()


def test_snapshots_are_written_by_themselves(tmp_path: Path) -> None:
    doors = process(tmp_path / "run", "doors", 5)
    doors.start(every_s=0.02)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "metrics-doors.prom").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    doors.stop()
    assert list((tmp_path / "run").iterdir()) == []


def test_house_has_its_own_prefix_and_shows_memory_and_files_of_its_processes(
    tmp_path: Path,
) -> None:
    made = metrics.counter("things_made_in_a_test", "Things.")
    made.inc()
    text = Snapshots(tmp_path, "web").text()
    assert b'pacsteward_things_made_in_a_test_total{process="web"} 1.0' in text
    assert b"process_resident_memory_bytes" in text
    metrics.REGISTRY.unregister(made)


@pytest.mark.parametrize("name", ["../web", "", "a/b", "A"])
def test_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        Snapshots(tmp_path, name)
