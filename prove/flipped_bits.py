"""R11: bits that flip on the disk are found by one pass, and never leave the house.

Thousands of images are stored, some of them long films and objects with a file of their own; then
single bits of their data sets are turned over in the files, behind the product's back, at places
that a die chose. One ``archive verify`` must name exactly those. And whoever asks meanwhile, by
whatever door, gets the right bytes or none: C-GET, C-MOVE, WADO-RS as objects, frames, metadata,
pictures and bulk data, before and after they have been read once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydicom import Dataset
from pynetdicom import build_role, evt
from tests.support.ports import free_port
from tests.support.product import Product
from tests.support.scu import GET, associated, keys, move, sink

from pacsteward.archive.fixtures.sender import CT, EXPLICIT, IMPLICIT
from prove.images import Image, client_of, image, running, send
from prove.promise import Outcome, Promise, Scale

PER_STUDY = 1000
DESTINATION = "PROOFSINK"
AS_STORED = 'application/dicom; transfer-syntax="*"'
OTHERWISE_ENCODED = f'application/dicom; transfer-syntax="{IMPLICIT}"'
OCTETS = "application/octet-stream"
WHOLE = ("C-GET", "C-MOVE", "WADO-RS")


@dataclass
class Seen:
    """What came by the doors."""

    right: set[tuple[str, str]] = field(default_factory=set)
    """Door and UID."""
    wrong: list[str] = field(default_factory=list)
    """Bytes that were never sent to us."""
    refused: int = 0
    cut: list[str] = field(default_factory=list)
    """Answers that broke off: no harm, but an error says more."""
    made: dict[str, bytes] = field(default_factory=dict)
    """Pictures and metadata by path, as they were made of sound bytes."""


def flipped_bits(scale: Scale) -> Outcome:
    """Do it to thousands of images, on a product of its own."""
    with running(scale.folder) as product:
        return flip(product, scale, *((1_000, 20) if scale.is_quick else (10_000, 100)))


def flip(product: Product, scale: Scale, count: int, flips: int) -> Outcome:
    """Store so many images, flip, verify, and ask by all doors."""
    chance = random.Random(scale.seed)
    images = _images(count)
    by_uid = {one.uid: one for one in images}
    port = free_port()
    product.run("peers", "add", DESTINATION, "127.0.0.1", str(port))
    scale.say(f"storing {len(images)} images")
    answered = {status for status, _ in send(product, images)}
    assert answered == {0}, answered
    chosen = _chosen(images, flips, chance)
    with client_of(product) as client:
        seen = Seen()
        # Half of them are read before, so that what is remembered of sound bytes is put to the
        # proof as well.
        for one in chosen[::2]:
            _ask_for_parts(client, one, seen)
        assert not seen.wrong, seen.wrong
        assert not seen.refused
        seen.right.clear()
        _flip(product.data, chosen, chance)
        report = json.loads(product.run("archive", "verify", "--json", ends_with=9))
        named = {one["sop_instance_uid"] for one in report["damages"]}
        scale.say(f"flipped {flips} bits; one pass named {len(named)}")
        for one in chosen:
            _ask_for_parts(client, one, seen)
        hidden = _unavailable(client, chosen)
    for study in dict.fromkeys(one.study for one in images):
        scale.say(f"retrieving study {study} by C-GET and C-MOVE")
        _get(product, study, by_uid, seen)
        _move(product, port, study, by_uid, seen)
    damaged = {one.uid for one in chosen}
    sound = set(by_uid) - damaged
    came = {door: {uid for at, uid in seen.right if at == door} for door in WHOLE}
    missing = {door: sorted(sound - came[door])[:5] for door in ("C-GET", "C-MOVE")}
    details: dict[str, object] = {
        "images": len(images),
        "flips": flips,
        "found": len(named & damaged),
        "found that were not there": sorted(named - damaged),
        "served flipped": seen.wrong[:20],
        "damaged that came whole": sorted(set().union(*came.values()) & damaged),
        "sound that did not come": {door: uids for door, uids in missing.items() if uids},
        "refused": seen.refused,
        "cut": seen.cut,
        "unavailable in metadata": len(hidden & damaged),
        "unavailable and sound": sorted(hidden - damaged),
    }
    failures = (
        "found that were not there",
        "served flipped",
        "damaged that came whole",
        "sound that did not come",
        "unavailable and sound",
    )
    passed = named == damaged and not any(details[name] for name in failures)
    figure = (
        f"{flips} bits flipped in {len(images)} images: {len(named & damaged)} found in one pass, "
        f"{len(seen.wrong)} served; the {len(sound)} sound ones came whole"
    )
    return Outcome(passed, figure, details)


def _images(count: int) -> list[Image]:
    """Make small images and, among them, films and objects that get a file of their own."""
    made = []
    for number in range(count):
        rows, frames = (
            (256, 40) if number % 331 == 5 else (256, 80) if number % 499 == 7 else (48, 1)
        )
        study = f"2.25.11.{number // PER_STUDY + 1}"
        made.append(image(study, number % 4 + 1, number + 1, rows=rows, frames=frames))
    return made


def _chosen(images: Sequence[Image], flips: int, chance: random.Random) -> list[Image]:
    """Choose whom to damage: one film and one big object at least."""
    films = sorted(images, key=lambda one: len(one.data))
    fixed = [films[-1], next(one for one in films if 1 << 20 < len(one.data) < 8 << 20)]
    others = [one for one in images if one not in fixed]
    return fixed + chance.sample(others, flips - len(fixed))


# --- the flips ----------------------------------------------------------------------------------


def _flip(data_folder: Path, chosen: Iterable[Image], chance: random.Random) -> None:
    """Turn over one bit of each, anywhere in its data set."""
    waiting = {one.mark[:16]: one for one in chosen}
    for path in [
        *sorted((data_folder / "landing").glob("*.segment")),
        *sorted((data_folder / "objects").glob("??/*.dcm")),
    ]:
        stored = path.read_bytes()
        for mark, one in list(waiting.items()):
            at = stored.find(mark)
            if at < 0:
                continue
            start = at - one.data.index(mark)
            assert stored[start : start + len(one.data)] == one.data
            place = start + chance.randrange(len(one.data))
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([stored[place] ^ 1 << chance.randrange(8)]))
            del waiting[mark]
    assert not waiting, "not found in the data folder"


# --- the doors ----------------------------------------------------------------------------------


def _ask_for_parts(client: httpx.Client, one: Image, seen: Seen) -> None:
    """Ask DICOMweb for an image in all the forms that its bytes can leave in."""
    pixels = one.data[one.data.index(one.mark) :]
    frame = pixels[: _frame_bytes(one)]
    ways: tuple[tuple[str, str, bytes | None], ...] = (
        ("", AS_STORED, one.data),
        ("", OTHERWISE_ENCODED, pixels),
        ("/frames/1", OCTETS, frame),
        (f"/frames/{len(pixels) // len(frame)}", OCTETS, pixels[-len(frame) :]),
        ("/bulkdata/7FE00010", OCTETS, pixels),
        ("/metadata", "application/dicom+json", None),
        ("/rendered", "image/png", None),
        ("/thumbnail", "image/jpeg", None),
    )
    for path, accept, expected in ways:
        try:
            answer = client.get(one.at + path, headers={"Accept": accept})
        except httpx.RemoteProtocolError:
            seen.cut.append(f"{path} {one.uid}")
            continue
        if answer.status_code != 200:
            seen.refused += 1
            continue
        if expected is None:
            expected = seen.made.setdefault(one.at + path, answer.content)
        if answer.content.endswith(expected):
            seen.right.add((f"WADO-RS{path}", one.uid))
        else:
            seen.wrong.append(f"WADO-RS{path} {one.uid}")


def _frame_bytes(one: Image) -> int:
    size = len(one.data) - one.data.index(one.mark)
    return size if size < 1 << 16 else 256 * 256 * 2


def _unavailable(client: httpx.Client, chosen: Sequence[Image]) -> set[str]:
    """Return which instances the metadata of their series say are not to be had."""
    found = set()
    for at in {one.at.partition("/instances/")[0] for one in chosen}:
        for row in client.get(f"{at}/metadata").json():
            if row.get("00080056", {}).get("Value") == ["UNAVAILABLE"]:
                found.add(row["00080018"]["Value"][0])
    return found


def _get(product: Product, study: str, by_uid: dict[str, Image], seen: Seen) -> None:
    with associated(
        product,
        [(GET, [IMPLICIT]), (CT, [EXPLICIT])],
        negotiation=[build_role(CT, scp_role=True)],
        handlers=[(evt.EVT_C_STORE, lambda event: _take("C-GET", event, by_uid, seen))],
    ) as association:
        for _status, _failed in association.send_c_get(_study(study), GET):
            pass


def _move(product: Product, port: int, study: str, by_uid: dict[str, Image], seen: Seen) -> None:
    with sink(
        {CT: [EXPLICIT]},
        lambda event: _take("C-MOVE", event, by_uid, seen),
        name=DESTINATION,
        port=port,
    ):
        move(product, _study(study), DESTINATION)


def _study(uid: str) -> Dataset:
    return keys("STUDY", StudyInstanceUID=uid)


def _take(door: str, event: Any, by_uid: dict[str, Image], seen: Seen) -> int:
    uid = str(event.request.AffectedSOPInstanceUID)
    if event.request.DataSet.getvalue() == by_uid[uid].data:
        seen.right.add((door, uid))
    else:
        seen.wrong.append(f"{door} {uid}")
    return 0


PROMISES = (Promise("R11", "bits flip on the disk: all found, none served", flipped_bits),)
