"""STOW-RS: what is stored is there at once, and each instance has its own outcome.

Numbers C64 to C70 are those of the conformance list.
"""

from __future__ import annotations

import gzip
import io
import json
import socket
import time
from typing import Any

import httpx
import pydicom
import pytest

from tests.journeys.dicomweb.conftest import MISMATCHED, Collection
from tests.support.dicomweb import SERVICE, related
from tests.support.samples import part10, shipped, small


def test_c64_a_client_of_another_house_stores_and_finds_at_once(site: Collection) -> None:
    sent = small(2, 1, 1, PatientID="C64")
    answer = site.client.store_instances([sent])
    assert "FailedSOPSequence" not in answer
    (item,) = answer.ReferencedSOPSequence
    assert item.ReferencedSOPInstanceUID == sent.SOPInstanceUID
    # dicomweb-client leaves the port out of its Host header, so only the path can be looked at.
    assert item.RetrieveURL.endswith(f"/instances/{sent.SOPInstanceUID}")
    # C68
    (found,) = site.client.search_for_studies(search_filters={"PatientID": "C64"})
    assert found["0020000D"]["Value"] == [sent.StudyInstanceUID]
    assert site.client.retrieve_study_metadata(sent.StudyInstanceUID)


def test_c69_the_same_request_again_changes_nothing(site: Collection) -> None:
    body, headers = related([site.raw["CT_small.dcm"]])
    for _ in range(2):
        assert (
            site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 200
        )
    uid = site.files["CT_small.dcm"].StudyInstanceUID
    (study,) = site.client.search_for_studies(search_filters={"StudyInstanceUID": uid})
    assert study["00201208"]["Value"] == [1]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_many_parts_are_kept_in_their_order_however_the_body_comes(
    site: Collection, is_chunked: bool
) -> None:
    """More than are stored at a time, of all sizes, the last beyond what memory takes."""
    files = [
        part10(small(40 + is_chunked, 1, number, PixelData=bytes([number]) * size))
        for number, size in enumerate([100, 700_000, 100, 3_000_000] * 6 + [9_000_000], 1)
    ]
    body, headers = related(files)
    answer = site.http.post(
        f"{SERVICE}/studies",
        content=(body[at : at + 100_000] for at in range(0, len(body), 100_000))
        if is_chunked
        else body,
        headers=headers,
    )
    uids = [f"2.25.99.{40 + is_chunked}.1.{number}" for number in range(1, 26)]
    module = answer.json()
    assert "00081198" not in module
    assert [one["00081155"]["Value"][0] for one in module["00081199"]["Value"]] == uids
    for number in (1, 2, 4, 25):
        at = f"{SERVICE}/studies/2.25.99.{40 + is_chunked}/series/2.25.99.{40 + is_chunked}.1"
        kept = site.http.get(f"{at}/instances/{uids[number - 1]}", headers={"accept": "*/*"})
        assert kept.content.count(bytes([number]) * 100)
        assert files[number - 1][-1000:] in kept.content


def test_what_was_whole_is_kept_when_the_sender_goes_away(site: Collection) -> None:
    body, headers = related([part10(small(42, 1, number)) for number in (1, 2)])
    half = body[: len(body) * 3 // 4]
    with socket.create_connection(("127.0.0.1", site.product.http_port)) as connection:
        lines = [
            f"POST {SERVICE}/studies HTTP/1.1",
            "Host: localhost",
            f"Authorization: {site.http.headers['authorization']}",
            f"Content-Type: {headers['content-type']}",
            f"Content-Length: {len(body)}",
        ]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + half)
        path = f"{SERVICE}/instances?StudyInstanceUID=2.25.99.42"
        # It goes when the first one is there: before, nobody may have begun to read.
        deadline = time.monotonic() + 60
        while site.http.get(path).status_code == 204 and time.monotonic() < deadline:
            time.sleep(0.05)
    found = site.http.get(path)
    assert [one["00080018"]["Value"] for one in found.json()] == [["2.25.99.42.1.1"]]


def test_c66_one_bad_part_does_not_stop_the_others(site: Collection) -> None:
    good = part10(small(3, 1, 1))
    body, headers = related([good, b"nonsense", good[: len(good) - 100]])
    answer = site.http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert answer.status_code == 202
    module = answer.json()
    assert len(module["00081199"]["Value"]) == 1
    assert len(module["00081198"]["Value"]) + len(module["0008119A"]["Value"]) == 2
    assert "299" in answer.headers["warning"]


