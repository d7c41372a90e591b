"""Four DIMSE senders and one STOW-RS sender that remember exactly what was acknowledged.

They go on whatever happens to the archive: a connection that breaks is opened again, and an object
whose answer never came is sent again, as a modality does. So the archive gets repetitions of what
it may have or not have, and `Load.tried` has more than `Load.acknowledged`.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from pacsteward.archive.fixtures.sender import CT, EXPLICIT, data_set, meta
from pacsteward.base.errors import PacstewardError
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ProposedContext, connect
from pacsteward.dicom.dimse.association_user import AssociationAborted
from pacsteward.dicom.dimse.client import ClientAssociation
from pacsteward.dicom.part10 import encode_part10_head

ROOT: Final = "2.25.4711"
PER_SERIES: Final = 25
PER_STUDY: Final = 100
STOW_PARTS: Final = 3
BIG_BYTES: Final = 150_000
"""Each fortieth object has so many bytes; more than `SETTINGS` keeps in a segment."""

SETTINGS: Final = {
    # The smallest there are, so that segments end and big objects come often.
    "PACSTEWARD_ARCHIVE__SEGMENT_BYTES": str(4 << 20),
    "PACSTEWARD_ARCHIVE__BIG_OBJECT_BYTES": str(64 << 10),
    "PACSTEWARD_ARCHIVE__RESERVE_BYTES": "0",
}
"""Environment of a product under this load."""

ANSWER_TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Sent:
    """What is known of an object that was sent."""

    study: str
    series: str
    digest: bytes
    """SHA-256 of the data set."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of sending once: a status (of DIMSE or HTTP), or None when nothing came."""

    door: str
    status: int | None
    sent_at: float
    seconds: float

    @property
    def words(self) -> str:
        if self.status is None:
            return "no answer"
        return f"{self.status:04X}" if self.door == "dimse" else str(self.status)


