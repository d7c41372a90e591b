"""R12, S13, S14 and the bombs: what comes from outside breaks, hangs and fills nothing.

The attacks are those of ``tests/hardness``; here there are ten thousand of each kind, made of them
by chance, and each bomb has its figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice

from tests.fuzz.damage import damaged, random_edits
from tests.hardness import (
    bombs,
    data_sets,
    test_data_sets,
    test_http,
    test_pdus,
    test_streams,
    wire,
)
from tests.hardness.data_sets import CT_STORAGE, Hostile
from tests.hardness.http_wire import request, say
from tests.hardness.strain import strained
from tests.hardness.target import (
    AT_ONCE,
    ECHO_MAX_S,
    GROWTH_MAX_BYTES,
    Target,
    faults_in,
    under_attack,
)
from tests.hardness.wire import BIG, EXPLICIT, IMPLICIT, RLE
from tests.support.samples import part10, small

from prove.promise import Outcome, Promise, Scale

EACH, EACH_QUICK = 10_000, 800
HANG_S = 3.0
SHARE = 400
"""Cases between two looks at the door."""


@dataclass
class Toll:
    """What was counted while a kind of attack went on."""

    cases: int = 0
    hangs: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    echo_s: float = 0.0
    slowest_s: float = 0.0


# --- the attacks, made by chance -----------------------------------------------------------------

Attack = Callable[[Target], str]
"""Throws one case; what it says is a fault, "" is none. Raises TimeoutError when it hangs."""


def pdus(dice: random.Random) -> Iterator[tuple[str, Attack]]:
    """Give malformed PDUs, as first words and within an association, without end."""
    for cases in test_pdus.FIRST:
        for name, data in cases():
            yield name, _first(data)
    for cases in test_pdus.INSIDE:
        for name, data in cases():
            yield name, _within(data)
    first = [wire.associate_rq(), wire.pdu(5, bytes(4)), wire.pdu(7, bytes(4)), wire.C_ECHO]
    store = wire.request(1, CT_STORAGE, has_data=True, _1000="1.2.3")
    words = [
        wire.C_ECHO,
        wire.p_data(wire.STORE, wire.command(store), is_command=True)
        + wire.p_data(wire.STORE, data_sets.template(EXPLICIT)[:400], is_command=False),
        *first,
    ]
    for number in range(1_000_000):
        if number % 2:
            yield f"first words {number}", _first(damaged(dice.choice(first), random_edits(dice)))
        else:
            sentence = b"".join(dice.choices(words, k=dice.randint(1, 4)))
            yield f"words {number}", _within(damaged(sentence, random_edits(dice)))


def _first(data: bytes) -> Attack:
    def throw(target: Target) -> str:
        return _unless_answered(test_pdus.first_answer(target, data))

    return throw


def _within(data: bytes) -> Attack:
    def throw(target: Target) -> str:
        return _unless_answered(test_pdus.answer_inside(target, data))

    return throw


def _unless_answered(said: str) -> str:
    if said == "nothing":
        raise TimeoutError
    return "" if said in ("closed", "2", "3", "4", "6", "7") else f"said {said}"


def objects(dice: random.Random) -> Iterator[tuple[str, Attack]]:
    """Give damaged data sets by C-STORE and STOW-RS in turn, without end."""
    for one in chain.from_iterable(cases() for cases in data_sets.ALL[:-1]):
        yield one.name, _stored(one)
    for number in range(1_000_000):
        syntax = dice.choice((EXPLICIT, IMPLICIT, BIG, RLE))
        data = damaged(data_sets.template(syntax), random_edits(dice))
        one = data_sets.made(f"damaged {number}", data, syntax)
        yield one.name, _stored(one) if number % 3 else _posted(one)


def _stored(one: Hostile) -> Attack:
    def throw(target: Target) -> str:
        (said,) = test_data_sets.by_c_store(target, [one])
        return "; ".join(test_data_sets.faults([said])) if said.seconds <= HANG_S else _too_late()

    return throw


def _posted(one: Hostile) -> Attack:
    def throw(target: Target) -> str:
        (said,) = test_data_sets.by_stow(target, [one])
        return "; ".join(test_data_sets.faults([said])) if said.seconds <= HANG_S else _too_late()

    return throw


def _too_late() -> str:
    raise TimeoutError


def requests(dice: random.Random) -> Iterator[tuple[str, Attack]]:
    """Give HTTP requests that are nonsense, without end."""
    for case in chain.from_iterable(cases() for cases in test_http.ALL):
        yield case.name, _asked(case)
    file = part10(small(96))
    body = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--B--"
    related = 'Content-Type: multipart/related; type="application/dicom"; boundary=B'
    json = "Content-Type: application/json"

    def whole(token: str) -> list[bytes]:
        return [
            request("GET", "/dicom-web/studies?PatientName=a*&limit=5", token, "Accept: */*"),
            request("GET", f"{test_http.AT}/rendered?viewport=9,9&window=1,2,linear", token),
            request("GET", f"{test_http.AT}/frames/1", token, "Range: bytes=0-9"),
            request("GET", test_http.WADO + "&rows=9&contentType=image/png", token),
            request("POST", "/dicom-web/studies", token, related, body=body),
            request("POST", "/api/v1/peers", token, json, body=b'{"a":[1],"b":"c"}'),
            request("GET", "/studies?q=a&page=2", token, "Cookie: a=b"),
        ]  # fmt: skip

    for number in range(1_000_000):
        edits, place = random_edits(dice), dice.randrange(7)
        case = test_http.Case(
            f"damaged {number}",
            lambda token, edits=edits, place=place: damaged(whole(token)[place], edits),  # type: ignore[misc]
            is_whole=False,
        )
        yield case.name, _asked(case)


def _asked(case: test_http.Case) -> Attack:
    def throw(target: Target) -> str:
        raw = case.make(target.token())
        heard = say(
            target.product.http_port, raw, is_whole=case.is_whole, patience_s=case.patience_s
        )
        return test_http.wrong(case, heard) if heard.status >= 0 else _too_late()

    return throw


# --- R12 -----------------------------------------------------------------------------------------

KINDS = {"PDUs": pdus, "data sets": objects, "HTTP requests": requests}


def prove_malformed_input(scale: Scale) -> Outcome:
    """R12: ten thousand of each kind; crashes, hangs, growth and the door afterwards."""
    each = EACH_QUICK if scale.is_quick else EACH
    tolls: dict[str, Toll] = {}
    with under_attack(scale.folder) as target:
        target.token()
        pids, memory = target.pids(), target.memory_bytes()
        log_size = target.product.log_file.stat().st_size
        peak = 0
        for name, cases in KINDS.items():
            toll = tolls[name] = Toll()
            some = islice(cases(random.Random(f"{name}{scale.seed}")), each)
            while share := list(islice(some, SHARE)):
                _throw(target, share, toll)
                peak = max(peak, target.memory_bytes() - memory)
                toll.echo_s = max(toll.echo_s, target.echo_s())
                scale.say(f"{name}: {toll.cases}, {len(toll.hangs)} hangs, {peak >> 20} MiB more")
        has_all = target.pids() >= pids
        with target.product.log_file.open("rb") as log:
            log.seek(log_size)
            logged = list(faults_in(log.read().decode(errors="replace").splitlines()))
    hangs = [one for toll in tolls.values() for one in toll.hangs]
    crashes = [one for toll in tolls.values() for one in toll.crashes] + logged
    echo_s = max(toll.echo_s for toll in tolls.values())
    figure = (
        ", ".join(f"{toll.cases} {name}" for name, toll in tolls.items())
        + f": {len(crashes)} crashes, {len(hangs)} hangs, "
        f"{'no' if has_all else 'A'} process renewed, {peak >> 20} MiB more, "
        f"C-ECHO {echo_s * 1000:.0f} ms"
    )
    passed = (
        has_all and not hangs and not crashes and peak <= GROWTH_MAX_BYTES and echo_s <= ECHO_MAX_S
    )
    return Outcome(
        passed,
        figure,
        {
            "cases": {name: toll.cases for name, toll in tolls.items()},
            "slowest_s": {name: round(toll.slowest_s, 3) for name, toll in tolls.items()},
            "hangs": hangs[:50],
            "crashes": crashes[:50],
            "growth_bytes": peak,
            "echo_s": echo_s,
        },
    )


def _throw(target: Target, share: Sequence[tuple[str, Attack]], toll: Toll) -> None:
    def one(case: tuple[str, Attack]) -> None:
        name, attack = case
        began = time.monotonic()
        try:
            fault = _patiently(target, attack)
        except TimeoutError:
            toll.hangs.append(name)
            return
        toll.slowest_s = max(toll.slowest_s, time.monotonic() - began)
        if fault:
            toll.crashes.append(f"{name}: {fault}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, share))
    toll.cases += len(share)


def _patiently(target: Target, attack: Attack) -> str:
    """Throw a case; again when nothing came, since a busy machine is no hang, and a hang stays."""
    for _ in range(2):
        try:
            return attack(target)
        except TimeoutError:
            continue
    return attack(target)


# --- bombs ---------------------------------------------------------------------------------------


def prove_bombs(scale: Scale) -> Outcome:
    """Throw each bomb, and measure what it costs at its worst."""
    rows = []
    faults = []
    with under_attack(scale.folder) as target:
        pids = target.pids()
        claims = bombs.claims() if not scale.is_quick else islice(bombs.claims(), 0, None, 3)
        for bomb in chain(
            bombs.wire_bombs(),
            bombs.questions(),
            bombs.bodies(),
            chain.from_iterable(map(bombs.stored_bombs, claims)),
        ):
            seen = strained(target, bomb.throw)
            row = {
                "bomb": bomb.name,
                "heard": seen.heard,
                "seconds": round(seen.seconds, 2),
                "peak_mib": seen.peak_bytes >> 20,
                "echo_s": round(seen.echo_s, 3),
            }
            rows.append(row)
            is_fault = (
                seen.heard not in bomb.expected
                or seen.peak_bytes > GROWTH_MAX_BYTES
                or seen.seconds > bomb.seconds_max
                or seen.echo_s > ECHO_MAX_S
            )
            if is_fault:
                faults.append(row)
                scale.say(str(row))
        has_all = target.pids() >= pids
    worst = max(rows, key=lambda row: row["peak_mib"])
    slowest = max(rows, key=lambda row: row["echo_s"])
    figure = (
        f"{len(rows)} bombs: {len(faults)} beyond a limit; at most {worst['peak_mib']} MiB "
        f"({worst['bomb']}), C-ECHO beside at most {slowest['echo_s']} s"
    )
    return Outcome(not faults and has_all, figure, {"faults": faults, "bombs": rows})


# --- S13, S14 ------------------------------------------------------------------------------------


def prove_nothing_comes_alive(scale: Scale) -> Outcome:
    """S13: what a preamble could be run as is gone, and nothing is shown as a page."""
    alive = []
    with under_attack(scale.folder) as target:
        for kind in data_sets.PREAMBLES:
            try:
                test_data_sets.test_s13_a_preamble_never_comes_back_live(target, kind)
            except AssertionError as error:
                alive.append(f"{kind}: {error}")
    count = len(data_sets.PREAMBLES)
    return Outcome(not alive, f"{count} kinds of preamble: {len(alive)} live", {"alive": alive})


def prove_decoders(scale: Scale) -> Outcome:
    """S14: broken compressed frames end in 4xx, and the next picture is drawn."""
    flips, cuts = (10, 0) if scale.is_quick else (150, 50)
    faults = []
    count = 0
    with under_attack(scale.folder) as target:
        pids, memory = target.pids(), target.memory_bytes()
        test_streams.test_s14_a_decoder_has_bounds_no_network_and_no_secrets(target)
        for name in test_streams.SAMPLES:
            broken = list(test_streams.objects(name, flips, cuts))
            count += len(broken)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                found = pool.map(lambda one: test_streams.wrong(target, one), broken)
                faults += [fault for fault in found if fault]
            answer = target.client().get(f"{test_streams.GOOD}/rendered?viewport={count},33")
            if answer.status_code != 200:
                faults.append(f"after {name}: {answer.status_code}")
            scale.say(f"{name}: {len(broken)} broken frames, {len(faults)} faults so far")
        grown = target.memory_bytes() - memory
        # A second web process may have begun meanwhile.
        has_all = target.pids() >= pids
    figure = (
        f"{count} broken frames of {len(test_streams.SAMPLES)} codecs, each asked for four times: "
        f"{len(faults)} not refused or wrong, {grown >> 20} MiB more"
    )
    passed = not faults and has_all and grown <= GROWTH_MAX_BYTES
    return Outcome(passed, figure, {"faults": faults[:50], "broken": count, "growth_bytes": grown})


PROMISES = (
    Promise("R12", "Malformed PDUs, data sets and HTTP requests", prove_malformed_input),
    Promise("Bombs", "Little that becomes much, by every door", prove_bombs),
    Promise("S13", "Files of two kinds at once", prove_nothing_comes_alive),
    Promise("S14", "Broken JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE frames", prove_decoders),
)
