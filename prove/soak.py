"""R15: hours of load, and the product is as large as after the first minutes.

Four DIMSE senders and one STOW-RS sender store without a break while readers query and retrieve by
both doors. Every few seconds the memory that the product's processes hold for themselves alone and
their open descriptors are read. After the warm-up neither may grow. ``make soak`` runs it for
thirty minutes, ``MINUTES=n`` for as long as it says; the plot goes to build/prove.

Half an hour cannot show less than a mebibyte an hour: what a busy process holds goes up and down by
more than that, as helpers come and go. Memory that is never given back lifts the floor under all
that. So what is judged is how much higher the floor is in the last part than in the first: the
tenth of the values that are the lowest lie below it. The range that they go up and down in and the
slope, with the range that it lies in, are given beside it. Half an hour shows a leak of 54 MiB an
hour, two hours one of 14.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
from tests.support.load import Load, Sent
from tests.support.product import Product
from tests.support.scu import find, keys
from tests.support.survey import survey

from pacsteward.supervisor import PROCESS_PREFIX
from prove.images import client_of
from prove.plot import Line, plot
from prove.promise import Outcome, Promise, Scale
from prove.sites import sending

MIB = 1 << 20
MINUTES, MINUTES_QUICK = 30.0, 1.0
SAMPLE_EVERY_S = 2.0
WARM_UP = 0.25
"""Share of the time after which caches and pools should be filled."""
GROWTH_MAX_MIB = 16.0
"""By so much the floor may rise from the first part after the warm-up to the last, all processes
together."""
FILES_MAX = 8
PARTS = 5
PLOT = Path("build/prove/soak.svg")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """What the product held at a moment."""

    at_s: float
    memory_mib: dict[str, float]
    """Of each process, by its name; children of it included."""
    files: int
    acknowledged: int

    @property
    def total_mib(self) -> float:
        """Of all processes together."""
        return sum(self.memory_mib.values())


def soak(scale: Scale) -> Outcome:
    """Run for as long as ``MINUTES`` says."""
    usual = MINUTES_QUICK if scale.is_quick else MINUTES
    return soak_for(scale, float(os.environ.get("MINUTES", usual)) * 60)


def soak_for(scale: Scale, seconds: float) -> Outcome:
    """Load a product for so long, and look at it."""
    product = Product(scale.folder / "archive").start()
    try:
        client = client_of(product)
        token = client.headers["authorization"].partition(" ")[2]
        load = Load(product.dimse_port, product.url, token)
        readers = Readers(product, client, load)
        with sending(load), readers:
            samples = _watch(scale, product, load, seconds)
        recent = dict(list(load.acknowledged.items())[-2000:])
        studies = sorted({sent.study for sent in recent.values()})
        found = survey(product, token, load.acknowledged, load.tried, studies=studies)
    finally:
        product.stop()
    memory = growth([one.total_mib for one in samples])
    files = growth([float(one.files) for one in samples])
    steady = _steady(samples)
    slope, low, high = _slope_per_h(steady)
    _draw(samples)
    details: dict[str, object] = {
        "seconds": seconds,
        "samples": len(samples),
        "acknowledged": len(load.acknowledged),
        "answers": dict(load.statuses()),
        "reads": readers.served,
        "reads failed": readers.failures[:10],
        "memory MiB at first, later, at last": [
            round(one.total_mib, 1) for one in (samples[0], steady[0], steady[-1])
        ],
        "growth of the floor MiB": memory.of_floor,
        "floor and ceiling MiB of the first and last part": [
            [part.floor, part.ceiling] for part in (memory.first, memory.last)
        ],
        "slope MiB/h": [slope, low, high],
        "growth of open files": files.of_floor,
        "open files at last": steady[-1].files,
        "found": found.counts(),
        "surprises": dict(load.surprises),
        "plot": str(PLOT),
    }
    passed = (
        memory.of_floor <= GROWTH_MAX_MIB
        and files.of_floor <= FILES_MAX
        and found.is_clean
        and not readers.failures
        and not load.surprises
        and all(one.status in (0, 200) for one in load.answers)
    )
    figure = (
        f"{seconds / 60:.0f} min, {len(load.acknowledged)} stored, {readers.served} reads: memory "
        f"{memory.first} MiB in the first fifth, {memory.last} MiB in the last: floor "
        f"{memory.of_floor:+.1f} MiB ({slope:+.0f} MiB/h, between {low:+.0f} and {high:+.0f}), "
        f"open files {files.of_floor:+.0f}; {found.words()}"
    )
    return Outcome(passed, figure, details)


# --- judging ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range:
    """Where most values of a part lie: a tenth are below the floor, a tenth above the ceiling."""

    floor: float
    ceiling: float

    def __str__(self) -> str:
        return f"{self.floor:.0f} to {self.ceiling:.0f}"


@dataclass(frozen=True, slots=True)
class Growth:
    """How a series was in the first part after the warm-up, and in the last."""

    first: Range
    last: Range

    @property
    def of_floor(self) -> float:
        """By how much what is always held has become more."""
        return round(self.last.floor - self.first.floor, 1)


def growth(values: Sequence[float]) -> Growth:
    """Compare the parts of a series that was taken at equal steps of time, warm-up included."""
    steady = _steady(values)
    size = max(1, len(steady) // PARTS)
    return Growth(_range(steady[:size]), _range(steady[-size:]))


def _steady(values: Sequence[T]) -> Sequence[T]:
    return values[int(len(values) * WARM_UP) :]


def _range(values: Sequence[float]) -> Range:
    ordered = sorted(values)
    cut = len(ordered) // 10
    return Range(ordered[cut], ordered[-cut - 1])


# --- watching -----------------------------------------------------------------------------------


def _watch(scale: Scale, product: Product, load: Load, seconds: float) -> list[Sample]:
    samples: list[Sample] = []
    began = time.monotonic()
    every_s = min(SAMPLE_EVERY_S, seconds / 40)
    while (now_s := time.monotonic() - began) < seconds:
        samples.append(_sample(product, now_s, len(load.acknowledged)))
        if len(samples) % 30 == 0:
            last = samples[-1]
            scale.say(
                f"{now_s / 60:.1f} min: {last.total_mib:.0f} MiB, {last.files} open files, "
                f"{last.acknowledged} acknowledged"
            )
        time.sleep(every_s)
    return samples


def _sample(product: Product, at_s: float, acknowledged: int) -> Sample:
    assert product.process is not None
    supervisor = psutil.Process(product.process.pid)
    memory = {"supervisor": _own(supervisor)[0]}
    files = supervisor.num_fds()
    for child in supervisor.children():
        name = child.name().removeprefix(PROCESS_PREFIX)
        family = [child, *child.children(recursive=True)]
        held = [_own(one) for one in family]
        memory[name] = sum(size for size, _ in held)
        files += sum(count for _, count in held)
    return Sample(at_s, memory, files, acknowledged)


def _own(process: psutil.Process) -> tuple[float, int]:
    """Return the memory that would be free without it, in MiB, and its descriptors."""
    try:
        return process.memory_full_info().uss / MIB, process.num_fds()
    except psutil.NoSuchProcess:
        return 0.0, 0


def _slope_per_h(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Return the slope in MiB/h, by Theil and Sen, and where its inner 90 % lie."""
    thinned = samples[:: max(1, len(samples) // 200)]
    slopes = sorted(
        (later.total_mib - earlier.total_mib) / (later.at_s - earlier.at_s) * 3600
        for earlier, later in combinations(thinned, 2)
        # Two moments that lie close together say something of noise alone.
        if later.at_s - earlier.at_s > (thinned[-1].at_s - thinned[0].at_s) / 4
    )
    cut = len(slopes) // 20
    return (
        round(statistics.median(slopes), 1),
        round(slopes[cut], 1),
        round(slopes[-cut - 1], 1),
    )


def _draw(samples: Sequence[Sample]) -> None:
    minutes = [one.at_s / 60 for one in samples]
    lines = [
        Line(name, minutes, [one.memory_mib.get(name, 0.0) for one in samples])
        for name in samples[0].memory_mib
    ]
    lines.append(Line("all", minutes, [one.total_mib for one in samples]))
    lines.append(Line("open files", minutes, [float(one.files) for one in samples]))
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    PLOT.write_text(plot("Memory under load (MiB), and open files", "minutes", lines))


# --- reading ------------------------------------------------------------------------------------


@dataclass
class Readers:
    """Two threads that query and retrieve what was acknowledged, as fast as they are served."""

    product: Product
    client: httpx.Client
    load: Load
    served: int = 0
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Readers:
        self._stop = threading.Event()
        ways: tuple[Callable[[Sent], bool], ...] = (self._by_web, self._by_dimse)
        self._threads = [threading.Thread(target=self._run, args=(way,)) for way in ways]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _run(self, read: Callable[[Sent], bool]) -> None:
        chance = random.Random(read.__name__)
        while not self._stop.wait(0.1):
            known = list(self.load.acknowledged.values())[-5000:]
            if not known:
                continue
            try:
                is_served = read(chance.choice(known))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                self.failures.append(f"{read.__name__}: {error!r}"[:200])
                continue
            if is_served:
                self.served += 1
            else:
                self.failures.append(read.__name__)

    def _by_web(self, sent: Sent) -> bool:
        at = f"/dicom-web/studies/{sent.study}"
        answers = (
            self.client.get("/dicom-web/studies", params={"StudyInstanceUID": sent.study}),
            self.client.get(f"{at}/series/{sent.series}/metadata"),
            self.client.get(f"{at}/series/{sent.series}"),
        )
        return all(one.status_code == 200 for one in answers)

    def _by_dimse(self, sent: Sent) -> bool:
        return len(find(self.product, keys("STUDY", StudyInstanceUID=sent.study))[0]) == 1


PROMISES = (Promise("R15", "load for a long time: memory and descriptors are flat", soak),)
