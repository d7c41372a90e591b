"""R8: the machine's clock jumps by a day, forward and back, while everybody works.

The product's processes are given another date from one moment to the next while the seconds go on
as ever, just as a wrong time server does (tests/support/wrong_clock.c, compiled for it). Beside the
senders an idle association, half an object and people who are signed in wait. No association may be
dropped, no session ended that is in use, and none revived that had ended; the audit book must be in
the order of its numbers, whatever the times in it say.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
from tests.hardness import wire
from tests.hardness.target import faults_in
from tests.hardness.wire import Line
from tests.support.load import SETTINGS, Load
from tests.support.product import Product
from tests.support.survey import survey

from prove.images import client_of
from prove.promise import Outcome, Promise, Scale
from prove.sites import sending

SOURCE = Path(__file__).parent.parent / "tests" / "support" / "wrong_clock.c"
DAY_S = 86_400
IDLE = "PACSTEWARD_SECURITY__SESSION_IDLE_S"
IDLE_S = 60
"""The shortest there is; a session that is not used ends after it."""
BETWEEN_S = 20.0
DRIP_S = 3.0
SENDERS = 1
"""Enough: this is about time, not about load."""


class NotInstalled(Exception):
    """There is no C compiler here."""


@dataclass
class WrongClock:
    """The date that the product is given."""

    file: Path
    library: Path

    def jump(self, days: int) -> None:
        """Move the hands by so many days from the truth, for everybody at once."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("<q", days * DAY_S))

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to go by it."""
        return {"LD_PRELOAD": str(self.library), "WRONG_CLOCK": str(self.file)}


def wrong_clock(folder: Path) -> WrongClock:
    """Make a clock that is right so far.

    Raises
    ------
    NotInstalled
        It cannot be compiled.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotInstalled("no C compiler is installed (apt-get install gcc libc6-dev)")
    clock = WrongClock(folder / "clock", folder / "wrong_clock.so")
    clock.file.write_bytes(bytes(8))
    asked = [compiler, "-shared", "-fPIC", "-O1", "-o", str(clock.library), str(SOURCE), "-ldl"]
    subprocess.run(asked, check=True)
    return clock


def clock_jumps(scale: Scale) -> Outcome:
    """Jump a day forward and back, both ways, several times."""
    return jump(scale, (1, 0, -1, 0) * (1 if scale.is_quick else 3), BETWEEN_S)


def jump(scale: Scale, days: tuple[int, ...], between_s: float) -> Outcome:
    """Put the clock right and wrong in this order, with so long between.

    Where that takes less time than a session needs to end, none is waited for.
    """
    clock = wrong_clock(scale.folder)
    settings = {**SETTINGS, **clock.environment, IDLE: str(IDLE_S)}
    product = Product(scale.folder / "archive", settings).start()
    try:
        return _jump(scale, product, clock, days, between_s)
    finally:
        product.stop()


