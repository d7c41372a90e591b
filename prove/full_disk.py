"""R5: the disk of the archive fills up under load, stays full, and gets room again.

The data folder, its database included, is a file system of its own: a small one in memory, mounted
for this proof, or, where that is not allowed, the ordinary disk with a reserve as large as what is
free. It is filled in two steps. First the senders fill it to the reserve: from 90 % on the checks
must warn, and at the reserve the senders must be refused with A700 and 507 and told why, while
readers are served. Then somebody else takes the last byte, so that every write of ours fails, too.
When there is room again, senders must succeed within ten seconds, without a restart.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.support.load import SETTINGS, Load
from tests.support.product import Product
from tests.support.scu import find, keys, store_bytes
from tests.support.survey import survey

from pacsteward.archive.fixtures.sender import meta
from pacsteward.dicom.part10 import encode_part10_head
from prove.images import Image, client_of, image, send
from prove.promise import Outcome, Promise, Scale
from prove.sites import sending

MIB = 1 << 20
FULL_S = 600.0
BACK_MAX_S = 10.0
READ_EVERY_S = 1.0
FILL_TIMEOUT_S = 180.0

OUT_OF_RESOURCES = 0xA700
INSUFFICIENT_STORAGE = 507
RESERVE = "PACSTEWARD_ARCHIVE__RESERVE_BYTES"
STUDY = "2.25.5.1"


@dataclass
class Disk:
    """The file system that the archive lies on, and how it is filled from outside."""

    folder: Path
    kind: str
    size_bytes: int
    ballast: Path

    @property
    def free_bytes(self) -> int:
        """What is left for an ordinary account."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    @property
    def used(self) -> float:
        """Share of the disk that is taken."""
        return 1 - self.free_bytes / self.size_bytes

    def fill(self, leaving_bytes: int) -> None:
        """Take room until so much is left."""
        while (surplus := self.free_bytes - leaving_bytes) > 0:
            try:
                with self.ballast.open("ab") as file:
                    file.write(bytes(min(surplus, MIB)))
            except OSError:
                return

    def relieve(self) -> None:
        """Give the room back."""
        self.ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Disk]:
    """Mount a small file system at ``folder/disk``.

    Raises
    ------
    PermissionError
        This account may not mount.
    """
    place = folder / "disk"
    place.mkdir(parents=True)
    asked = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)]
    mounted = subprocess.run(asked, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        raise PermissionError(f"no file system could be mounted: {mounted.stderr.strip()}")
    try:
        size = os.statvfs(place)
        yield Disk(place, "tmpfs", size.f_blocks * size.f_frsize, place / "ballast")
    finally:
        # Lazily: whoever still has a file open there does not keep the folder from going.
        subprocess.run(["umount", "-l", str(place)], check=False)


@dataclass
class Reading:
    """How readers fared meanwhile."""

    served: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def full_disk(scale: Scale) -> Outcome:
    """Fill the disk, wait, and give room back."""
    return fill_up(
        scale, 96 * MIB if scale.is_quick else 256 * MIB, 10 if scale.is_quick else FULL_S
    )


def fill_up(scale: Scale, size_bytes: int, full_s: float) -> Outcome:
    """Do it with a disk of this size, full for so long."""
    settings = {name: value for name, value in SETTINGS.items() if name != RESERVE}
    with small_disk(scale.folder, size_bytes) as disk:
        product = Product(disk.folder / "archive", settings).start()
        try:
            return _fill_up(scale, disk, product, full_s)
        finally:
            product.stop()


def _fill_up(scale: Scale, disk: Disk, product: Product, full_s: float) -> Outcome:
    client = client_of(product)
    token = client.headers["authorization"].partition(" ")[2]
    known = [image(STUDY, 1, number) for number in range(1, 11)]
    assert {status for status, _ in send(product, known)} == {0}
    load = Load(product.dimse_port, product.url, token)
    before = _disk_check(client)
    disk.fill(int(disk.size_bytes * 0.09))
    warned = _disk_check(client)
    scale.say(f"{disk.used:.0%} of {disk.size_bytes // MIB} MiB used: {warned['status']}")
    with sending(load):
        _await_refusals(load, product)
        at_reserve = _disk_check(client)
        refusals = _refusals(product, client)
        scale.say(f"refused at {disk.free_bytes / MIB:.1f} MiB free: {refusals[0][1]}")
        reading = Reading()
        # Other programs take what was in reserve.
        disk.fill(0)
        until = time.monotonic() + full_s
        while time.monotonic() < until:
            _read(product, client, known, reading)
            refusals += _refusals(product, client)
            time.sleep(READ_EVERY_S)
        scale.say(f"full for {full_s:.0f} s: {reading.served} reads served")
        disk.relieve()
        back_s = _back_after_s(load)
        load.await_acknowledged(50)
        load.pause()
    after = _disk_check(client_of(product))
    found = survey(product, token, load.acknowledged, load.tried)
    report = product.run("archive", "verify", "--json")
    wrong = [f"{status} {words}" for status, words in refusals if not _explains(status, words)]
    checks = {
        "before": before["status"],
        "at 91 %": warned["status"],
        "at the reserve": at_reserve["status"],
        "after": after["status"],
    }
    details: dict[str, object] = {
        "disk": f"{disk.kind}, {disk.size_bytes // MIB} MiB",
        "full s": full_s,
        "acknowledged": len(load.acknowledged),
        "found": found.counts(),
        "examples": found.examples(),
        "reads served": reading.served,
        "reads failed": reading.failures[:10],
        "slowest read s": reading.slowest_s,
        "refusals": len(refusals),
        "refused wrongly": wrong[:5],
        "words": refusals[0][1],
        "checks": checks,
        "back after s": back_s,
        "answers": dict(load.statuses()),
        "surprises": dict(load.surprises),
        "verify": report,
    }
    passed = (
        found.is_clean
        and not reading.failures
        and not wrong
        and not load.surprises
        and '"damages": []' in report
        and list(checks.values()) == ["ok", "warning", "critical", "ok"]
        and back_s <= BACK_MAX_S
    )
    figure = (
        f"{disk.kind} of {disk.size_bytes // MIB} MiB full for {full_s:.0f} s: "
        f"{len(load.acknowledged)} acknowledged, {found.words()}; {reading.served} reads served, "
        f"{len(reading.failures)} failed; back after {back_s:.1f} s"
    )
    return Outcome(passed, figure, details)


def _disk_check(client: httpx.Client) -> dict[str, str]:
    """Return what the health page says of the disk."""
    answer = client.get("/api/v1/checks")
    assert answer.status_code == 200, answer.text
    (row,) = [one for one in answer.json() if one["name"] == "is_disk_roomy"]
    return dict(row)


def _await_refusals(load: Load, product: Product) -> None:
    """Wait until both doors refuse, and the disk has got back what was prepared for bursts.

    That is done in the background, and makes room for some more instances.
    """
    deadline = time.monotonic() + FILL_TIMEOUT_S
    wanted = {("dimse", OUT_OF_RESOURCES), ("stow", INSUFFICIENT_STORAGE)}
    since = time.monotonic()
    while not wanted <= {(one.door, one.status) for one in load.answers if one.sent_at > since}:
        assert time.monotonic() < deadline, f"nobody was refused: {load.statuses()}"
        time.sleep(0.05)
        if any((product.data / "landing").glob("prepared-*")):
            since = time.monotonic()


def _refusals(product: Product, client: httpx.Client) -> list[tuple[int, str]]:
    """Send one object by each door; return what was answered, in numbers and words."""
    one = image("2.25.5.2", 1, 1)
    ((status, comment),) = store_bytes(product, [(one.uid, one.data)])
    answer = client.post(
        "/dicom-web/studies",
        content=encode_part10_head(meta(one.uid)) + one.data,
        headers={"content-type": "application/dicom"},
    )
    return [(status, comment), (answer.status_code, answer.headers.get("warning", ""))]


def _explains(status: int, words: str) -> bool:
    return status in (OUT_OF_RESOURCES, INSUFFICIENT_STORAGE) and "disk" in words


def _read(product: Product, client: httpx.Client, known: list[Image], reading: Reading) -> None:
    """Query and retrieve by both doors, and read the audit book."""
    one = known[reading.served % len(known)]
    began = time.monotonic()
    ways = (
        ("QIDO-RS", lambda: _is_listed(client)),
        ("WADO-RS", lambda: _is_given(client, one)),
        ("metadata", lambda: client.get(f"{one.at}/metadata").status_code == 200),
        ("audit book", lambda: client.get("/audit").status_code == 200),
        ("C-FIND", lambda: len(find(product, keys("STUDY", StudyInstanceUID=STUDY))[0]) == 1),
    )
    for door, is_served in ways:
        try:
            was_served = is_served()
        except (httpx.HTTPError, AssertionError) as error:
            reading.failures.append(f"{door}: {error!r}"[:200])
            continue
        if was_served:
            reading.served += 1
        else:
            reading.failures.append(door)
    reading.slowest_s = max(reading.slowest_s, time.monotonic() - began)


def _is_listed(client: httpx.Client) -> bool:
    answer = client.get("/dicom-web/studies", params={"StudyInstanceUID": STUDY})
    return answer.status_code == 200 and len(answer.json()) == 1


def _is_given(client: httpx.Client, one: Image) -> bool:
    answer = client.get(one.at, headers={"Accept": 'application/dicom; transfer-syntax="*"'})
    return answer.status_code == 200 and answer.content.endswith(one.data)


def _back_after_s(load: Load) -> float:
    """Return how long it took until both doors stored again."""
    began = time.monotonic()
    waiting = {"dimse", "stow"}
    while waiting:
        assert time.monotonic() < began + 60, f"{waiting} still refuse: {load.statuses()}"
        time.sleep(0.05)
        waiting -= {
            one.door for one in load.answers if one.sent_at > began and one.status in (0, 200)
        }
    return time.monotonic() - began


PROMISES = (Promise("R5", "the disk is full, and gets room again", full_disk),)