def test_c66_nothing_kept_is_409(site: Collection) -> None:
    body, headers = related([b"nonsense"])
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 409


def test_a_body_that_is_compressed_as_a_whole_is_415(site: Collection) -> None:
    body, headers = related([part10(small(4, 1, 1))])
    answer = site.http.post(
        f"{SERVICE}/studies",
        content=gzip.compress(body),
        headers=headers | {"Content-Encoding": "gzip"},
    )
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["detail"]


def test_c67_an_instance_of_another_study_is_refused_with_a901(site: Collection) -> None:
    data = small(4, 1, 1)
    body, headers = related([part10(data)])
    answer = site.http.post(f"{SERVICE}/studies/1.2.3", content=body, headers=headers)
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [43265]
    assert (
        site.client.search_for_studies(search_filters={"StudyInstanceUID": data.StudyInstanceUID})
        == []
    )
    right = f"{SERVICE}/studies/{data.StudyInstanceUID}"
    assert site.http.post(right, content=body, headers=headers).status_code == 200


def test_r10_other_content_under_a_known_uid_is_a_warning(site: Collection) -> None:
    site.client.store_instances([small(5, 1, 1, PatientName="First^One")])
    body, headers = related([part10(small(5, 1, 1, PatientName="Second^One"))])
    answer = site.http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB000]


def test_where_file_meta_and_data_set_differ_the_data_set_is_believed(site: Collection) -> None:
    path = next(path for path in shipped() if path.name == MISMATCHED)
    body, headers = related([path.read_bytes()])
    answer = site.http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert answer.status_code == 200
    (item,) = answer.json()["00081199"]["Value"]
    data = pydicom.dcmread(path)
    assert item["00081155"]["Value"] == [data.SOPInstanceUID]
    back = site.http.get(item["00081190"]["Value"][0], headers={"accept": "application/dicom"})
    got = pydicom.dcmread(io.BytesIO(back.content))
    assert got.file_meta.MediaStorageSOPInstanceUID == got.SOPInstanceUID == data.SOPInstanceUID


def test_one_instance_may_come_alone(site: Collection) -> None:
    answer = site.http.post(
        f"{SERVICE}/studies",
        content=part10(small(6, 1, 1)),
        headers={"content-type": "application/dicom"},
    )
    assert answer.status_code == 200