def _jump(
    scale: Scale, product: Product, clock: WrongClock, days: tuple[int, ...], between_s: float
) -> Outcome:
    token = client_of(product).headers["authorization"].partition(" ")[2]
    load = Load(product.dimse_port, product.url, token, dimse_senders=SENDERS)
    harm: list[str] = []
    offsets = []
    with ExitStack() as open_, sending(load):
        idle, half = _idle_and_half(product, open_)
        drip = open_.enter_context(_dripping(half))
        at_work = open_.enter_context(_signed_in(product))
        ended = open_.enter_context(_signed_in(product))
        ended.get("/logout")
        forgotten = open_.enter_context(_signed_in(product))
        forgotten_at = time.monotonic()
        load.await_acknowledged(50)
        family = _family(product)
        for day in days:
            clock.jump(day)
            until = time.monotonic() + between_s
            load.await_acknowledged(50)
            while time.monotonic() < until:
                if not _is_inside(at_work):
                    harm.append(f"{day:+d}: who was at work was signed out")
                    break
                time.sleep(1)
            if not idle.echo():
                harm.append(f"{day:+d}: an idle association was dropped")
            if _is_inside(ended):
                harm.append(f"{day:+d}: a session that was ended was revived")
            offsets.append(_offset_days(product))
            scale.say(f"{day:+d} days: {len(load.acknowledged)} acknowledged, {len(harm)} harmed")
        if time.monotonic() > forgotten_at + IDLE_S:
            # It was used last before the first jump, and has waited longer than it may.
            clock.jump(-1)
            if _is_inside(forgotten):
                harm.append("-1: a session that nobody used was revived")
            clock.jump(0)
        drip()
        half.send(_END)
        answer = half.response()
        if answer is None or answer[0x0900] == b"\0\0":
            harm.append("an association with half an object was dropped")
        load.pause()
        dropped = sum(one.status is None for one in load.answers)
        if _family(product) != family:
            harm.append("a process ended and was started again")
    clock.jump(0)
    found = survey(product, token, load.acknowledged, load.tried, with_c_find=not scale.is_quick)
    book = product.run("access", "verify-audit")
    numbers, times = _audit(product)
    if numbers != sorted(set(numbers), reverse=True) or len(times) < len(numbers):
        harm.append("the audit book is not in the order of its numbers")
    has_jumped_back = any(later < earlier for earlier, later in pairwise(times))
    log = product.log_file.read_text(errors="replace").splitlines()
    faults = list(faults_in(line for line in log if line.startswith("{")))
    details: dict[str, object] = {
        "jumps": days,
        "date was off by days": offsets,
        "harm": harm,
        "answers": dict(load.statuses()),
        "acknowledged": len(load.acknowledged),
        "found": found.counts(),
        "examples": found.examples(),
        "audit": book,
        "audit entries": len(times),
        "times in it go back": has_jumped_back,
        "faults in the log": faults[:5],
        "surprises": dict(load.surprises),
    }
    passed = (
        not harm
        and not dropped
        and not load.surprises
        and not faults
        and found.is_clean
        and offsets == [float(day) for day in days]
        and "is whole" in book
        # Otherwise the proof would say nothing of the order.
        and has_jumped_back
    )
    figure = (
        f"{len(days)} jumps of a day: {dropped} associations dropped, {len(harm)} harmed; "
        f"{len(load.acknowledged)} acknowledged, {found.words()}; "
        f"{len(times)} audit entries in the order of their numbers"
    )
    return Outcome(passed, figure, details)


_PIECE = wire.p_data(wire.STORE, bytes(512), is_command=False, is_last=False)
_END = wire.p_data(wire.STORE, bytes(512), is_command=False)


def _idle_and_half(product: Product, open_: ExitStack) -> tuple[Line, Line]:
    """Open an association that waits, and one in the middle of an object."""
    idle, half = (open_.enter_context(Line(product.dimse_port)) for _ in range(2))
    for line in (idle, half):
        line.socket.settimeout(30)
        line.associate()
    command = wire.request(1, wire.CT_STORAGE, has_data=True, _1000="2.25.8.1", _0700=0)
    half.send(wire.p_data(wire.STORE, wire.command(command), is_command=True) + _PIECE)
    return idle, half


@contextmanager
def _dripping(line: Line) -> Iterator[Callable[[], None]]:
    """Send a little more of an object every few seconds; give what ends that."""
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(DRIP_S):
            line.send(_PIECE)

    def end() -> None:
        is_over.set()
        thread.join()

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield end
    finally:
        end()


@contextmanager
def _signed_in(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.url, timeout=30) as browser:
        page = browser.get("/login")
        assert page.status_code == 200
        browser.post("/login", data={"username": "admin", "password": product.password()})
        assert _is_inside(browser)
        yield browser


def _is_inside(browser: httpx.Client) -> bool:
    return browser.get("/studies").status_code == 200


def _family(product: Product) -> set[int]:
    assert product.process is not None
    supervisor = psutil.Process(product.process.pid)
    return {supervisor.pid, *(child.pid for child in supervisor.children())}


def _offset_days(product: Product) -> float:
    """Return how many days the product's date is from ours, by the Date of an answer."""
    said = httpx.get(f"{product.url}/healthz").headers["date"]
    date = time.mktime(time.strptime(said, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    return round((date - time.time()) / DAY_S, 1)


def _audit(product: Product) -> tuple[list[int], list[str]]:
    """Return the numbers of the audit book as it is shown, and all times in their order."""
    rows = json.loads(product.run("access", "audit", "--limit", "1000", "--json"))
    with closing(sqlite3.connect(f"file:{product.data}/index.db?mode=ro", uri=True)) as database:
        times = database.execute("SELECT recorded_at FROM audit_entry ORDER BY sequence").fetchall()
    return [row["number"] for row in rows], [when for (when,) in times]


PROMISES = (Promise("R8", "the clock jumps by a day, both ways", clock_jumps),)
