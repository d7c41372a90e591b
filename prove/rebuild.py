"""The index made anew says what the old one said, decisions included.

An archive gets objects small and big, other content under known UIDs, and decisions at its command
line: studies are hidden and shown again, removed, and partly sent anew. Then the index is compared
with the one that ``pacsteward archive rebuild`` makes from landing log, objects and ledger: every
row of every table, apart from keys, moments of writing and versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from tests.support.load import Sent, instance, related

from pacsteward.archive.fixtures.index_picture import picture
from pacsteward.archive.fixtures.sender import data_set, meta
from pacsteward.base.db import open_database
from pacsteward.dicom.part10 import encode_part10_head
from prove.promise import Outcome, Promise, Scale, together
from prove.sites import KINDS, Site, beneath, database, sending, site

ACKNOWLEDGED = 3_000
CONFLICTS = 20


def rebuild_index(scale: Scale) -> Outcome:
    """Rebuild."""
    count = 300 if scale.is_quick else ACKNOWLEDGED
    outcomes = {}
    for kind in KINDS:
        say = beneath(scale.say, kind)
        with database(kind) as url, site(scale.folder / kind, url) as place:
            with sending(place.load):
                _fill(place, count)
            say(f"filled: {len(place.load.acknowledged)} instances shown")
            outcomes[kind] = _rebuild(place, url)
    return together(outcomes)


def _fill(place: Site, count: int) -> None:
    """Send, decide, and send again."""
    load = place.load
    load.await_acknowledged(count // 2)
    load.pause()
    _send_conflicts(place)
    _decide(place, "reject", sender=1)
    hidden = _decide(place, "reject", sender=2)
    place.product.run("archive", "restore", *{sent.study for sent in hidden.values()})
    load.acknowledged |= hidden
    load.tried |= hidden
    removed = _decide(place, "delete", sender=3)
    _send_again(place, sorted(removed)[:5])
    _decide(place, "delete", sender=5)
    load.resume()
    load.await_acknowledged(count - count // 2)
    load.pause()
    # Hidden ones that came after the decision are shown; so the last word is spoken here.
    _decide(place, "reject", sender=1)
    load.resume()


def _decide(place: Site, verb: str, *, sender: int) -> dict[str, Sent]:
    """Decide on a sender's first study; return what is not shown any more."""
    study = instance(sender, 0)[1].study
    place.product.run("archive", verb, study)
    gone = {uid: sent for uid, sent in place.load.tried.items() if sent.study == study}
    for uid in gone:
        place.load.tried.pop(uid)
        place.load.acknowledged.pop(uid, None)
    return gone


def _send_conflicts(place: Site) -> None:
    """Send other content under UIDs that are known, one of them of each sender."""
    for number in range(CONFLICTS):
        uid, sent, _ = instance(number % 4 + 1, number // 4)
        if uid in place.load.acknowledged:
            other = data_set(uid, study=sent.study, series=sent.series, number=90_000 + number)
            assert _store(place, uid, other) == 202


def _send_again(place: Site, uids: list[str]) -> None:
    """Send what was removed."""
    for uid in uids:
        _, sent, data = instance(3, int(uid.rpartition(".")[2]))
        assert _store(place, uid, data) == 200
        place.load.tried[uid] = place.load.acknowledged[uid] = sent


def _store(place: Site, uid: str, data: bytes) -> int:
    headers = {
        "Authorization": f"Bearer {place.token}",
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
    }
    body = related([encode_part10_head(meta(uid)) + data])
    address = f"{place.product.url}/dicom-web/studies"
    return httpx.post(address, headers=headers, content=body, timeout=60).status_code


def _rebuild(place: Site, url: str) -> Outcome:
    """Compare the index with the one that is made in its place."""
    assert place.product.stop() == 0
    before = _picture(place, url)
    told = place.product.run("archive", "rebuild")
    after = _picture(place, url)
    different = _different(before, after)
    place.product.start()
    place.survey_all()
    rows = {name: len(found) for name, found in before.items()}
    return Outcome(
        not different and place.findings.is_clean,
        f"{sum(rows.values())} rows ({rows['instance']} instances, "
        f"{rows['conflict']} conflicts, {_hidden(before)} hidden), "
        f"{sum(different.values())} different; {place.findings.words()}",
        {
            "rows": rows,
            "different": different,
            "told": told,
            "found": place.findings.counts(),
        },
    )


def _picture(place: Site, url: str) -> dict[str, list[dict[str, Any]]]:
    opened = open_database(url or Path(place.product.data / "index.db"))
    try:
        return picture(opened)
    finally:
        opened.close()


def _different(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]
) -> dict[str, int]:
    """Count the rows of each table that only one of the two has."""
    found = {}
    for name in before:
        one, other = set(map(repr, before[name])), set(map(repr, after[name]))
        if count := len(one ^ other) + abs(len(before[name]) - len(after[name])):
            found[name] = count
    return found


def _hidden(rows: dict[str, list[dict[str, Any]]]) -> int:
    return sum(1 for row in rows["instance"] if row["rejected_for"])


PROMISES = (Promise("rebuild", "`archive rebuild` makes the same index", rebuild_index),)
