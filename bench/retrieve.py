"""Work that reads: C-GET, C-MOVE and WADO-RS. Everything is compared once before it is timed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from statistics import median
from typing import Final

from PIL import Image

from bench import objects
from bench.dimse_client import (
    C_GET,
    C_MOVE,
    C_STORE,
    EXPLICIT_LITTLE,
    GET_STUDY,
    IMPLICIT_LITTLE,
    MOVE_STUDY,
    SERIES_UID,
    STUDY_UID,
    Association,
    identifier,
    store_answer,
    uid,
)
from bench.figure import Figure, Unit, rounded
from bench.http_client import Answer, HttpConnection, first_part, request
from bench.load import FAILED, Client, Load, run
from bench.objects import Encoded
from bench.scale import Scale
from bench.servers import SINK, Server, Start, fresh
from bench.sink import Counted, sink
from bench.store import store

KIND: Final = "retrieve"

DICOM_JSON: Final = "application/dicom+json"
OBJECTS: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
PIXELS: Final = 'multipart/related; type="application/octet-stream"'
JPEG: Final = "image/jpeg"

CT_COUNT: Final = 200
MANY: Final = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """What the server holds: series of CT, each of which is read cold once, and a long series."""

    series: Sequence[Sequence[Encoded]]
    long_series: Sequence[Encoded]
    moved: Counted

    @property
    def first(self) -> Sequence[Encoded]:
        """The series that most works read."""
        return self.series[0]


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of reading.

    Parameters
    ----------
    clients
        Given the server, what it holds and the number of the round.
    check
        Compares what comes back with what was stored; gives numbers of equal and unequal ones.
        It is called before the rounds, and so warms up. None where the first time is measured.
    """

    name: str
    unit: Unit
    clients: Callable[[Server, Stored, int], list[Client]]
    check: Callable[[Server, Stored], tuple[int, int]] | None = None


