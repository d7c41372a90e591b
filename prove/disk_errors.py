"""R4: each call to the disk fails once, one after the other, and the sender hears of it.

A keeper works through a short story while the n-th call that changes a file or a name fails, for
every n and with each error; writes fail at once or after their first half, once or from then on.
Whoever waits for an answer gets an error, never Success; when the disk is well again the next
object is taken at once, without a restart; after a restart all that was acknowledged is there, and
nothing half is.

Then the same from outside: the product under load, with faults armed at its named places.
"""

from __future__ import annotations

import errno
import itertools
import logging
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.databases import sqlite_template
from tests.support.disk_tap import Failing

from pacsteward.archive.containers import stored_data
from pacsteward.archive.fixtures.sender import House, data_set, running
from pacsteward.archive.model import Outcome as Stored
from pacsteward.archive.model import StoreResult
from pacsteward.archive.tables import CONFLICT, INSTANCE
from pacsteward.base.db import open_database
from pacsteward.base.errors import Exhausted, PacstewardError, Unavailable
from pacsteward.base.faults import VARIABLE
from prove.power_cut import AFTER_CUT
from prove.promise import Outcome, Promise, Scale
from prove.sites import sending, site

ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC, "edquot": errno.EDQUOT}
QUICK_STRIDE = 7

PLACES = ("after-open", "after-write", "before-fsync", "after-rename", "after-dirsync")
"""Places at which the product's own faults fail it from outside."""
REFUSALS = {"dimse": {0x0000, 0xA700}, "stow": {200, 202, 503, 507}}
"""All that a sender may hear while the disk fails."""


@dataclass(frozen=True)
class Way:
    """How a call fails."""

    name: str
    is_lasting: bool
    is_short: bool


WAYS = tuple(
    Way(name, is_lasting, is_short)
    for name, is_lasting, is_short in (
        ("eio", False, False),
        ("enospc", True, True),
        ("enospc", False, True),
        ("edquot", True, False),
        ("edquot", False, False),
    )
)


def _objects() -> list[tuple[str, bytes]]:
    """Enough for three segments and a big object, then one again, and one with other content."""
    chance = random.Random(4)
    small = [(f"1.{n}", data_set(f"1.{n}", pixels=chance.randbytes(40_000))) for n in range(5)]
    big = ("1.9", data_set("1.9", pixels=chance.randbytes(90_000)))
    return [*small, big, small[0], ("1.1", data_set("1.1", number=77)), ("1.8", data_set("1.8"))]


OBJECTS = _objects()


