"""R9 and R10: many senders at one study, and many contents under one UID.

Devices send a study from several threads and send again what they are not sure of, all at the same
moment; and some give one UID to two images. The counts must be exact at every level, by C-FIND and
by QIDO-RS; and Success must never be said of bytes that are not kept.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import RLELossless
from tests.hardness.target import at_once
from tests.support.product import Product
from tests.support.samples import small
from tests.support.scu import find, keys, store, store_bytes

from pacsteward.archive.fixtures.sender import CT, EXPLICIT, IMPLICIT, data_set, meta
from pacsteward.dicom.part10 import encode_part10_head
from prove.images import Image, client_of, image, running
from prove.promise import Outcome, Promise, Scale

SENDERS = 8
SPLIT_SHARE, SAME = 60, 9
"""Of 552 stores each of eight senders makes 60 that are its own and 9 that all of them make."""
SERIES = 4
STORES_MAX_S = 15.0
"""What two idle cores need at most; said, and not held against a machine that is busy."""


# --- R9 -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """What a door says of one study, level by level."""

    studies: int
    series_of_study: int
    instances_of_study: int
    instances_of_series: dict[str, int]
    instances: int


def one_study(scale: Scale) -> Outcome:
    """Have eight senders at one study, on a product of its own."""
    with running(scale.folder) as product:
        return share_study(product, scale)


def share_study(product: Product, scale: Scale) -> Outcome:
    """Send 552 times to one study, and count."""
    study = "2.25.9.1"
    numbers = range(1, SENDERS * SPLIT_SHARE + SAME + 1)
    images = [image(study, number % SERIES + 1, number) for number in numbers]
    same, split = images[:SAME], images[SAME:]
    chance = random.Random(scale.seed)
    shares = [split[number::SENDERS] + same for number in range(SENDERS)]
    for share in shares:
        chance.shuffle(share)
    statuses, seconds = _all_at_once(product, shares)
    expected = Counts(
        1,
        SERIES,
        len(images),
        dict(sorted(Counter(one.series for one in images).items())),
        len(images),
    )
    counts = {"C-FIND": _by_c_find(product, study), "QIDO-RS": _by_qido(product, study)}
    wrong = {door: str(count) for door, count in counts.items() if count != expected}
    failures = {f"{status:04X}": n for status, n in Counter(statuses).items() if status}
    figure = (
        f"{len(statuses)} stores by {SENDERS} senders in {seconds:.1f} s "
        f"(goal {STORES_MAX_S:.0f}): {sum(failures.values())} failed, "
        f"{len(wrong)} of {len(counts)} doors miscount {len(images)} instances at 3 levels"
    )
    details: dict[str, object] = {
        "seconds": seconds,
        "failures": failures,
        "expected": str(expected),
        "miscounts": wrong,
    }
    return Outcome(not failures and not wrong, figure, details)


def _all_at_once(product: Product, shares: Sequence[Sequence[Image]]) -> tuple[list[int], float]:
    """Send each share by an association of its own; return statuses, and how long all took."""
    start = threading.Barrier(len(shares))

    def send(number: int) -> list[int]:
        start.wait()
        objects = [(one.uid, one.data) for one in shares[number]]
        return [status for status, _ in store_bytes(product, objects, calling=f"CT{number}")]

    began = time.monotonic()
    answered = at_once(send, range(len(shares)), threads=len(shares))
    return [status for one in answered for status in one], time.monotonic() - began


def _by_c_find(product: Product, study: str) -> Counts:
    studies, _ = find(
        product,
        keys(
            "STUDY",
            StudyInstanceUID=study,
            NumberOfStudyRelatedSeries=None,
            NumberOfStudyRelatedInstances=None,
        ),
    )
    wanted = {"StudyInstanceUID": study, "SeriesInstanceUID": ""}
    series, _ = find(product, keys("SERIES", **wanted, NumberOfSeriesRelatedInstances=None))
    images: list[str] = []
    for row in series:
        at = {"StudyInstanceUID": study, "SeriesInstanceUID": row.SeriesInstanceUID}
        found, _ = find(product, keys("IMAGE", **at, SOPInstanceUID=""))
        images += [str(one.SOPInstanceUID) for one in found]
    return Counts(
        len(studies),
        int(studies[0].NumberOfStudyRelatedSeries) if studies else 0,
        int(studies[0].NumberOfStudyRelatedInstances) if studies else 0,
        dict(
            sorted(
                (str(row.SeriesInstanceUID), int(row.NumberOfSeriesRelatedInstances))
                for row in series
            )
        ),
        _distinct(images),
    )


def _by_qido(product: Product, study: str) -> Counts:
    at = f"/dicom-web/studies/{study}"
    with client_of(product) as client:
        studies = client.get("/dicom-web/studies", params={"StudyInstanceUID": study}).json()
        series = client.get(f"{at}/series").json()
        images = client.get(f"{at}/instances", params={"limit": "1000"}).json()
    return Counts(
        len(studies),
        studies[0]["00201206"]["Value"][0] if studies else 0,
        studies[0]["00201208"]["Value"][0] if studies else 0,
        dict(sorted((row["0020000E"]["Value"][0], row["00201209"]["Value"][0]) for row in series)),
        _distinct([row["00080018"]["Value"][0] for row in images]),
    )


def _distinct(uids: Sequence[str]) -> int:
    assert len(uids) == len(set(uids)), "an instance is listed twice"
    return len(uids)


# --- R10 ----------------------------------------------------------------------------------------

SUCCESS, CONFLICT = 0x0000, 0xB000


def one_uid(scale: Scale) -> Outcome:
    """Send several contents under one UID, on a product of its own."""
    with running(scale.folder) as product:
        return dispute_uids(product, scale, 10 if scale.is_quick else 200)


def dispute_uids(product: Product, scale: Scale, count: int) -> Outcome:
    """Send contents one after the other by each way, and three at once under `count` UIDs."""
    wrong = [*_in_turn(product), *_across_syntaxes(product)]
    disputed, at_once_wrong = _at_the_same_time(product, random.Random(scale.seed), count)
    wrong += at_once_wrong
    listed = json.loads(product.run("archive", "conflicts", "--json"))
    known = {one["sop_instance_uid"] for one in listed}
    unseen = sorted(disputed - known)
    figure = (
        f"3 contents each under {count} UIDs by {SENDERS} senders at once, and in 10 ways one "
        f"after the other: {len(wrong)} wrong answers, {len(unseen)} conflicts unseen"
    )
    details: dict[str, object] = {"wrong": wrong[:20], "unseen": unseen, "seen": len(known)}
    return Outcome(not wrong and not unseen, figure, details)


def _in_turn(product: Product) -> list[str]:
    """Send a content, the same again, and another one, by both doors."""
    first, other = image("2.25.10.1", 1, 1), image("2.25.10.1", 1, 1, version=1)
    wrong = []
    with client_of(product) as client:
        for what, status, expected in (
            ("C-STORE first", _store(product, first), SUCCESS),
            ("C-STORE again", _store(product, first), SUCCESS),
            ("STOW-RS again", _stow(client, first), 200),
            ("C-STORE other", _store(product, other), CONFLICT),
            ("STOW-RS other", _stow(client, other), 202),
            ("C-STORE other again", _store(product, other), CONFLICT),
            ("C-STORE first again", _store(product, first), SUCCESS),
        ):
            if status != expected:
                wrong.append(f"{what}: {status:X}, not {expected:X}")
        if not _is_shown(client, first):
            wrong.append("the first content is not the one that is shown")
    return wrong


def _across_syntaxes(product: Product) -> list[str]:
    """Send one image in three transfer syntaxes, and another content in one of them."""
    uid = "2.25.10.2.1.1"
    about = {"study": "2.25.10.2", "series": "2.25.10.2.1"}
    plain, implicit = data_set(uid, **about), data_set(uid, **about, is_implicit=True)
    other = data_set(uid, **about, is_implicit=True, number=5)
    wrong = []
    for what, data, syntax, expected in (
        ("explicit", plain, EXPLICIT, SUCCESS),
        ("implicit", implicit, IMPLICIT, SUCCESS),
        ("implicit, another number", other, IMPLICIT, CONFLICT),
    ):
        ((status, comment),) = store_bytes(product, [(uid, data)], sop_class=CT, syntax=syntax)
        if status != expected or bool(comment) != bool(status):
            wrong.append(f"{what}: {status:04X} {comment!r}, not {expected:04X}")
    native = small(1077)
    buffer = DicomBytesIO()
    native.save_as(buffer, enforce_file_format=True)
    packed = dcmread(DicomBytesIO(buffer.getvalue()))
    packed.compress(RLELossless, generate_instance_uid=False)
    changed = dcmread(DicomBytesIO(buffer.getvalue()))
    changed.PixelData = bytes(len(changed.PixelData))
    statuses = [answer.Status for answer in store(product, [native, packed, changed])]
    if statuses != [SUCCESS, SUCCESS, CONFLICT]:
        wrong.append(f"native, RLE, other pixels: {[f'{one:04X}' for one in statuses]}")
    return wrong


def _at_the_same_time(
    product: Product, chance: random.Random, count: int
) -> tuple[set[str], list[str]]:
    """Send three contents under each UID; return the UIDs, and what was answered wrongly."""
    numbers = range(1, count + 1)
    contents = [[image("2.25.10.3", 1, n, version=v) for v in range(3)] for n in numbers]
    shares = []
    for sender in range(SENDERS):
        share = [versions[(sender + at) % 3] for at, versions in enumerate(contents)]
        chance.shuffle(share)
        shares.append(share)
    start = threading.Barrier(SENDERS)

    def send(number: int) -> list[tuple[Image, int]]:
        start.wait()
        objects = [(one.uid, one.data) for one in shares[number]]
        answers = store_bytes(product, objects, calling=f"CT{number}")
        return list(zip(shares[number], (status for status, _ in answers), strict=True))

    answered = [one for each in at_once(send, range(SENDERS), threads=SENDERS) for one in each]
    wrong = [
        f"{one.uid}: {status:04X}" for one, status in answered if status not in (SUCCESS, CONFLICT)
    ]
    praised: dict[str, set[bytes]] = {}
    for one, status in answered:
        if status == SUCCESS:
            praised.setdefault(one.uid, set()).add(one.mark)
    with client_of(product) as client:
        for versions in contents:
            (shown,) = [one for one in versions if _is_shown(client, one)]
            if praised.get(shown.uid) != {shown.mark}:
                wrong.append(f"{shown.uid}: Success for {len(praised.get(shown.uid, ()))} contents")
    return {versions[0].uid for versions in contents}, wrong


def _store(product: Product, one: Image) -> int:
    ((status, comment),) = store_bytes(product, [(one.uid, one.data)])
    # Whoever is warned is told of what.
    assert bool(comment) == bool(status), (status, comment)
    return status


def _stow(client: httpx.Client, one: Image) -> int:
    answer = client.post(
        "/dicom-web/studies",
        content=encode_part10_head(meta(one.uid)) + one.data,
        headers={"content-type": "application/dicom"},
    )
    has_reason = "00081196" in answer.text
    assert has_reason == (answer.status_code != 200), answer.text
    return answer.status_code


def _is_shown(client: httpx.Client, one: Image) -> bool:
    answer = client.get(one.at, headers={"Accept": 'application/dicom; transfer-syntax="*"'})
    assert answer.status_code == 200, answer.text
    return answer.content.endswith(one.data)


PROMISES = (
    Promise("R9", "eight senders at one study, same and split instances", one_study),
    Promise("R10", "one UID, different contents", one_uid),
)
