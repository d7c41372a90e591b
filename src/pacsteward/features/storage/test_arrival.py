"""Bodies that come in pieces of any size, while memory is short: their parts are what was sent."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any, Final

import pytest

from pacsteward.archive import arena as sharing
from pacsteward.archive.arena import Arena, Shelf
from pacsteward.dicom.web.multipart import PartBegin, PartData, Reader
from pacsteward.features.storage import intake, payload
from pacsteward.features.storage.intake import Intake
from pacsteward.features.storage.payload import Payload

REQUESTS: Final = 600
BLOCK: Final = 256
_TRICKY: Final = (b"\r", b"\r\n", b"\r\n--", b"\r\n--bnd", b"x")


class Sender:
    """Sends one body, and keeps what is made of it."""

    def __init__(self, arena: Arena, chance: random.Random, folder: Path) -> None:
        self.shelf = Shelf(arena)
        self.parts: list[Payload] = []
        self.wanted = [_part(chance) for _ in range(chance.randrange(1, 5))]
        begin = b"--bnd\r\n\r\n"
        self.body = begin + (b"\r\n" + begin).join(self.wanted) + b"\r\n--bnd--"
        self._reader = Reader("bnd")
        self._folder = folder

    def step(self, chance: random.Random) -> None:
        """Have some more bytes come, or be asked for memory in vain."""
        room = self.shelf.room()
        if chance.random() < 0.3:
            return
        piece = self.body[: chance.choice((1, 5, 50, 300))]
        if room is None:
            self._take(memoryview(piece))
        else:
            piece = piece[: len(room)]
            room[: len(piece)] = piece
            self.shelf.received(len(piece))
            self._take(room[: len(piece)])
        self.body = self.body[len(piece) :]

    def _take(self, data: memoryview) -> None:
        for event in self._reader.feed(data):
            if isinstance(event, PartBegin):
                self.parts.append(Payload(self.shelf, lambda: self._folder, max_bytes=1 << 20))
            elif isinstance(event, PartData):
                self.parts[-1].write(event.data)

    def end(self) -> list[bytes]:
        """Return the parts, and give everything back."""
        found = [bytes(part.value()) for part in self.parts]
        for part in self.parts:
            part.close()
        self.shelf.close()
        return found


def _part(chance: random.Random) -> bytes:
    pieces = [
        chance.choice(_TRICKY)
        if chance.random() < 0.5
        else bytes([chance.randrange(65, 90)]) * chance.randrange(1, 40)
        for _ in range(chance.randrange(1, 60))
    ]
    text = b"".join(pieces)
    for delimiter in (b"\r\n--bnd\r\n", b"\r\n--bnd--"):
        text = text.replace(delimiter, b"q")
    # Its end must not be the beginning of a delimiter.
    return text + b"Z"


def test_parts_are_what_was_sent_whatever_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(sharing, "ROOM_MIN", 16)
    monkeypatch.setattr(payload, "IN_MEMORY_BYTES", 600)
    for seed in range(REQUESTS):
        chance = random.Random(seed)
        blocks = chance.choice((2, 3, 4, 8))
        arena = Arena(blocks * BLOCK)
        arena.close_descriptor()
        senders = [Sender(arena, chance, tmp_path) for _ in range(chance.choice((1, 2, 3)))]
        while senders:
            sender = chance.choice(senders)
            sender.step(chance)
            if not sender.body:
                senders.remove(sender)
                assert sender.end() == sender.wanted, f"seed {seed}"
        assert sum(arena.take() is not None for _ in range(blocks + 1)) == blocks, f"seed {seed}"


def test_others_of_a_group_are_stored_although_one_comes_to_grief(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = Arena(4 * sharing.BLOCK_BYTES)
    arena.close_descriptor()
    shelf = Shelf(arena)
    bad, good = (Payload(shelf, lambda: tmp_path, max_bytes=1 << 20) for _ in range(2))
    bad.write(b"bad")
    good.write(b"good")
    may_go_on = threading.Event()
    stored: list[bytes] = []

    def store(_self: Any, one: Payload) -> Any:
        if one is bad:
            raise OSError(28, "No space left on device")
        assert may_go_on.wait(10)
        stored.append(bytes(one.value()))

    monkeypatch.setattr(Intake, "_store_now", store)

    async def run() -> None:
        taking = Intake.__new__(Intake)
        taking._courier = taking._inflow = None
        taking._ahead, taking._ahead_bytes = 2, 7
        taking._threads, taking._has_room = asyncio.Semaphore(8), asyncio.Event()
        group = [intake._Whole(bad, 3), intake._Whole(good, 4)]
        storing = asyncio.create_task(taking._store(group))
        # Nothing of the group may be given back while a thread reads it.
        done, _ = await asyncio.wait({storing}, timeout=0.5)
        assert not done
        may_go_on.set()
        with pytest.raises(OSError, match="No space"):
            await storing

    asyncio.run(run())
    assert stored == [b"good"]