def instance(sender: int, number: int) -> tuple[str, Sent, bytes]:
    """Make an object: the same one whenever it is asked for."""
    study = f"{ROOT}.{sender}.{number // PER_STUDY}"
    series = f"{study}.{number % PER_STUDY // PER_SERIES}"
    uid = f"{series}.{number}"
    size = BIG_BYTES if number % 40 == 39 else 2_000 + number * 977 % 9_000
    seed = hashlib.sha256(uid.encode()).digest()
    pixels = (seed * (size // len(seed) + 1))[:size]
    data = data_set(uid, study=study, series=series, pixels=pixels, number=number)
    return uid, Sent(study, series, hashlib.sha256(data).digest()), data


@dataclass
class Load:
    """The senders; they run from `start` to `stop`, except between `pause` and `resume`."""

    dimse_port: int
    url: str
    token: str
    dimse_senders: int = 4
    acknowledged: dict[str, Sent] = field(default_factory=dict)
    tried: dict[str, Sent] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    surprises: Counter[str] = field(default_factory=Counter)
    """Errors of the senders themselves that are no broken connection."""

    def __post_init__(self) -> None:
        self._gate = threading.Event()
        self._gate.set()
        self._is_stopping = False
        self._idle: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> Load:
        self._thread.start()
        return self

    def pause(self, timeout_s: float = 180) -> None:
        """Return once nobody sends and every answer has come."""
        self._gate.clear()
        self._await(lambda: len(self._idle) == self.dimse_senders + 1, timeout_s, "did not pause")

    def resume(self) -> None:
        self._gate.set()

    def stop(self) -> None:
        self._is_stopping = True
        self._gate.set()
        self._thread.join(timeout=90)
        assert not self._thread.is_alive()

    def await_acknowledged(self, count: int, timeout_s: float = 180) -> None:
        """Wait until `count` more are acknowledged."""
        target = len(self.acknowledged) + count
        self._await(lambda: len(self.acknowledged) >= target, timeout_s, "are too slow, or refused")

    def _await(self, is_so: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < deadline, f"The senders {what}: {self.statuses()}"
            assert self._thread.is_alive(), "The senders ended."
            time.sleep(0.005)

    def statuses(self) -> Counter[str]:
        return Counter(f"{one.door} {one.words}" for one in self.answers)

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        senders = [self._dimse(number) for number in range(1, self.dimse_senders + 1)]
        await asyncio.gather(*senders, self._stow(self.dimse_senders + 1))

    async def _dimse(self, sender: int) -> None:
        numbers = _Again(itertools.count())
        while not self._is_stopping:
            with self._suffering(f"dimse-{sender}"):
                async with connect(
                    "127.0.0.1",
                    self.dimse_port,
                    calling=AeTitle(f"SENDER{sender}"),
                    called=AeTitle("PACSTEWARD"),
                    contexts=[ProposedContext(Uid(CT), (Uid(EXPLICIT),))],
                ) as association:
                    context = association.context(Uid(CT)).context_id
                    while await self._may_send(f"dimse-{sender}"):
                        number = numbers.take()
                        uid, sent, data = instance(sender, number)
                        status = await self._timed(
                            "dimse",
                            {uid: sent},
                            self._store(association, context, uid, data),
                        )
                        if status == 0:
                            numbers.done()
            await asyncio.sleep(PAUSE_S)
            await self._may_send(f"dimse-{sender}")

    async def _store(
        self, association: ClientAssociation, context: int, uid: str, data: bytes
    ) -> tuple[int, set[str]]:
        status, _comment = await association.store(context, Uid(CT), Uid(uid), data)
        return status, {uid} if status == 0 else set()

    async def _stow(self, sender: int) -> None:
        numbers = _Again(itertools.count(0, STOW_PARTS))
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
            "Accept": "application/dicom+json",
        }
        async with httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=ANSWER_TIMEOUT_S
        ) as client:
            while await self._may_send("stow"):
                with self._suffering("stow"):
                    first = numbers.take()
                    made = [instance(sender, first + part) for part in range(STOW_PARTS)]
                    body = related(encode_part10_head(meta(uid)) + data for uid, _, data in made)
                    status = await self._timed(
                        "stow",
                        {uid: sent for uid, sent, _ in made},
                        self._post(client, body),
                    )
                    if status == 200:
                        numbers.done()
                        continue
                await asyncio.sleep(PAUSE_S)

    async def _post(self, client: httpx.AsyncClient, body: bytes) -> tuple[int, set[str]]:
        answer = await client.post("/dicom-web/studies", content=body)
        if answer.status_code not in (200, 202):
            return answer.status_code, set()
        rows = answer.json().get("00081199", {}).get("Value", [])
        # What bears a warning was kept, and this load knows no reason for one.
        uids = {row["00081155"]["Value"][0] for row in rows if "00081196" not in row}
        return answer.status_code, uids

    async def _timed(
        self,
        door: str,
        objects: dict[str, Sent],
        sending: Coroutine[Any, Any, tuple[int, set[str]]],
    ) -> int | None:
        """Send, and note what was tried, answered and acknowledged."""
        began, status = time.monotonic(), None
        self.tried |= objects
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                status, kept = await sending
            self.acknowledged |= {uid: objects[uid] for uid in kept}
        finally:
            now = time.monotonic()
            self.answers.append(Answer(door, status, began, now - began))
        return status

    async def _may_send(self, who: str) -> bool:
        """Wait while there is a pause; false when it is over for good."""
        if not self._gate.is_set():
            self._idle.add(who)
            while not self._gate.is_set():
                await asyncio.sleep(0.01)
            self._idle.discard(who)
        return not self._is_stopping

    @contextmanager
    def _suffering(self, who: str) -> Iterator[None]:
        """Take whatever breaks a connection; count what does not look like that."""
        try:
            yield
        except (PacstewardError, AssociationAborted, httpx.HTTPError, OSError):
            pass
        except Exception as error:  # noqa: BLE001 - the proof fails by it, not this thread
            self.surprises[f"{who}: {type(error).__name__}: {error}"] += 1


class _Again:
    """Numbers in order; each one again until it is done."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = iter(numbers)
        self._current: int | None = None

    def take(self) -> int:
        if self._current is None:
            self._current = next(self._numbers)
        return self._current

    def done(self) -> None:
        self._current = None


def related(parts: Iterable[bytes]) -> bytes:
    """Write the body of a STOW-RS request; its boundary is ``part``."""
    pieces = (b"--part\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in parts)
    return b"".join(pieces) + b"--part--\r\n"
