"""R3: the power goes at any moment, and takes with it what was not synced.

A keeper works through a story (objects small and big, conflicts, decisions, segments that end and
are used anew, a restart in the middle) while every call to the disk is recorded. Then the folder is
made as a cut at each step might have left it, once with nothing that was not synced, once with all
of it, and with random parts of it: single sectors, lengths, names. A keeper must open each of them
by itself and have everything that was acknowledged or decided by then, byte for byte.

The index comes from a moment between the last transaction that had to be durable and the cut,
since the others may be lost with the power; now and then it is gone altogether and is made anew.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.databases import sqlite_template
from tests.support.disk_tap import Chances, Recording, Tap

from pacsteward.archive.containers import stored_data
from pacsteward.archive.fixtures.sender import SMALL, House, data_set, running
from pacsteward.archive.ledger import read_ledger
from pacsteward.archive.model import Outcome as Stored
from pacsteward.archive.rebuild import rebuild
from pacsteward.archive.tables import CONFLICT, INSTANCE, SERIES, STUDY
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database, open_database
from prove.promise import Outcome, Promise, Scale

SUBSETS = 1_000
QUICK_CUTS = 150
SETTINGS = SMALL.model_copy(
    update={"segment_bytes": 128 << 10, "big_object_bytes": 48 << 10, "prepared_segments": 1}
)
"""Smaller than an administrator may set, so that a short story has all there is."""
AFTER_CUT = SETTINGS.model_copy(update={"prepared_segments": 0})


@dataclass(frozen=True)
class Acknowledged:
    """The sender was told Success for this content, or that it is kept as a conflict."""

    uid: str
    data: bytes
    is_conflict: bool


@dataclass(frozen=True)
class Sending:
    """These are on their way: they may be there, and need not."""

    uids: tuple[str, ...]


@dataclass(frozen=True)
class Deciding:
    """A decision was asked for."""

    kind: str
    uids: tuple[str, ...]


@dataclass(frozen=True)
class Decided:
    """... and whoever asked was told that it is done."""

    kind: str
    uids: tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """The index after a transaction."""

    image: bytes
    is_durable: bool


@dataclass
class Story:
    """What was sent under each UID, whatever came of it."""

    contents: dict[str, list[bytes]] = field(default_factory=dict)


def record(folder: Path) -> tuple[Recording, Story]:
    """Let a keeper work through the story, and record it."""
    data, index = folder / "data", folder / "index.db"
    data.mkdir(parents=True)
    with sqlite_template(folder) as template:
        shutil.copyfile(template, index)
    recording, story = Recording(data), Story()
    recording.mark(Index(index.read_bytes(), is_durable=True))
    database = open_database(index)
    _mark_transactions(database, index, recording)
    try:
        with recording.tapped():
            with running(data, database, SETTINGS) as house:
                _first_day(house, recording, story)
            with running(data, database, SETTINGS) as house:
                _second_day(house, recording, story)
    finally:
        database.close()
    return recording, story


def _mark_transactions(database: Database, path: Path, recording: Recording) -> None:
    """Have the index remembered after each transaction."""
    real = database.write

    @contextmanager
    def write(*, durable: bool = True) -> Iterator[Any]:
        with real(durable=durable) as connection:
            yield connection
        recording.mark(lambda: Index(_image(path), durable))

    database.write = write  # type: ignore[method-assign]


def _image(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    try:
        return connection.serialize()
    finally:
        connection.close()


def _first_day(house: House, recording: Recording, story: Story) -> None:
    _await_spare(house)
    _send(house, recording, story, [f"1.{number}" for number in range(24)], size=9_000)
    _send(house, recording, story, ["1.100", "1.101", "1.102"], size=70_000)
    _send(house, recording, story, ["1.3"], size=500, version=2)
    _decide(house, recording, "rejected", "1.1", "1.2", "1.100")
    _decide(house, recording, "restored", "1.2")
    _decide(house, recording, "deleted", "1.101", "1.5")
    # All of the first segment, so that it is used anew.
    _decide(house, recording, "deleted", *(f"1.{number}" for number in range(15)))
    _await_spare(house)
    _send(
        house, recording, story, ["1.5", *(f"1.{number}" for number in range(30, 50))], size=8_000
    )


def _second_day(house: House, recording: Recording, story: Story) -> None:
    _send(house, recording, story, [f"1.{number}" for number in range(60, 70)], size=9_000)
    _send(house, recording, story, ["1.103", "1.30"], size=80_000, version=3)
    _decide(house, recording, "rejected", "1.60", "1.103")


def _send(
    house: House, recording: Recording, story: Story, uids: Sequence[str], *, size: int, version=1
) -> None:  # type: ignore[no-untyped-def]
    """Send four at a time, as four senders do."""
    for start in range(0, len(uids), 4):
        objects = []
        for uid in uids[start : start + 4]:
            pixels = random.Random(f"{uid} {version}").randbytes(size)
            data = data_set(uid, pixels=pixels, number=version)
            story.contents.setdefault(uid, []).append(data)
            objects.append((data, uid))
        recording.mark(Sending(tuple(uids[start : start + 4])))
        for result, (data, uid) in zip(house.store_all(objects), objects, strict=True):
            assert not isinstance(result, BaseException), result
            recording.mark(Acknowledged(uid, data, result.outcome is Stored.CONFLICT))


def _decide(house: House, recording: Recording, kind: str, *uids: str) -> None:
    recording.mark(Deciding(kind, uids))
    details = {"code": "113001^DCM"} if kind == "rejected" else {}
    house.keeper.change(kind, actor="admin", choose=lambda _connection: uids, details=details)
    recording.mark(Decided(kind, uids))


def _await_spare(house: House) -> None:
    """Wait until a segment was prepared, or made from one that is not needed any more."""
    deadline = time.monotonic() + 30
    while not any(house.folder.glob("landing/prepared-*.segment")):
        assert time.monotonic() < deadline, "No segment was prepared."
        time.sleep(0.02)


# --- a cut ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Where the power went, and what survived of that which was not safe."""

    until: int
    sectors: float
    names: float
    seed: int
    has_lost_index: bool = False
    """The index is gone as well, and is made anew from log, objects and ledger."""