@dataclass
class Told:
    """What was answered in one run."""

    acknowledged: list[tuple[str, bytes, StoreResult]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    decided: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def fail_call(template: Path, folder: Path, first: int, way: Way) -> tuple[Told, Failing]:
    """Let the n-th call of the story fail, and look what came of it."""
    data = folder / "data"
    data.mkdir(parents=True)
    shutil.copyfile(template, folder / "index.db")
    database = open_database(folder / "index.db")
    disk = Failing(data, first, ERRORS[way.name], is_lasting=way.is_lasting, is_short=way.is_short)
    told = Told()
    try:
        with disk.tapped():
            house = House(data, database, AFTER_CUT)
            if _does(told, house.keeper.start):
                try:
                    _live_through(house, disk, told)
                finally:
                    disk.is_armed = False
                    house.keeper.stop()
            disk.is_armed = False
            with running(data, database, AFTER_CUT) as again:
                told.wrong += _survey(again, told)
    finally:
        database.close()
    if way.name == "eio" and told.refusals["Exhausted"]:
        told.wrong.append("an error of the disk was called a full disk")
    return told, disk


def _live_through(house: House, disk: Failing, told: Told) -> None:
    for uid, data in OBJECTS:
        _does(told, lambda uid=uid, data=data: _store(house, told, uid, data))
    for kind, uid in (("rejected", "1.2"), ("deleted", "1.3"), ("deleted", "1.9")):
        _does(told, lambda kind=kind, uid=uid: _decide(house, told, kind, uid))
    disk.is_armed = False
    # It came back: the process is up and takes instances again at once.
    _does(told, lambda: _store(house, told, "1.7", data_set("1.7")), must=True)


def _does(told: Told, act: Callable[[], object], *, must: bool = False) -> bool:
    """Do something that may be refused; what may not happen is noted."""
    try:
        act()
    except (Exhausted, Unavailable) as error:
        told.refusals[type(error).__name__] += 1
        if must:
            told.wrong.append(f"refused although the disk is well: {error}")
    except PacstewardError as error:
        told.wrong.append(f"not an error of the disk: {type(error).__name__}: {error}")
    else:
        return True
    return False


def _store(house: House, told: Told, uid: str, data: bytes) -> None:
    told.acknowledged.append((uid, data, house.store(data, uid)))


def _decide(house: House, told: Told, kind: str, uid: str) -> None:
    if uid not in house.uids():
        return
    told.decided[uid] = f"perhaps {kind}"
    details = {"code": "113001^DCM"} if kind == "rejected" else {}
    house.keeper.change(kind, actor="admin", choose=lambda _connection: [uid], details=details)
    told.decided[uid] = kind


def _survey(house: House, told: Told) -> list[str]:
    """Say what is not as it was told."""
    house.wait()
    wrong = []
    rows = {row["sop_instance_uid"]: row for row in house.rows(INSTANCE)}
    conflicts = {row["sop_instance_uid"] for row in house.rows(CONFLICT)}
    for uid, data, result in told.acknowledged:
        decided = told.decided.get(uid, "")
        if result.outcome is Stored.CONFLICT:
            wrong += [] if uid in conflicts else [f"lost conflict {uid}"]
        elif decided == "deleted":
            wrong += [f"came back {uid}"] if uid in rows else []
        elif uid not in rows:
            wrong += [] if decided == "perhaps deleted" else [f"lost {uid}"]
        elif _bytes_of(house, uid) != data:
            wrong.append(f"corrupt {uid}")
        elif decided == "rejected" and not rows[uid]["rejected_for"]:
            wrong.append(f"shown again {uid}")
    known = [*OBJECTS, ("1.7", data_set("1.7"))]
    for uid in rows:
        found = _bytes_of(house, uid)
        if not any(found == data for other, data in known if other == uid):
            wrong.append(f"half {uid}")
    return wrong


def _bytes_of(house: House, uid: str) -> bytes:
    with stored_data(house.folder, house.location(uid)) as view:
        return bytes(view.read(0, view.size))


# --- the promise ---------------------------------------------------------------------------------


def fail_every_call(scale: Scale) -> Outcome:
    """R4."""
    stride = QUICK_STRIDE if scale.is_quick else 1
    failures: dict[str, list[str]] = {}
    refusals: Counter[str] = Counter()
    runs = calls = 0
    logging.disable(logging.CRITICAL)
    try:
        with sqlite_template(scale.folder) as template:
            for way in WAYS:
                for first in itertools.count(1, stride):
                    folder = scale.folder / "run"
                    told, disk = fail_call(template, folder, first, way)
                    shutil.rmtree(folder)
                    runs += 1
                    refusals += told.refusals
                    if told.wrong:
                        call = disk.calls[disk.first - 1] if disk.was_reached else "the end"
                        failures[f"{way} at {first}, {call}"] = told.wrong
                        scale.say(f"{way} at {first}, {call}: {told.wrong[:3]}")
                    if not disk.was_reached:
                        calls = max(calls, len(disk.calls))
                        break
                scale.say(f"{way}: up to call {first}, {len(failures)} with something wrong")
    finally:
        logging.disable(logging.NOTSET)
    outside = _from_outside(scale)
    return Outcome(
        not failures and not outside["wrong"],
        f"{runs} runs, each of {calls} calls failed in {len(WAYS)} ways: {sum(refusals.values())} "
        f"refusals, {len(failures)} times something lost, half, or Success without it; from "
        f"outside {outside['runs']} runs: {outside['words']}",
        {
            "runs": runs,
            "calls": calls,
            "refusals": dict(refusals),
            "failures": failures,
            "outside": outside,
        },
    )


def _from_outside(scale: Scale) -> dict[str, object]:
    """Arm the product's own faults under load; look at each answer, and at what is there after."""
    places = PLACES[:2] if scale.is_quick else PLACES
    errors = ("enospc",) if scale.is_quick else tuple(ERRORS)
    wrong: list[str] = []
    runs = refused = 0
    with site(scale.folder / "outside") as place, sending(place.load):
        load = place.load
        load.await_acknowledged(50)
        for point in places:
            for error in errors:
                load.pause()
                place.product.kill()
                place.product.environment[VARIABLE] = ",".join(
                    f"{point}:{error}@{number}" for number in (12, 13, 20, 31)
                )
                place.product.start()
                before = len(load.answers)
                load.resume()
                load.await_acknowledged(80)
                answers = load.answers[before:]
                wrong += [
                    f"{point} {error}: {one.door} {one.words}"
                    for one in answers
                    if one.status is not None and one.status not in REFUSALS[one.door]
                ]
                refused += sum(one.status not in (0, 200, None) for one in answers)
                runs += 1
        if "process ended" in place.product.output():
            wrong.append("a process ended")
        load.pause()
        place.product.kill()
        del place.product.environment[VARIABLE]
        place.product.start()
        place.survey_all()
        found = place.findings
        if not found.is_clean:
            wrong.append(found.words())
        words = f"{refused} refusals, {len(wrong)} wrong answers, {found.words()}"
        return {
            "runs": runs,
            "words": words,
            "wrong": wrong[:50],
            "answers": dict(load.statuses()),
        }


PROMISES = (Promise("R4", "Each call to the disk fails: EIO, ENOSPC, EDQUOT", fail_every_call),)
