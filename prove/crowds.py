"""R13 and R14: those who hold connections and say nothing do not keep others out.

A port scanner, a modality that hangs, a proxy that forgot, or somebody who means harm. Beside
hundreds of them C-ECHO and QIDO-RS must be answered; the stalled ones are cut; and who has an
association and is merely idle keeps it, until there are no more to be had. The last few are for the
peers that are registered.
"""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
from tests.hardness import wire
from tests.hardness.wire import Line, associate_rq
from tests.support.product import Product
from tests.support.stalling import is_cut, stalled

from prove.images import client_of, image, running, send
from prove.promise import Outcome, Promise, Scale

BESIDE_MAX_S = 5.0
CUT_AFTER_S = 30.0
SLACK_S = 4.0
"""For a machine that is busy."""
AT_ONCE_MAX_S = 2.0

ASSOCIATIONS, RESERVED = (
    "PACSTEWARD_DICOM__ASSOCIATIONS_MAX",
    "PACSTEWARD_DICOM__RESERVED_FOR_REGISTERED",
)
LIMIT_EXCEEDED = (2, 3, 2)
"""Rejected-transient, service-provider (presentation), local-limit-exceeded (PS3.8 9.3.4)."""
FURTHER = 20
"""Strangers that call when there is no room, and are refused one after the other."""


def slow_callers(scale: Scale) -> Outcome:
    """Stall at both doors, ask beside, and see who is cut."""
    count = 60 if scale.is_quick else 500
    with _usual_limits(), running(scale.folder) as product, client_of(product) as client:
        _allow_files(2 * count + 200)
        token = client.headers["authorization"].partition(" ")[2]
        send(product, [image("2.25.13.1", 1, 1)])
        scale.say(f"stalling {count} connections to each port")
        with stalled(product, token, count) as lines:
            began = time.monotonic()
            echo_s, query_s = [], []
            for _ in range(10):
                echo_s.append(_echo_s(product))
                asked = time.monotonic()
                assert client.get("/dicom-web/studies?limit=1").status_code == 200
                query_s.append(time.monotonic() - asked)
            held = _still_held(lines, began + CUT_AFTER_S + SLACK_S)
            cut_s = time.monotonic() - began
        echo_after_s = _echo_s(product)
    figure = (
        f"beside {count} stalled connections a port: C-ECHO {max(echo_s):.2f} s, "
        f"QIDO-RS {max(query_s):.2f} s at most; {len(lines) - held} of {len(lines)} were cut, the "
        f"last after {cut_s:.0f} s"
    )
    details: dict[str, object] = {
        "echo s": echo_s,
        "query s": query_s,
        "echo after s": echo_after_s,
        "held": held,
        "cut within s": cut_s,
    }
    passed = max(echo_s + query_s) <= BESIDE_MAX_S and held == 0
    return Outcome(passed, figure, details)


def _echo_s(product: Product) -> float:
    began = time.monotonic()
    with Line(product.dimse_port) as line:
        line.socket.settimeout(2 * BESIDE_MAX_S)
        line.associate()
        assert line.echo()
    return time.monotonic() - began


def _still_held(lines: Sequence[socket.socket], until: float) -> int:
    held = 0
    for line in lines:
        line.settimeout(max(0.01, until - time.monotonic()))
        held += not is_cut(line)
    return held


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking for an association."""

    kind: int
    reason: tuple[int, ...]
    seconds: float

    @property
    def is_accepted(self) -> bool:
        """Whether the association is open."""
        return self.kind == wire.ASSOCIATE_AC

    @property
    def is_refused_rightly(self) -> bool:
        """Whether it was refused for want of room, with the reason that says so."""
        return self.kind == wire.ASSOCIATE_RJ and self.reason == LIMIT_EXCEEDED


def idle_crowd(scale: Scale) -> Outcome:
    """Fill all places with idle strangers; let peers have theirs; refuse what is beyond."""
    total, reserved = (110, 10) if scale.is_quick else (1000, 10)
    limits = {ASSOCIATIONS: str(total), RESERVED: str(reserved)}
    with (
        _usual_limits(),
        running(scale.folder, **limits) as product,
        ExitStack() as inside,
    ):
        _allow_files(total + 200)
        send(product, [image("2.25.14.1", 1, 1)])
        product.run("peers", "add", "CT1", "127.0.0.1", "104")
        before = _memory(product)
        scale.say(f"opening {total - reserved} idle associations")
        strangers = [_call(product, inside, b"STRANGER") for _ in range(total - reserved)]
        each = (_memory(product) - before) / len(strangers)
        beyond = [_call(product, inside, b"STRANGER") for _ in range(FURTHER)]
        peers = [_call(product, inside, b"CT1") for _ in range(reserved)]
        last = _call(product, inside, b"CT1")
        with client_of(product) as client:
            asked = time.monotonic()
            assert client.get("/dicom-web/studies?limit=1").status_code == 200
            query_s = time.monotonic() - asked
    slowest_s = max(one.seconds for one in (*beyond, last))
    details: dict[str, object] = {
        "places": total,
        "reserved": reserved,
        "strangers let in": sum(one.is_accepted for one in strangers),
        "refused with 2/3/2": sum(one.is_refused_rightly for one in beyond),
        "peers let in": sum(one.is_accepted for one in peers),
        "a peer too many is refused": last.is_refused_rightly,
        "slowest refusal s": slowest_s,
        "query beside s": query_s,
        "bytes an association": each,
    }
    passed = (
        all(one.is_accepted for one in (*strangers, *peers))
        and all(one.is_refused_rightly for one in (*beyond, last))
        and slowest_s <= AT_ONCE_MAX_S
        and query_s <= BESIDE_MAX_S
    )
    figure = (
        f"{len(strangers)} idle strangers inside ({each / 1024:.0f} KiB each); "
        f"{details['refused with 2/3/2']} of {FURTHER} beyond were refused with 2/3/2, the slowest "
        f"after {slowest_s:.2f} s; {details['peers let in']} of {reserved} peers had their place"
    )
    return Outcome(passed, figure, details)


def _call(product: Product, inside: ExitStack, title: bytes) -> Answer:
    began = time.monotonic()
    line = inside.enter_context(Line(product.dimse_port))
    line.socket.settimeout(2 * BESIDE_MAX_S)
    line.send(associate_rq(calling=title))
    answer = line.receive()
    assert answer is not None, "closed without an answer"
    reason = tuple(answer[1][1:4]) if answer[0] == wire.ASSOCIATE_RJ else ()
    return Answer(answer[0], reason, time.monotonic() - began)


def _memory(product: Product) -> int:
    assert product.process is not None
    family = psutil.Process(product.process.pid)
    members = [family, *family.children(recursive=True)]
    return sum(int(one.memory_full_info().uss) for one in members)


@contextmanager
def _usual_limits() -> Iterator[None]:
    """Start the product as from a login shell, which allows 1024 open files unless raised."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _allow_files(count: int) -> None:
    """Let this process have so many more files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, 1024 + count)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


PROMISES = (
    Promise("R13", "stalled connections at both ports", slow_callers),
    Promise("R14", "a thousand idle associations, and places for peers", idle_crowd),
)
