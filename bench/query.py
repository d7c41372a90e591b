"""Work that searches: C-FIND and QIDO-RS at study level, over a catalogue of many studies.

Each question has as many answers in a catalogue of a million studies as in one of 20,000, so that
what is compared is the search.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Final
from urllib.parse import urlencode

from bench import catalogue
from bench.dimse_client import (
    C_FIND,
    FIND_STUDY,
    IMPLICIT_LITTLE,
    STUDY_UID,
    Association,
    identifier,
    uid,
)
from bench.figure import Figure, Goal, rounded
from bench.http_client import HttpConnection, request
from bench.load import FAILED, Load, run
from bench.scale import Scale
from bench.servers import Server, Start, fresh

KIND: Final = "query"

BUDGET_S: Final = 4.0
"""A round ends then, whatever is left of it: some servers need a second for an answer."""

LIMIT: Final = 50
PAGE: Final = 500
PAGED_DAYS: Final = 200

WRITTEN_AS_IT_IS: Final = "*^"
"""Debian's Orthanc finds nobody by a name in whose address these are escaped."""

RETURN_TAGS: Final = (
    *(0x00080020, 0x00080030, 0x00080050, 0x00080061, 0x00081030),
    *(0x00100010, 0x00100020, STUDY_UID),
)
PATIENT_NAME, PATIENT_ID, ACCESSION, STUDY_DATE = 0x00100010, 0x00100020, 0x00080050, 0x00080020
KEYWORDS: Final = {
    PATIENT_NAME: "PatientName",
    PATIENT_ID: "PatientID",
    ACCESSION: "AccessionNumber",
    STUDY_DATE: "StudyDate",
    STUDY_UID: "StudyInstanceUID",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of question.

    Parameters
    ----------
    key
        Tag and value to match, given the number of a study that is to be among the answers.
    hits
        How many studies match, at least.
    cpu_ms
        Goal of the server's time at 20,000 studies.
    """

    name: str
    key: Callable[[int], tuple[int, str]]
    hits: int
    cpu_ms: float | None = None


QUESTIONS: Final = (
    Question("patient ID", lambda n: (PATIENT_ID, catalogue.patient_id(n)), 1, 1),
    Question("accession number", lambda n: (ACCESSION, catalogue.accession_number(n)), 1, 1),
    Question("study UID", lambda n: (STUDY_UID, catalogue.study_uid(n)), 1, 1),
    Question(
        "name begins with", lambda n: (PATIENT_NAME, catalogue.patient_name(n)[:-2] + "*"), 1, 1
    ),
    Question("name contains", lambda n: (PATIENT_NAME, f"*^{n:06d}"[:-1] + "*"), 10),
    Question("one day", lambda n: (STUDY_DATE, _days(n, 1)), catalogue.A_DAY, 5),
    Question("seven days", lambda n: (STUDY_DATE, _days(n, 7)), 1),
)


def _days(number: int, count: int) -> str:
    first = catalogue.study_date(number)
    last = first + timedelta(days=count - 1)
    return f"{first:%Y%m%d}-{last:%Y%m%d}" if count > 1 else f"{first:%Y%m%d}"


def name_of(door: str, question: str, studies: int) -> str:
    """Return the name of a work."""
    return f"{door} {question}, {studies:,} studies"


def goals(studies: int, many_studies: int) -> dict[str, Goal]:
    """Return the goals at both sizes."""
    found = {}
    for door in ("C-FIND", "QIDO-RS"):
        for question in QUESTIONS:
            few = name_of(door, question.name, studies)
            if question.cpu_ms is not None:
                found[few] = Goal(cpu_ms=question.cpu_ms)
                found[name_of(door, question.name, many_studies)] = Goal(
                    p95_ms=20, share=1 / 1.5, beside=few
                )
    return found


def measure(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Measure all questions over a catalogue that ours and the peer have alike."""
    with fresh(start, studies=scale.studies) as server:
        yield from over(server, scale, pattern, scale.studies, KIND)


def over(server: Server, scale: Scale, pattern: str, studies: int, kind: str) -> Iterator[Figure]:
    """Ask a server that has a catalogue of so many studies."""
    server.settle(to_the_disk=True)
    counted = _count_days(server)
    if counted != min(studies, PAGED_DAYS * catalogue.A_DAY):
        raise RuntimeError(f"{server.name} counts {counted} studies where more were loaded.")
    numbers = [
        index * 7919 % min(studies, 20_000) for index in range(40 if scale.is_quick else 200)
    ]
    for door, client in (("C-FIND", _find_client), ("QIDO-RS", _qido_client)):
        for question in QUESTIONS:
            work = name_of(door, question.name, studies)
            if pattern in work:
                yield _measure(
                    server, scale, kind, work, partial(client, server, question, numbers)
                )
    work = name_of("QIDO-RS", f"pages of {PAGE} to the end", studies)
    if pattern in work:
        yield _measure(server, scale, kind, work, partial(_page_client, server))


def _measure(
    server: Server, scale: Scale, kind: str, work: str, client: Callable[[], Iterator[int]]
) -> Figure:
    run([client])
    loads: list[Load] = []
    cpu: list[float] = []
    for _ in range(scale.rounds):
        before = server.cpu_seconds()
        loads.append(run([client]))
        cpu.append((server.cpu_seconds() - before) / max(1, loads[-1].requests) * 1000)
    return Figure(
        kind=kind,
        work=work,
        server=server.name,
        unit="ms",
        rounds=rounded([load.latency_p50_ms for load in loads]),
        cpu_ms=median(cpu),
        p50_ms=median(load.latency_p50_ms for load in loads),
        p95_ms=median(load.latency_p95_ms for load in loads),
        p99_ms=median(load.latency_p99_ms for load in loads),
        memory_mb=server.memory_bytes() / 1e6,
        errors=sum(load.errors for load in loads),
    )


def _find_client(server: Server, question: Question, numbers: Sequence[int]) -> Iterator[int]:
    contexts = {1: (FIND_STUDY, (IMPLICIT_LITTLE,))}
    association = Association(server.port, server.ae_title, contexts)
    elements = {0x0002: uid(FIND_STUDY), 0x0100: C_FIND, 0x0110: 1, 0x0700: 0}
    messages = [
        association.encode(1, elements, _identifier(*question.key(number))) for number in numbers
    ]
    ends_at = time.monotonic() + BUDGET_S
    yield 0
    for message in messages:
        association.send(message)
        hits = 0
        while (answer := association.message()).is_pending:
            hits += 1
        yield hits if answer.status == 0 and hits >= question.hits else FAILED
        if time.monotonic() > ends_at:
            break
    association.release()


def _identifier(tag: int, value: str) -> bytes:
    wanted = dict.fromkeys(RETURN_TAGS, "")
    return identifier({**wanted, 0x00080052: "STUDY", tag: value})


def _qido(server: Server, parameters: Mapping[str, str | int]) -> bytes:
    headers = {**server.headers, "Accept": "application/dicom+json"}
    return request(
        "GET", f"{server.web}/studies?{urlencode(parameters, safe=WRITTEN_AS_IT_IS)}", headers
    )


def _qido_client(server: Server, question: Question, numbers: Sequence[int]) -> Iterator[int]:
    asked = [
        _qido(server, {KEYWORDS[tag]: value, "limit": LIMIT})
        for tag, value in map(question.key, numbers)
    ]
    connection = HttpConnection(server.http_port)
    least = min(question.hits, LIMIT)
    ends_at = time.monotonic() + BUDGET_S
    yield 0
    for one in asked:
        answer = connection.ask(one, keep=True)
        # One study has one Study Instance UID; to count them is cheaper than to read JSON.
        hits = answer.body.count(b'"0020000D"')
        yield answer.size_bytes if answer.status == 200 and hits >= least else FAILED
        if time.monotonic() > ends_at:
            break
    connection.close()


def _page(server: Server, offset: int) -> bytes:
    last = catalogue.FIRST_DAY + timedelta(days=PAGED_DAYS - 1)
    days = f"{catalogue.FIRST_DAY:%Y%m%d}-{last:%Y%m%d}"
    return _qido(server, {"StudyDate": days, "limit": PAGE, "offset": offset})


def _page_client(server: Server) -> Iterator[int]:
    connection = HttpConnection(server.http_port)
    ends_at = time.monotonic() + 4 * BUDGET_S
    yield 0
    offset = 0
    while time.monotonic() < ends_at:
        answer = connection.ask(_page(server, offset), keep=True)
        hits = answer.body.count(b'"0020000D"')
        if answer.status not in (200, 204):
            yield FAILED
            break
        if not hits:
            break
        yield answer.size_bytes
        offset += hits
    connection.close()


def _count_days(server: Server) -> int:
    """Walk all pages and count different studies."""
    connection = HttpConnection(server.http_port)
    found: set[str] = set()
    offset = 0
    while True:
        answer = connection.ask(_page(server, offset), keep=True)
        if answer.status not in (200, 204):
            raise RuntimeError(f"{server.name} answered a page with HTTP {answer.status}.")
        page = json.loads(answer.body or b"[]")
        if not page:
            break
        found |= {row["0020000D"]["Value"][0] for row in page}
        offset += len(page)
    connection.close()
    return len(found)
