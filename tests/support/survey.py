"""After harm was done: is everything there that was acknowledged, and nothing else?

It asks as a reader does, from outside, and compares with what the senders remember.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ProposedContext, connect
from pacsteward.dicom.dimse.client import ClientAssociation
from pacsteward.dicom.part10 import split_part10
from tests.support.load import Sent
from tests.support.product import Product

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"


@dataclass
class Findings:
    """What is wrong, each by the UID concerned; all empty is what was promised."""

    lost: set[str] = field(default_factory=set)
    """Acknowledged, and not to be had."""
    corrupt: set[str] = field(default_factory=set)
    """Its data set is not, byte for byte, what was sent."""
    unlisted: set[str] = field(default_factory=set)
    """Acknowledged, and not in the answers of QIDO-RS or C-FIND."""
    ghosts: set[str] = field(default_factory=set)
    """Listed, and not to be had, or never sent."""
    doubles: set[str] = field(default_factory=set)
    """Listed or given more than once."""
    miscounted: set[str] = field(default_factory=set)
    """Studies and series whose counts are not those of their instances."""
    checked: int = 0
    """Instances that were read back."""

    def add(self, other: Findings) -> None:
        for name in ZEROS:
            getattr(self, name).update(getattr(other, name))
        self.checked += other.checked

    @property
    def is_clean(self) -> bool:
        return not any(getattr(self, name) for name in ZEROS)

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in ZEROS}

    def words(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.counts().items())

    def examples(self) -> dict[str, list[str]]:
        return {name: sorted(getattr(self, name))[:5] for name in ZEROS if getattr(self, name)}


ZEROS = ("lost", "corrupt", "unlisted", "ghosts", "doubles", "miscounted")


def survey(
    product: Product,
    token: str,
    acknowledged: Mapping[str, Sent],
    tried: Mapping[str, Sent],
    *,
    studies: Iterable[str] | None = None,
    with_c_find: bool = True,
) -> Findings:
    """Compare what the product lists and gives with what was acknowledged.

    Parameters
    ----------
    studies
        Only these; all by default.
    """
    chosen = set(studies) if studies is not None else {one.study for one in tried.values()}
    by_study: dict[str, dict[str, Sent]] = defaultdict(dict)
    for uid, sent in tried.items():
        if sent.study in chosen:
            by_study[sent.study][uid] = sent
    findings = Findings()
    with httpx.Client(
        base_url=product.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
    ) as client:
        for study, sent in sorted(by_study.items()):
            wanted = {uid for uid in sent if uid in acknowledged}
            _survey_study(client, study, sent, wanted, findings)
    if with_c_find:
        asyncio.run(_survey_by_c_find(product.dimse_port, by_study, acknowledged, findings))
    return findings


def _survey_study(
    client: httpx.Client, study: str, sent: dict[str, Sent], wanted: set[str], findings: Findings
) -> None:
    at = f"/dicom-web/studies/{study}"
    rows = _json(client, f"{at}/instances", limit=1000)
    listed = [_one(row, "00080018") for row in rows]
    series_of = Counter(_one(row, "0020000E") for row in rows)
    given = _retrieve(client, at) if listed else []
    digests = dict(given)
    findings.checked += len(given)
    findings.doubles |= _repeated(listed) | _repeated(uid for uid, _ in given)
    findings.unlisted |= wanted - set(listed)
    findings.lost |= wanted - set(digests)
    findings.ghosts |= (set(listed) - set(digests)) | (set(listed) - set(sent))
    findings.corrupt |= {
        uid for uid, digest in digests.items() if uid in sent and sent[uid].digest != digest
    }
    counted = [
        (study, _one(row, "00201208"), len(set(listed)))
        for row in _json(client, "/dicom-web/studies", StudyInstanceUID=study)
    ] + [
        (uid, _one(row, "00201209"), series_of[uid])
        for row in _json(client, f"{at}/series", limit=1000)
        for uid in (_one(row, "0020000E"),)
    ]
    findings.miscounted |= {uid for uid, said, found in counted if said != found}
    if len(counted) != (1 + len(series_of) if listed else 0):
        findings.miscounted.add(study)


def _json(client: httpx.Client, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = client.get(path, params=parameters)
    if answer.status_code in (204, 404):
        return []
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"
    return list(answer.json())


def _one(row: Mapping[str, Any], tag: str) -> Any:
    return row[tag]["Value"][0]


def _repeated(uids: Iterable[str]) -> set[str]:
    return {uid for uid, count in Counter(uids).items() if count > 1}


def _retrieve(client: httpx.Client, path: str) -> list[tuple[str, bytes]]:
    """Return the UIDs of what is given, and the digest of each data set."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    answer = client.get(path, headers={"Accept": accept})
    if answer.status_code in (404, 410):
        return []
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"
    boundary = answer.headers["content-type"].partition("boundary=")[2].partition(";")[0]
    pieces = answer.content.split(f"--{boundary.strip(chr(34))}".encode())[1:-1]
    found = []
    for piece in pieces:
        part = piece.partition(b"\r\n\r\n")[2][:-2]
        about, offset = split_part10(part)
        uid = about.media_storage_sop_instance_uid
        found.append((uid, hashlib.sha256(part[offset:]).digest()))
    return found


async def _survey_by_c_find(
    port: int,
    by_study: Mapping[str, Mapping[str, Sent]],
    acknowledged: Mapping[str, Sent],
    findings: Findings,
) -> None:
    async with connect(
        "127.0.0.1",
        port,
        calling=AeTitle("SURVEYOR"),
        called=AeTitle("PACSTEWARD"),
        contexts=[ProposedContext(Uid(FIND), (Uid(IMPLICIT),))],
    ) as association:
        for study, sent in sorted(by_study.items()):
            at_study = await _find(
                association,
                "STUDY",
                StudyInstanceUID=study,
                NumberOfStudyRelatedInstances=None,
                NumberOfStudyRelatedSeries=None,
            )
            at_series = await _find(
                association,
                "SERIES",
                StudyInstanceUID=study,
                SeriesInstanceUID="",
                NumberOfSeriesRelatedInstances=None,
            )
            listed = []
            for row in at_series:
                images = await _find(
                    association,
                    "IMAGE",
                    StudyInstanceUID=study,
                    SeriesInstanceUID=row.SeriesInstanceUID,
                    SOPInstanceUID="",
                )
                listed += [str(image.SOPInstanceUID) for image in images]
                if row.NumberOfSeriesRelatedInstances != len(images):
                    findings.miscounted.add(str(row.SeriesInstanceUID))
            wanted = {uid for uid in sent if uid in acknowledged}
            findings.unlisted |= wanted - set(listed)
            findings.ghosts |= set(listed) - set(sent)
            findings.doubles |= _repeated(listed)
            said = [
                (row.NumberOfStudyRelatedInstances, row.NumberOfStudyRelatedSeries)
                for row in at_study
            ]
            if said != ([(len(listed), len(at_series))] if listed else []):
                findings.miscounted.add(study)


async def _find(association: ClientAssociation, level: str, **wanted: Any) -> list[Dataset]:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in wanted.items():
        setattr(identifier, keyword, value)
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, True
    write_dataset(encoded, identifier)
    found = []
    responses = association.find(association.context(Uid(FIND)), encoded.getvalue())
    async for response in responses:
        if response.is_pending:
            found.append(dcmread(BytesIO(response.data_set), force=True))
    final = responses.final
    assert final is not None, "C-FIND had no end."
    assert final.status == 0, f"C-FIND ended with {final.status:04X}."
    return found