def measure(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Measure each work whose name contains `pattern`, over a fresh storage of a few series."""
    with fresh(start) as server, sink(server.sink_port) as moved:
        stored = Stored(
            [objects.ct_series(number, CT_COUNT) for number in range(scale.rounds)],
            objects.small_series(1, MANY),
            moved,
        )
        for series in (*stored.series, stored.long_series):
            if store(server, series, 2).errors:
                raise RuntimeError(f"{server.name} did not take what was to be read.")
        server.settle(to_the_disk=True)
        for work in _works(150 if scale.is_quick else 600):
            if pattern in work.name:
                yield _measure(server, scale, work, stored)


def _measure(server: Server, scale: Scale, work: Work, stored: Stored) -> Figure:
    compared, unequal = work.check(server, stored) if work.check else (0, 0)
    server.settle()
    loads: list[Load] = []
    cpu: list[float] = []
    for number in range(scale.rounds):
        before = server.cpu_seconds()
        loads.append(run(work.clients(server, stored, number)))
        cpu.append((server.cpu_seconds() - before) / max(1, loads[-1].requests) * 1000)
    return Figure(
        kind=KIND,
        work=work.name,
        server=server.name,
        unit=work.unit,
        rounds=rounded([_in_unit(load, work.unit) for load in loads]),
        cpu_ms=median(cpu),
        p50_ms=median(load.latency_p50_ms for load in loads),
        p95_ms=median(load.latency_p95_ms for load in loads),
        p99_ms=median(load.latency_p99_ms for load in loads),
        memory_mb=server.memory_bytes() / 1e6,
        errors=sum(load.errors for load in loads) + unequal,
        compared=compared,
    )


def _in_unit(load: Load, unit: Unit) -> float:
    return {"/s": load.rate, "MB/s": load.mb_per_s}.get(unit, load.latency_p50_ms)


# --- DIMSE ---------------------------------------------------------------------------------------


def _series_identifier(series: Sequence[Encoded]) -> bytes:
    return identifier(
        {
            0x00080052: "SERIES",
            STUDY_UID: series[0].study_instance_uid,
            SERIES_UID: series[0].series_instance_uid,
        }
    )


def _getter(server: Server, *, keep: bool = False) -> Association:
    return Association(
        server.port,
        server.ae_title,
        {1: (GET_STUDY, (IMPLICIT_LITTLE,)), 3: (objects.CT_IMAGE, (EXPLICIT_LITTLE,))},
        roles=(objects.CT_IMAGE,),
        keep=keep,
    )


def _get(association: Association, series: Sequence[Encoded]) -> Iterator[tuple[str, int, bytes]]:
    """Ask for a series; give UID, size and data set of each object, and fail at the end if so."""
    elements = {0x0002: uid(GET_STUDY), 0x0100: C_GET, 0x0110: 1, 0x0700: 0}
    association.send(association.encode(1, elements, _series_identifier(series)))
    while True:
        message = association.message()
        if message.number(0x0100) == C_STORE:
            association.send(store_answer(message))
            name = message.command[0x1000].rstrip(b"\0").decode()
            yield name, message.size_bytes, message.data_set
        elif not message.is_pending:
            if message.status:
                raise RuntimeError(f"C-GET ended with status {message.status:04X}.")
            return


def _get_client(server: Server, stored: Stored) -> Iterator[int]:
    association = _getter(server)
    yield 0
    sizes = [size for _, size, _ in _get(association, stored.first)]
    yield sum(sizes) if len(sizes) == len(stored.first) else FAILED
    association.release()


def _check_get(server: Server, stored: Stored) -> tuple[int, int]:
    association = _getter(server, keep=True)
    got = {name: data_set for name, _, data_set in _get(association, stored.first)}
    association.release()
    return _count(got.get(one.sop_instance_uid) == one.data_set for one in stored.first)


def _move_client(server: Server, stored: Stored) -> Iterator[int]:
    contexts = {1: (MOVE_STUDY, (IMPLICIT_LITTLE,))}
    association = Association(server.port, server.ae_title, contexts)
    elements = {0x0002: uid(MOVE_STUDY), 0x0100: C_MOVE, 0x0110: 1, 0x0700: 0}
    elements[0x0600] = SINK.encode() + b" " * (len(SINK) % 2)
    message = association.encode(1, elements, _series_identifier(stored.first))
    yield 0
    before = stored.moved.now()
    association.send(message)
    while (answer := association.message()).is_pending:
        pass
    instances, size_bytes = (
        now - then for now, then in zip(stored.moved.now(), before, strict=True)
    )
    expected = sum(len(one.data_set) for one in stored.first)
    is_whole = (instances, size_bytes) == (len(stored.first), expected)
    yield size_bytes if is_whole and answer.status == 0 else FAILED
    association.release()


# --- DICOMweb ------------------------------------------------------------------------------------


def _ask(server: Server, path: str, accept: str) -> bytes:
    return request("GET", path, {**server.headers, "Accept": accept})


def _web_client(server: Server, requests: Sequence[bytes]) -> Iterator[int]:
    connection = HttpConnection(server.http_port)
    yield 0
    for one in requests:
        answer = connection.ask(one)
        yield answer.size_bytes if answer.status == 200 else FAILED
    connection.close()


def _fetch(server: Server, path: str, accept: str) -> Answer:
    connection = HttpConnection(server.http_port)
    try:
        return connection.ask(_ask(server, path, accept), keep=True)
    finally:
        connection.close()


def _spread(
    path: Callable[[Encoded, str], str], accept: str, count: int, connections: int
) -> Callable[[Server, Stored, int], list[Client]]:
    """Ask for one instance after the other, over so many connections at once."""

    def clients(server: Server, stored: Stored, number: int) -> list[Client]:
        requests = [
            _ask(server, path(one, server.web), accept)
            for one in islice(cycle(stored.first), count)
        ]
        return [
            partial(_web_client, server, requests[start::connections])
            for start in range(connections)
        ]

    return clients


def _once(
    choose: Callable[[Stored, int], Sequence[Encoded]], tail: str, accept: str, times: int = 1
) -> Callable[[Server, Stored, int], list[Client]]:
    """Ask for one series so many times."""

    def clients(server: Server, stored: Stored, number: int) -> list[Client]:
        path = choose(stored, number)[0].series_path(server.web) + tail
        return [partial(_web_client, server, [_ask(server, path, accept)] * times)]

    return clients


def _frame_path(one: Encoded, web: str) -> str:
    return f"{one.path(web)}/frames/1"


def _rendered_path(one: Encoded, web: str) -> str:
    return f"{one.path(web)}/rendered"


def _render_cold(server: Server, stored: Stored, number: int) -> list[Client]:
    """Ask for pictures of instances that no round before asked for."""
    share = stored.series[number][:50]
    paths = [_rendered_path(one, server.web) for one in share]
    return [partial(_web_client, server, [_ask(server, path, JPEG) for path in paths])]


def _render_warm(server: Server, stored: Stored, number: int) -> list[Client]:
    path = _rendered_path(stored.first[0], server.web)
    return [partial(_web_client, server, [_ask(server, path, JPEG)] * 50)]


def _check_series(server: Server, stored: Stored) -> tuple[int, int]:
    answer = _fetch(server, stored.first[0].series_path(server.web), OBJECTS)
    boundary = answer.body[: answer.body.index(b"\r\n")]
    parts = {part[-len(stored.first[0].data_set) - 2 : -2] for part in _parts(answer, boundary)}
    # Of data sets of one length; the numbers in them differ in length, so each is looked for.
    ends = {part[-1000:] for part in parts}
    return _count(one.data_set[-1000:] in ends for one in stored.first)


def _parts(answer: Answer, boundary: bytes) -> list[bytes]:
    return answer.body.split(boundary)[1:-1]


def _check_instance(server: Server, stored: Stored) -> tuple[int, int]:
    def is_equal(one: Encoded) -> bool:
        answer = _fetch(server, one.path(server.web), OBJECTS)
        return answer.status == 200 and first_part(answer).endswith(one.data_set)

    return _count(is_equal(one) for one in stored.first[::20])


def _check_frame(server: Server, stored: Stored) -> tuple[int, int]:
    def is_equal(one: Encoded) -> bool:
        answer = _fetch(server, _frame_path(one, server.web), PIXELS)
        return answer.status == 200 and first_part(answer) == one.data_set[-512 * 512 * 2 :]

    return _count(is_equal(one) for one in stored.first[::20])


def _check_metadata(
    choose: Callable[[Stored, int], Sequence[Encoded]],
) -> Callable[[Server, Stored], tuple[int, int]]:
    def check(server: Server, stored: Stored) -> tuple[int, int]:
        series = choose(stored, 0)
        answer = _fetch(server, series[0].series_path(server.web) + "/metadata", DICOM_JSON)
        listed = {item["00080018"]["Value"][0] for item in json.loads(answer.body)}
        return _count(one.sop_instance_uid in listed for one in series)

    return check


def _check_rendered(server: Server, stored: Stored) -> tuple[int, int]:
    answer = _fetch(server, _rendered_path(stored.first[0], server.web), JPEG)
    return _count([Image.open(io.BytesIO(answer.body)).size == (512, 512)])


def _count(answers: Iterator[bool] | Sequence[bool]) -> tuple[int, int]:
    known = list(answers)
    return sum(known), len(known) - sum(known)


# --- all of them ---------------------------------------------------------------------------------


def _works(count: int) -> tuple[Work, ...]:
    """Return the works; those that measure a first time come before what would warm it up."""

    def numbered(stored: Stored, number: int) -> Sequence[Encoded]:
        return stored.series[number]

    def first(stored: Stored, number: int) -> Sequence[Encoded]:
        return stored.first

    def long_series(stored: Stored, number: int) -> Sequence[Encoded]:
        return stored.long_series

    return (
        Work("WADO-RS metadata of 200, cold", "ms", _once(numbered, "/metadata", DICOM_JSON)),
        Work(
            "WADO-RS metadata of 200, warm",
            "ms",
            _once(first, "/metadata", DICOM_JSON, 20),
            _check_metadata(first),
        ),
        Work(
            "WADO-RS metadata of 1,000, warm",
            "ms",
            _once(long_series, "/metadata", DICOM_JSON, 5),
            _check_metadata(long_series),
        ),
        Work("WADO-RS rendered, cold", "ms", _render_cold),
        Work("WADO-RS rendered, warm", "ms", _render_warm, _check_rendered),
        Work("C-GET of 200 CT", "MB/s", _alone(_get_client), _check_get),
        Work("C-MOVE of 200 CT", "MB/s", _alone(_move_client)),
        Work("WADO-RS series of 200 CT", "MB/s", _once(first, "", OBJECTS), _check_series),
        Work(
            "WADO-RS instance x1", "/s", _spread(Encoded.path, OBJECTS, count, 1), _check_instance
        ),
        Work("WADO-RS instance x4", "/s", _spread(Encoded.path, OBJECTS, count, 4)),
        Work("WADO-RS frame x1", "/s", _spread(_frame_path, PIXELS, count, 1), _check_frame),
        Work("WADO-RS frame x4", "/s", _spread(_frame_path, PIXELS, 2 * count, 4)),
    )


def _alone(
    client: Callable[[Server, Stored], Iterator[int]],
) -> Callable[[Server, Stored, int], list[Client]]:
    def clients(server: Server, stored: Stored, number: int) -> list[Client]:
        return [partial(client, server, stored)]

    return clients