def cuts(recording: Recording, scale: Scale) -> list[Cut]:
    """List the cuts to be made: every step with nothing and with all, and random ones."""
    count = len(recording.steps)
    chance = random.Random(scale.seed)
    # A mark changes nothing on the disk; a cut behind one asks for more than one before it.
    prefixes = [
        Cut(until, share, share, 0) for until in range(1, count + 1) for share in (0.0, 1.0)
    ]
    subsets = [
        Cut(
            chance.randrange(1, count + 1),
            chance.choice((0.0, 0.1, 0.5, 0.9, 1.0)),
            chance.choice((0.0, 0.5, 1.0)),
            number,
            has_lost_index=number % 5 == 4,
        )
        for number in range(SUBSETS)
    ]
    if scale.is_quick:
        return chance.sample(prefixes, QUICK_CUTS * 2 // 3) + subsets[: QUICK_CUTS // 3]
    return prefixes + subsets


def try_cut(recording: Recording, story: Story, cut: Cut, folder: Path) -> list[str]:
    """Make the folder as it was left, open it, and say what is wrong with it."""
    data, index = folder / "data", folder / "index.db"
    chance = random.Random(f"{cut.seed} {cut.until}")
    recording.cut(cut.until, data, Chances(chance, cut.sectors, cut.names))
    marks = recording.marks(cut.until)
    index.write_bytes(_surviving_index(marks, cut, chance).image)
    database = open_database(index)
    try:
        with Tap(data).tapped():
            if cut.has_lost_index:
                rebuild(data, database, SystemClock(), AFTER_CUT)
            with running(data, database, AFTER_CUT) as house:
                return _wrong(house, marks, story)
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        return [f"It does not open: {type(error).__name__}: {error}"]
    finally:
        database.close()


def _surviving_index(marks: Sequence[Any], cut: Cut, chance: random.Random) -> Index:
    images = [mark for mark in marks if isinstance(mark, Index)]
    if cut.has_lost_index:
        return images[0]
    first = max(number for number, image in enumerate(images) if image.is_durable)
    if cut.sectors == 0.0:
        return images[first]
    return images[-1] if cut.sectors == 1.0 else chance.choice(images[first:])


def _wrong(house: House, marks: Sequence[Any], story: Story) -> list[str]:
    """Compare with what was said to senders and administrators before the cut."""
    wanted, hidden, open_to = _expected(marks)
    rows = {row["sop_instance_uid"]: row for row in house.rows(INSTANCE)}
    wrong = [f"lost {uid}" for uid in wanted if uid not in rows]
    for uid, row in rows.items():
        found = _bytes_of(house, uid)
        is_sent = found in story.contents.get(uid, [])
        if not is_sent or (uid in wanted and found != wanted[uid]):
            wrong.append(f"corrupt {uid}")
        if uid not in wanted and uid not in open_to and _was_deleted(uid, marks):
            wrong.append(f"came back {uid}")
        if uid not in open_to and uid in wanted and bool(row["rejected_for"]) != (uid in hidden):
            wrong.append(f"rejection of {uid}")
    kept = {row["sop_instance_uid"] for row in house.rows(CONFLICT)}
    wrong += [
        f"lost conflict {mark.uid}"
        for mark in marks
        if isinstance(mark, Acknowledged) and mark.is_conflict
        if mark.uid not in kept and mark.uid not in open_to and not _was_deleted(mark.uid, marks)
    ]
    written = {
        (entry.kind, entry.sop_instance_uids) for entry in read_ledger(house.folder / "ledger")
    }
    wrong += [
        f"not in the ledger: {mark.kind} {mark.uids[0]}"
        for mark in marks
        if isinstance(mark, Decided) and (mark.kind, mark.uids) not in written
    ]
    shown = sum(1 for row in rows.values() if not row["rejected_for"])
    for table, name in ((STUDY, "study"), (SERIES, "series")):
        said = sum(row[f"number_of_{name}_related_instances"] for row in house.rows(table))
        if said != shown:
            wrong.append(f"{name} counts {said} of {shown}")
    after = house.store(data_set("1.999"), "1.999")
    if after.outcome is not Stored.STORED:
        wrong.append("the next object is not taken")
    return wrong


def _expected(marks: Sequence[Any]) -> tuple[dict[str, bytes], set[str], set[str]]:
    """Return what must be there, what of it is hidden, and what was being decided on."""
    wanted: dict[str, bytes] = {}
    hidden: set[str] = set()
    open_to: set[str] = set()
    for mark in marks:
        if isinstance(mark, Acknowledged) and not mark.is_conflict:
            wanted[mark.uid] = mark.data
            open_to.discard(mark.uid)
        elif isinstance(mark, Sending):
            open_to = set(mark.uids)
        elif isinstance(mark, Deciding):
            open_to = set(mark.uids)
            if mark.kind == "deleted":
                for uid in mark.uids:
                    wanted.pop(uid, None)
                    hidden.discard(uid)
        elif isinstance(mark, Decided):
            open_to = set()
            if mark.kind == "rejected":
                hidden |= set(mark.uids)
            elif mark.kind == "restored":
                hidden -= set(mark.uids)
    return wanted, hidden, open_to


def _was_deleted(uid: str, marks: Sequence[Any]) -> bool:
    """Whether it was, and was not sent again since."""
    decided = max(
        (
            number
            for number, mark in enumerate(marks)
            if isinstance(mark, Decided) and mark.kind == "deleted" and uid in mark.uids
        ),
        default=-1,
    )
    return decided >= 0


def _bytes_of(house: House, uid: str) -> bytes:
    with stored_data(house.folder, house.location(uid)) as view:
        return bytes(view.read(0, view.size))


# --- the promise ---------------------------------------------------------------------------------


def cut_power(scale: Scale) -> Outcome:
    """R3."""
    recording, story = record(scale.folder / "recorded")
    chosen = cuts(recording, scale)
    scale.say(f"{len(recording.steps)} steps recorded, {len(chosen)} cuts")
    failures: dict[str, list[str]] = {}
    logging.disable(logging.CRITICAL)
    try:
        for number, cut in enumerate(chosen, 1):
            folder = scale.folder / "cut"
            wrong = try_cut(recording, story, cut, folder)
            shutil.rmtree(folder)
            if wrong:
                failures[str(cut)] = wrong
                scale.say(f"{cut} before {_words(recording, cut)}: {wrong[:3]}")
            if number % 100 == 0:
                scale.say(f"{number} of {len(chosen)} cuts, {len(failures)} with something wrong")
    finally:
        logging.disable(logging.NOTSET)
    acknowledged = sum(isinstance(mark, Acknowledged) for mark in recording.marks(1 << 31))
    kinds: dict[str, int] = {}
    for step in recording.steps:
        kinds[step.kind] = kinds.get(step.kind, 0) + 1
    return Outcome(
        not failures,
        f"{len(chosen)} cuts over {len(recording.steps)} steps ({acknowledged} acknowledged), "
        f"{len(failures)} with something lost, half or not opened",
        {"cuts": len(chosen), "steps": kinds, "failures": dict(list(failures.items())[:50])},
    )


def _words(recording: Recording, cut: Cut) -> str:
    if cut.until >= len(recording.steps):
        return "the end"
    step = recording.steps[cut.until]
    return f"{step.kind} {os.path.basename(step.name)}".strip()


PROMISES = (Promise("R3", "Power cut: what was not synced is lost, in part or whole", cut_power),)
