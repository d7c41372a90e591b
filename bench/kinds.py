"""The kinds of work, the servers that do each, and the goals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bench import life, many, query, retrieve, store
from bench.figure import Figure, Goal
from bench.scale import FULL, Scale
from bench.servers import Start, orthanc, pacsteward, pacsteward_on_postgresql, storescp

OURS: Final = "pacsteward"
PEER: Final = "orthanc"
ON_POSTGRESQL: Final = "postgresql"
BARE: Final = "storescp"
"""No archive, but what receiving and writing alone would be."""

SERVERS: Final[Mapping[str, Start]] = {
    OURS: pacsteward,
    PEER: orthanc,
    ON_POSTGRESQL: pacsteward_on_postgresql,
    BARE: storescp,
}

Measure = Callable[[Start, Scale, str], Iterator[Figure]]

KINDS: Final[Mapping[str, tuple[tuple[str, Measure], ...]]] = {
    store.KIND: (
        (OURS, store.measure),
        (PEER, store.measure),
        (BARE, store.measure),
        (ON_POSTGRESQL, store.measure),
    ),
    retrieve.KIND: ((OURS, retrieve.measure), (PEER, retrieve.measure)),
    query.KIND: ((OURS, query.measure), (PEER, query.measure), (ON_POSTGRESQL, query.measure)),
    life.START_KIND: (
        (OURS, life.measure_start),
        (PEER, life.measure_start),
        (OURS, life.measure_replay),
    ),
    life.MEMORY_KIND: ((OURS, life.measure_memory), (PEER, life.measure_memory)),
    life.DISK_KIND: ((OURS, life.measure_disk), (PEER, life.measure_disk)),
    many.KIND: ((OURS, many.measure), (ON_POSTGRESQL, many.measure)),
}

NOT_IN_QUICK: Final = frozenset(
    {
        (store.KIND, ON_POSTGRESQL),
        (store.KIND, BARE),
        (query.KIND, ON_POSTGRESQL),
        (many.KIND, OURS),
        (many.KIND, ON_POSTGRESQL),
    }
)

WEIGHTS: Final[Mapping[str, float]] = {
    store.KIND: 4,
    retrieve.KIND: 3,
    query.KIND: 3,
    life.START_KIND: 1,
    life.MEMORY_KIND: 1.5,
    life.DISK_KIND: 1,
    many.KIND: 12,
}
"""Share of the time that one server gets in each kind."""

TITLES: Final[Mapping[str, str]] = {
    store.KIND: "Storing",
    retrieve.KIND: "Reading",
    query.KIND: "Searching",
    many.KIND: "Beside a large catalogue",
    life.START_KIND: "Starting",
    life.MEMORY_KIND: "Memory",
    life.DISK_KIND: "Disk",
}

GOALS: Final[Mapping[str, Goal]] = {
    "C-STORE W1 x1": Goal(times=3.5, cpu_ms=1),
    "C-STORE W1 x4": Goal(times=3.5, cpu_ms=1),
    "C-STORE W2 x4": Goal(times=5, cpu_ms=1),
    "dcmsend W1 x4": Goal(times=12),
    "STOW-RS W1, 10 a request, x4": Goal(times=4),
    "C-GET of 200 CT": Goal(times=1.5),
    "C-MOVE of 200 CT": Goal(times=2),
    "WADO-RS series of 200 CT": Goal(times=2),
    "WADO-RS metadata of 200, warm": Goal(times=5),
    "WADO-RS metadata of 1,000, warm": Goal(at_most=50),
    "WADO-RS frame x4": Goal(times=5),
    "WADO-RS rendered, cold": Goal(times=2),
    "WADO-RS rendered, warm": Goal(times=5),
    **query.goals(FULL.studies, FULL.many_studies),
    **many.goals(FULL.many_studies),
    "Ready, folder is there": Goal(at_most=2),
    f"Start and replay of {life.SEGMENT_OBJECTS} CT": Goal(at_most=5),
    "Memory, idle": Goal(at_most=300),
    "2 GB object in, growth of memory": Goal(at_most=64),
    "2 GB object out, growth of memory": Goal(at_most=64),
}
"""By the name of the work."""
