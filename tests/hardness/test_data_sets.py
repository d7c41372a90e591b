"""R12, S8, S11, S13: hostile data sets by C-STORE and STOW-RS are refused or kept, never half."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest

from tests.hardness import data_sets as hostile
from tests.hardness.data_sets import REFUSED, WARNED, Hostile
from tests.hardness.target import Target, at_once
from tests.hardness.wire import (
    BIG,
    CT_STORAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    RLE,
    Line,
    associate_rq,
    context,
)
from tests.support.samples import part10, small

SYNTAXES = (EXPLICIT, IMPLICIT, BIG, RLE, DEFLATED, "1.2.840.10008.1.2.4.90")
CONTEXTS = {syntax: 2 * place + 1 for place, syntax in enumerate(SYNTAXES)}

SUCCESS, CUT = 0x0000, None


@dataclass(frozen=True, slots=True)
class Said:
    """What the sender of an object heard: a DIMSE status, or a Failure or Warning Reason."""

    case: Hostile
    status: int | None
    seconds: float
    kept_as: str = ""
    """SOP Instance UID; STOW-RS believes that of the data set."""

    @property
    def is_kept(self) -> bool:
        return self.status is not None and (self.status == SUCCESS or self.status >> 12 == 0xB)


def by_c_store(target: Target, cases: Sequence[Hostile]) -> list[Said]:
    """Send objects over one association; a new one when it was cut."""
    asking = associate_rq(
        contexts=b"".join(
            context(number, CT_STORAGE, [syntax]) for syntax, number in CONTEXTS.items()
        )
    )
    said = []
    line: Line | None = None
    for case in cases:
        if line is None:
            line = target.line()
            line.associate(asking)
        began = time.monotonic()
        status = line.store(CONTEXTS[case.syntax], case.sop_class, case.uid, case.data)
        said.append(Said(case, status, time.monotonic() - began, case.uid))
        if status is CUT:
            line.socket.close()
            line = None
    if line is not None:
        line.socket.close()
    return said


def by_stow(target: Target, cases: Sequence[Hostile]) -> list[Said]:
    """Send objects as the only part of a request each."""
    said = []
    for case in cases:
        began = time.monotonic()
        answer = target.client().post(
            "/dicom-web/studies",
            content=case.part10(),
            headers={"content-type": "application/dicom", "accept": "application/dicom+json"},
        )
        seconds = time.monotonic() - began
        kept = answer.json().get("00081199")
        uid = kept["Value"][0]["00081155"]["Value"][0] if kept else ""
        said.append(Said(case, _reason(answer), seconds, uid))
    return said


def _reason(answer: httpx.Response) -> int:
    assert answer.status_code in (200, 202, 400, 409), answer.text
    found = answer.json()
    for sequence, tag in (("00081198", "00081197"), ("0008119A", "00081197")):
        if sequence in found:
            return int(found[sequence]["Value"][0][tag]["Value"][0])
    if answer.status_code == 400:
        return 0xC000
    item = found["00081199"]["Value"][0]
    reason = int(item["00081196"]["Value"][0]) if "00081196" in item else SUCCESS
    assert answer.status_code == (202 if reason else 200)
    return reason


DOORS: dict[str, Callable[[Target, Sequence[Hostile]], list[Said]]] = {
    "C-STORE": by_c_store,
    "STOW-RS": by_stow,
}


def faults(said: Sequence[Said]) -> Iterator[str]:
    """Say which objects did not get what they deserve."""
    for one in said:
        heard = "cut" if one.status is None else f"{one.status:04X}"
        if one.status is CUT:
            yield f"{one.case.name}: the association was cut"
        elif one.case.expected == REFUSED and one.is_kept:
            yield f"{one.case.name}: kept with {heard}"
        elif one.case.expected == WARNED and one.status == SUCCESS:
            yield f"{one.case.name}: plain Success"
        elif not one.is_kept and one.status >> 12 not in (0xA, 0xC) and one.status != 0x0122:
            yield f"{one.case.name}: {heard}"


def unreadable(target: Target, said: Sequence[Said]) -> Iterator[str]:
    """Say which of the kept objects cannot be had back, or break what shows them."""

    def look(one: Said) -> str:
        client = target.client()
        found = client.get(
            "/dicom-web/instances",
            params={"SOPInstanceUID": one.kept_as, "includefield": "all"},
        )
        if found.status_code != 200:
            return f"{one.case.name}: QIDO-RS {found.status_code}"
        (entry,) = json.loads(found.content)
        study, series, sop = (
            entry[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")
        )
        at = f"/dicom-web/studies/{study}/series/{series}/instances/{sop}"
        whole = client.get(
            at, headers={"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        )
        if whole.status_code != 200:
            return f"{one.case.name}: WADO-RS {whole.status_code} {whole.text[:200]}"
        if one.case.data not in whole.content and one.case.syntax not in (DEFLATED, BIG):
            return f"{one.case.name}: other bytes came back"
        for resource in ("metadata", "rendered", "thumbnail", "frames/1"):
            answer = client.get(f"{at}/{resource}")
            if answer.status_code >= 500 and answer.status_code not in (501,):
                return f"{one.case.name}: {resource} {answer.status_code} {answer.text[:200]}"
            if resource == "metadata" and answer.status_code == 200:
                json.loads(answer.content)
        page = client.get(f"/studies/{study}/series/{series}/instances/{sop}")
        if page.status_code != 200 or live_markup(page.text):
            return f"{one.case.name}: page {page.status_code} {live_markup(page.text)}"
        return ""

    seen = at_once(look, [one for one in said if one.is_kept], threads=4)
    return (fault for fault in seen if fault)


LIVE = re.compile(r"<script>|<img[^>]*onerror|javascript:alert\(1\)\"|\x1b|\u202e|\{49\}")


def live_markup(page: str) -> list[str]:
    """Find what would do something in a browser that came from an object."""
    return LIVE.findall(page)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("cases", hostile.ALL, ids=lambda cases: cases.__name__)
def test_r12_hostile_objects_are_refused_or_kept_and_never_half(
    target: Target, door: str, cases: Callable[[], Iterator[Hostile]]
) -> None:
    with target.unharmed():
        some = list(cases())
        if door == "STOW-RS":
            some = some[::3] if len(some) > 20 else some
        share = max(1, len(some) // 4 + 1)
        shares = [some[at : at + share] for at in range(0, len(some), share)]
        said = [
            one for part in at_once(lambda part: DOORS[door](target, part), shares) for one in part
        ]
        found = [*faults(said), *unreadable(target, said)]
        assert not found, "\n".join(found)


def test_s11_lists_stay_valid_and_pages_show_no_live_markup(target: Target) -> None:
    """Runs behind the others: all that they left is on these lists."""
    client = target.client()
    with target.unharmed():
        for level in ("studies", "series", "instances"):
            answer = client.get(f"/dicom-web/{level}", params={"limit": 1000})
            assert answer.status_code == 200
            assert json.loads(answer.content)
        for path in ("/studies", "/studies?q=script", "/studies?order=patient", "/audit", "/peers"):
            page = client.get(path)
            assert page.status_code == 200, path
            assert live_markup(page.text) == [], path
            assert "unsafe-inline" not in page.headers["content-security-policy"]


@pytest.mark.parametrize("kind", hostile.PREAMBLES)
def test_s13_a_preamble_never_comes_back_live(target: Target, kind: str) -> None:
    data = part10(small(97, 1, 1 + list(hostile.PREAMBLES).index(kind)))
    stored = target.client().post(
        "/dicom-web/studies",
        content=hostile.PREAMBLES[kind][:128] + data[128:],
        headers={"content-type": "application/dicom"},
    )
    if stored.status_code == 409:
        return
    (item,) = stored.json()["00081199"]["Value"]
    whole = target.client().get(
        item["00081190"]["Value"][0], headers={"accept": "application/dicom"}
    )
    assert whole.content[:128] == bytes(128)
    assert whole.content[128:132] == b"DICM"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]


def test_r12_there_are_enough_objects() -> None:
    assert sum(len(list(cases())) for cases in hostile.ALL) >= 800