def test_c65_a_transfer_syntax_in_the_part_is_tolerated_and_names_need_no_quotes(
    site: Collection,
) -> None:
    body = (
        b"\r\n--x\r\nContent-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n"
        + part10(small(7, 1, 1))
        + b"\r\n--x--"
    )
    headers = {"content-type": 'multipart/related; type=application/dicom; boundary="x"'}
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"hello", 415),
        ("", b"hello", 400),
        ('multipart/related; type="application/dicom+xml"; boundary=x', b"--x--", 415),
        ("application/dicom+json", b"[]", 400),
        ("application/dicom+json", b"[" * 100_000, 400),
        ("application/dicom+json", b"[" + b"{}," * 10_000 + b"{}]", 413),
        ("application/dicom+json", b" " * (4 * 1024 * 1024) + b"[{}]", 413),
        ("application/dicom+json", b"[" + b"[]," * 200_000 + b"{}]", 413),
        ("application/dicom+json", b'[{"a": [' + b"1," * 400_000 + b"1]}]", 413),
        ("application/dicom+json", b"[3]", 409),
        ('multipart/related; type="application/dicom+json"; boundary=x', b"--x--", 400),
        ('multipart/related; type="application/dicom"', b"--x--", 400),
        ('multipart/related; type="application/dicom"; boundary=x', b"--x--\r\n", 400),
        ('multipart/related; type="application/dicom"; boundary=x', b"garbage", 400),
        ('multipart/related; type="application/dicom"; boundary=x', b"--x\r\n\r\nhalf", 400),
        (
            'multipart/related; type="application/dicom"; boundary=x',
            b"--x\r\nContent-Type: image/jpeg\r\n\r\nJ\r\n--x--",
            415,
        ),
    ],
)
def test_bodies_that_hold_no_instances_are_refused_with_words(
    site: Collection, content_type: str, body: bytes, status: int
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = site.http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert answer.status_code == status
    if status != 409:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"]


APART = 'multipart/related; type="application/dicom+json"; boundary=part'
OCTETS = "application/octet-stream"


def apart(models: object, *bulk: tuple[str, str, bytes], kind: str = "dicom+json") -> bytes:
    """Write a body of metadata, and of bulk data as (Content-Location, Content-Type, bytes)."""
    parts = [(f"Content-Type: application/{kind}", json.dumps(models).encode())]
    for location, content_type, data in bulk:
        place = f"\r\nContent-Location: {location}" if location else ""
        parts.append((f"Content-Type: {content_type}{place}", data))
    body = b"".join(f"--part\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return body + b"--part--\r\n"


def without_pixels(number: int, uri: str) -> tuple[dict[str, Any], pydicom.Dataset]:
    """Return metadata that leave their pixel data to a part, and the object that they are of."""
    data = small(43, 1, number)
    model = data.to_json_dict()
    model["7FE00010"] = {"vr": "OW", "BulkDataURI": uri}
    return model, data


def stow_apart(site: Collection, body: bytes) -> httpx.Response:
    return site.http.post(f"{SERVICE}/studies", content=body, headers={"content-type": APART})


def test_metadata_and_their_bulk_data_become_instances(site: Collection) -> None:
    """In the order of the metadata, however the parts come; a large one goes by the disk."""
    first, one = without_pixels(1, "a")
    second, two = without_pixels(2, "/b/2")
    two.PixelData = bytes(range(256)) * 40_000
    body = apart([first, second], ("/b/2", OCTETS, two.PixelData), ("a", OCTETS, one.PixelData))
    answer = stow_apart(site, body)
    assert answer.status_code == 200, answer.text
    kept = answer.json()["00081199"]["Value"]
    assert [item["00081155"]["Value"][0] for item in kept] == [
        one.SOPInstanceUID,
        two.SOPInstanceUID,
    ]
    for item, data in zip(kept, (one, two), strict=True):
        back = site.http.get(item["00081190"]["Value"][0], headers={"accept": "application/dicom"})
        got = pydicom.dcmread(io.BytesIO(back.content))
        assert got.PixelData == data.PixelData
        assert (got.PatientID, got.Rows) == (data.PatientID, data.Rows)
    assert stow_apart(site, body).status_code == 200


def test_an_instance_whose_part_is_missing_fails_alone(site: Collection) -> None:
    first, one = without_pixels(3, "a")
    second, two = without_pixels(4, "not-there")
    answer = stow_apart(site, apart([first, second, 3], ("a", OCTETS, one.PixelData)))
    assert answer.status_code == 202
    module = answer.json()
    assert [item["00081155"]["Value"] for item in module["00081199"]["Value"]] == [
        [one.SOPInstanceUID]
    ]
    (refused,) = module["00081198"]["Value"]
    assert refused["00081155"]["Value"] == [two.SOPInstanceUID]
    assert refused["00081197"]["Value"] == [0xC000]
    assert len(module["0008119A"]["Value"]) == 1
    assert "a part that is not in the request" in answer.headers["warning"]


@pytest.mark.parametrize(
    ("bulk", "why"),
    [
        ([("a", OCTETS, b"12"), ("b", OCTETS, b"12")], "Nothing in its metadata refers to"),
        ([("a", OCTETS, b"12"), ("a", OCTETS, b"12")], "or that of another one"),
        ([("", OCTETS, b"12")], "has no Content-Location"),
        ([("twice", OCTETS, b"12"), ("a", OCTETS, b"12")], "Several values refer to"),
    ],
)
def test_nothing_is_stored_where_it_is_not_certain_what_belongs_together(
    site: Collection, bulk: list[tuple[str, str, bytes]], why: str
) -> None:
    model, data = without_pixels(5, "a")
    other = {"60003000": {"vr": "OW", "BulkDataURI": "twice"}}
    more = {"60023000": {"vr": "OW", "BulkDataURI": "twice"}}
    models = [model, other, more] if bulk[0][0] == "twice" else [model]
    answer = stow_apart(site, apart(models, *bulk))
    assert answer.status_code == 400
    assert why in answer.json()["detail"]
    path = f"{SERVICE}/instances?SOPInstanceUID={data.SOPInstanceUID}"
    assert site.http.get(path).status_code == 204


def test_the_first_part_must_be_the_metadata(site: Collection) -> None:
    model, _ = without_pixels(6, "a")
    answer = stow_apart(site, apart([model], kind="json"))
    assert answer.status_code == 400
    assert "first part" in answer.json()["detail"]


def test_c70_too_many_parts_are_refused(site: Collection) -> None:
    body, headers = related([b"x"] * 10_001)
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 413
