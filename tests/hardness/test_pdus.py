"""R12 on the DIMSE door: malformed PDUs and commands are answered or cut, and nothing breaks."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.hardness import wire
from tests.hardness.target import Target, at_once
from tests.hardness.wire import (
    CT_STORAGE,
    ECHO,
    FIND,
    GET,
    MOVE,
    P_DATA,
    STORE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    associate_rq,
    command,
    context,
    item,
    p_data,
    pdu,
    pdv,
    request,
)

Cases = Iterator[tuple[str, bytes]]

IDENTIFIER = struct.pack("<HHI", 8, 0x52, 6) + b"STUDY "


def lengths() -> Cases:
    """Every length field of an association request, wrong in every way."""
    good = associate_rq()
    for at, size in wire.length_fields(good):
        there = int.from_bytes(good[at : at + size], "big")
        top = 256**size - 1
        for value in sorted({0, 1, there - 1, there + 1, there * 2, top // 2, top - 1, top}):
            if 0 <= value <= top and value != there:
                changed = value.to_bytes(size, "big")
                yield f"length at {at} = {value}", good[:at] + changed + good[at + size :]


def cuts() -> Cases:
    """The request cut short at each byte; its length field as it was, and corrected."""
    good = associate_rq()
    for end in range(len(good)):
        yield f"cut at {end}", good[:end]
        if end >= 6:
            yield f"shortened to {end}", pdu(1, good[6:end])


def flips() -> Cases:
    """The request with a few bytes replaced."""
    good = associate_rq()
    for seed in range(250):
        dice = random.Random(seed)
        changed = bytearray(good)
        for _ in range(dice.randint(1, 6)):
            changed[dice.randrange(len(changed))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20))
        yield f"flips {seed}", bytes(changed)


def odd_requests() -> Cases:
    """Requests that are well formed and make no sense."""
    for version in (0, 2, 0x8000, 0xFFFE):
        yield f"version {version}", associate_rq(version=version)
    titles = (b"", b" " * 16, b"\0" * 16, b"A\r\nB", b"\x1b[2J", b"A\\B", b"\xff" * 16, b"<script>")
    for title in titles:
        yield f"called {title!r}", associate_rq(called=title)
        yield f"calling {title!r}", associate_rq(calling=title)
    yield "no contexts", associate_rq(contexts=b"")
    yield "no user information", associate_rq(user=b"")
    yield "no application context", associate_rq(application=b"")
    twice = item(0x10, wire.APPLICATION_CONTEXT.encode()) * 2
    yield "two application contexts", associate_rq(application=twice)
    yield "other application context", associate_rq(application=item(0x10, b"1.2.3"))
    for count in (128, 129, 200, 400):
        many = [context(2 * n + 1, VERIFICATION, [wire.IMPLICIT]) for n in range(count)]
        yield f"{count} contexts", associate_rq(contexts=b"".join(many))
    for number in (0, 2, 4, 254):
        one = context(number, VERIFICATION, [wire.IMPLICIT])
        yield f"context number {number}", associate_rq(contexts=one)
    one = context(1, VERIFICATION, [wire.IMPLICIT])
    yield "context twice", associate_rq(contexts=one + one)
    yield "context twice, other", associate_rq(contexts=one + context(1, CT_STORAGE, ["1.2"]))
    for syntaxes in ((), ("",), ("x" * 64,), ("1.2.3",) * 500):
        odd = context(1, VERIFICATION, list(syntaxes))
        yield f"{len(syntaxes)} syntaxes", associate_rq(contexts=odd)
    for abstract in ("", "../../etc/passwd", "\r\n", "1." * 40, "1.2.840.10008.1.1\0\0"):
        odd = context(1, abstract, [wire.IMPLICIT])
        yield f"abstract {abstract!r}", associate_rq(contexts=odd)
    for size in (0, 1, 7, 8, 0xFFFFFFFF):
        user = item(0x50, item(0x51, struct.pack(">I", size)) + item(0x52, b"1.2"))
        yield f"maximum length {size}", associate_rq(user=user)
    for kind in (0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x99):
        for body in (b"", b"\0", b"\xff" * 3, b"\0" * 40, b"\xff" * 300):
            user = item(0x50, item(0x51, b"\0\1\0\0") + item(kind, body))
            yield f"user item {kind:02X} of {len(body)}", associate_rq(user=user)


def odd_identities() -> Cases:
    """User identities that nobody has."""
    for kind in (1, 2, 3, 4, 5):
        for name in (b"", b"\xff" * 1000, b"a\0b"):
            body = struct.pack(">BBH", kind, 1, len(name)) + name + struct.pack(">H", 5) + b"wrong"
            user = item(0x50, item(0x51, b"\0\1\0\0") + item(0x58, body))
            yield f"identity {kind} of {len(name)}", associate_rq(user=user)


def first_words() -> Cases:
    """What is no request at all."""
    for kind in range(256):
        yield f"first PDU {kind}", pdu(kind, bytes(68))
    for kind in (0, 1, 4, 5, 7, 99):
        yield f"first PDU {kind} of 4 GiB", pdu(kind, bytes(100), 0xFFFFFFFF)
        yield f"first PDU {kind} empty", pdu(kind, b"")
    yield "data before the association", wire.C_ECHO
    yield "HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "TLS", b"\x16\x03\x01\x02\x00" + bytes(512)
    yield "HL7", b"\x0bMSH|^~\\&|A\r\x1c\r"
    yield "nothing", b""
    yield "zeros", bytes(2000)
    for seed in range(40):
        yield f"noise {seed}", random.Random(seed).randbytes(200)


SIGN_IN_S = 20.0
FIRST = (lengths, cuts, flips, odd_requests, first_words)


def fragments() -> Cases:
    """P-DATA that is cut into wrong pieces."""
    echo = command(request(0x30))
    for length in (0, 1, 2, 3, len(echo), len(echo) + 3, 65536, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"PDV length {length}", pdu(P_DATA, pdv(ECHO, 3, echo, length))
    for length in (1, 5, 6, 0x40000, 0x40001, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"PDU length {length}", pdu(P_DATA, pdv(ECHO, 3, echo), length)
    yield "empty PDU", pdu(P_DATA, b"")
    yield "empty fragments", pdu(P_DATA, pdv(ECHO, 1, b"") * 100 + pdv(ECHO, 3, echo))
    yield "empty last fragment", pdu(P_DATA, pdv(ECHO, 1, echo) + pdv(ECHO, 3, b""))
    yield "empty command", pdu(P_DATA, pdv(ECHO, 3, b""))
    for number in (0, 2, 4, 11, 99, 255):
        yield f"context {number}", p_data(number, echo, is_command=True)
    for control in range(4, 256, 9):
        yield f"control {control}", pdu(P_DATA, pdv(ECHO, control, echo))
    yield (
        "byte by byte",
        b"".join(
            p_data(ECHO, echo[n : n + 1], is_command=True, is_last=n + 1 == len(echo))
            for n in range(len(echo))
        ),
    )
    half = p_data(ECHO, echo[:20], is_command=True, is_last=False)
    yield "command on two contexts", half + p_data(STORE, echo[20:], is_command=True)
    yield "command then data", half + p_data(ECHO, bytes(10), is_command=False)
    yield "command without end", half * 4000
    yield "data without command", p_data(STORE, bytes(100), is_command=False)
    store = p_data(
        STORE, command(request(1, CT_STORAGE, has_data=True, _1000="1.2.3")), is_command=True
    )
    yield "store without data", store
    yield "store with data elsewhere", store + p_data(FIND, bytes(8), is_command=False)
    yield "store in a store", store + store
    yield "store of nothing", store + p_data(STORE, b"", is_command=False)
    for kind in (0, 1, 2, 3, 6, 8, 0x80, 255):
        yield f"PDU {kind} inside", pdu(kind, bytes(70))
        yield f"PDU {kind} in a store", store + pdu(kind, bytes(70))
    yield "request inside", associate_rq()
    yield "abort with length", pdu(7, bytes(400))
    yield "release of 4 GiB", pdu(5, b"", 0xFFFFFFFF)
    yield "release twice", pdu(5, bytes(4)) * 2
    for seed in range(60):
        dice = random.Random(seed)
        changed = bytearray(p_data(ECHO, echo, is_command=True))
        for _ in range(dice.randint(1, 4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        yield f"flipped echo {seed}", bytes(changed)


def command_sets() -> Cases:
    """Command sets that break PS3.7."""

    def sent(number: int, raw: bytes, *data: bytes) -> bytes:
        parts = [p_data(number, one, is_command=False) for one in data]
        return p_data(number, raw, is_command=True) + b"".join(parts)

    echo = command(request(0x30))
    for length in (0, 1, len(echo), 0x7FFFFFFF, 0xFFFFFFFF):
        raw = echo[:8] + struct.pack("<I", length) + echo[12:]
        yield f"group length {length}", sent(ECHO, raw)
    yield "no group length", sent(ECHO, echo[12:])
    yield "explicit VR", sent(ECHO, struct.pack("<HH2sHH", 0, 0x100, b"US", 2, 0x30))
    yield "big endian", sent(ECHO, struct.pack(">HHIH", 0, 0x100, 2, 0x30))
    for end in range(1, len(echo), 3):
        yield f"command cut at {end}", sent(ECHO, echo[:end])
    for tag in (0x0002, 0x0100, 0x0110, 0x0800):
        yield f"without {tag:04X}", sent(ECHO, command(request(0x30, without=[tag])))
        for value in (b"", b"\0", b"\0" * 3, b"\xff" * 4, b"x" * 70, b"A" * 60000):
            odd = {**request(0x30), tag: value}
            yield f"{tag:04X} of {len(value)} bytes", sent(ECHO, command(odd))
    for at in range(8, len(echo), 5):
        raw = echo[:at] + b"\xff\xff\xff\xff" + echo[at + 4 :]
        yield f"element length at {at}", sent(ECHO, raw)
    yield "element of group 8", sent(ECHO, echo + wire.element(0x18, "1.2", group=8))
    yield "element twice", sent(ECHO, echo + wire.element(0x100, 0x01))
    for field in (*range(0, 0x40), 0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x0FFF, 0x7FFF):
        if field not in (0x30,):
            yield f"field {field:04X}", sent(ECHO, command(request(field, "1.2.3")))
            with_data = request(field, has_data=True)
            yield f"field {field:04X} with data", sent(ECHO, command(with_data), IDENTIFIER)
    for field in (0x8001, 0x8020, 0x8030, 0x8110, 0xFFFF):
        yield f"response {field:04X}", sent(ECHO, command(request(field, _0120=9, _0900=0)))
        yield f"response {field:04X} without status", sent(ECHO, command(request(field)))
    cancel = request(0x0FFF, without=[0x0002, 0x0110], _0120=1)
    yield "cancel without operation", sent(FIND, command(cancel))
    yield "cancel with data", sent(FIND, command({**cancel, 0x0800: 0}), IDENTIFIER)
    contexts = {FIND: STUDY_ROOT_FIND, GET: STUDY_ROOT_GET, MOVE: STUDY_ROOT_MOVE}
    fields = {FIND: 0x20, GET: 0x10, MOVE: 0x21}
    for number, sop_class in contexts.items():
        field = fields[number]
        yield f"{field:02X} without data", sent(number, command(request(field, sop_class)))
        asked = command(request(field, sop_class, has_data=True, _0600="NOWHERE"))
        wrong = (b"\0", b"\xff" * 8, IDENTIFIER[:-3], bytes(2000), b"MZ" * 99, IDENTIFIER * 50)
        for data in wrong:
            yield f"{field:02X} with {data[:4]!r}", sent(number, asked, data)
        for seed in range(15):
            noise = random.Random(seed).randbytes(120)
            yield f"{field:02X} with noise {seed}", sent(number, asked, noise)
    store = request(1, CT_STORAGE, has_data=True, _1000="1.2.3")
    for uid in ("", "../../etc/passwd", "9" * 65, "abc", "1.2.3\r\n", "1..2", "1.2/3", "\0\0"):
        odd = command({**store, 0x1000: uid})
        yield f"store of {uid!r}", sent(STORE, odd, IDENTIFIER)
        other = command({**store, 0x0002: uid})
        yield f"store of class {uid!r}", sent(STORE, other, IDENTIFIER)
    yield "echo with data", sent(ECHO, command(request(0x30, has_data=True)), bytes(10))
    yield "echo that promises data", sent(ECHO, command(request(0x30, has_data=True)))


INSIDE = (fragments, command_sets)


def first_answer(target: Target, data: bytes) -> str:
    """Send `data` on a new connection; say what came of it."""
    with target.line() as line:
        line.send(data)
        if not wire.is_whole(data):
            line.no_more()
        return _heard(line)


def answer_to_a_password(target: Target, data: bytes) -> str:
    """Do the same with the patience of a sign-in, since guessing is slowed on purpose."""
    with target.line() as line:
        line.socket.settimeout(SIGN_IN_S)
        line.send(data)
        return _heard(line)


def answer_inside(target: Target, data: bytes) -> str:
    """Send `data` in an association, and a C-ECHO after it, so that something must come."""
    with target.line() as line:
        line.associate()
        line.send(data + wire.C_ECHO)
        if not wire.is_whole(data):
            line.no_more()
        return _heard(line)


def _heard(line: wire.Line) -> str:
    try:
        answer = line.receive()
    except TimeoutError:
        return "nothing"
    return "closed" if answer is None else f"{answer[0]}"


def hung(
    target: Target, cases: Cases, ask: Callable[[Target, bytes], str]
) -> list[tuple[str, str]]:
    """Return the cases after which nothing came, or what no door may say."""
    named = list(cases)
    heard = at_once(lambda case: ask(target, case[1]), named)
    expected = {"closed", "2", "3", "4", "6", "7"}
    return [
        (name, said) for (name, _), said in zip(named, heard, strict=True) if said not in expected
    ]


@pytest.mark.parametrize("cases", FIRST, ids=lambda cases: cases.__name__)
def test_r12_a_malformed_first_pdu_is_answered_or_cut(
    target: Target, cases: Callable[[], Cases]
) -> None:
    with target.unharmed():
        assert hung(target, cases(), first_answer) == []


def test_r12_an_odd_user_identity_is_answered_in_the_time_of_a_sign_in(target: Target) -> None:
    with target.unharmed():
        assert hung(target, odd_identities(), answer_to_a_password) == []


@pytest.mark.parametrize("cases", INSIDE, ids=lambda cases: cases.__name__)
def test_r12_malformed_messages_are_answered_or_cut(
    target: Target, cases: Callable[[], Cases]
) -> None:
    with target.unharmed():
        assert hung(target, cases(), answer_inside) == []


def test_r12_there_are_enough_cases() -> None:
    assert sum(len(list(cases())) for cases in (*FIRST, *INSIDE)) >= 1500
