"""DICOMweb from outside: dicomweb-client, a client of another house, and plain HTTP beside it.

Numbers C01 to C70 are those of the conformance list.
"""

from __future__ import annotations

import gzip
import io
import json
import socket
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP

import httpx
import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import Dataset

from tests.support.product import Product
from tests.support.samples import part10, shipped, small

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
SERVICE = "/dicom-web"

MISMATCHED = "rtplan.dcm"
"""Its file meta information and its data set name different instances."""

SHIPPED = shipped()[0].parent
NAMES = [path.name for path in shipped() if path.name != MISMATCHED]


@dataclass(frozen=True)
class Site:
    """A running archive that holds pydicom's test files, and ways to ask it."""

    product: Product
    http: httpx.Client
    client: DICOMwebClient
    files: dict[str, Dataset]
    raw: dict[str, bytes]

    def path(self, name: str, *, level: str = "instance") -> str:
        data = self.files[name]
        study = f"{SERVICE}/studies/{data.StudyInstanceUID}"
        series = f"{study}/series/{data.SeriesInstanceUID}"
        return {
            "study": study,
            "series": series,
            "instance": f"{series}/instances/{data.SOPInstanceUID}",
        }[level]


def client_of(product: Product, token: str) -> DICOMwebClient:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    return DICOMwebClient(f"{product.url}{SERVICE}", session=session)


def related(parts: list[bytes], *, boundary: str = "part") -> tuple[bytes, dict[str, str]]:
    """Write a STOW-RS body by hand."""
    body = b"".join(
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n"
        for part in parts
    )
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return body + f"--{boundary}--\r\n".encode(), {"content-type": content_type}


def parts_of(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """Take a multipart answer apart with the standard library's mail parser."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + answer.content)
    boundary = message.get_param("boundary")
    pieces = answer.content.split(f"--{boundary}".encode())[1:-1]
    parts = []
    for piece in pieces:
        lines, _, payload = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))
        assert payload.endswith(b"\r\n")
        parts.append((headers["Content-Type"], payload[:-2]))
    return parts


def apart(name: str) -> Dataset:
    """Read one of pydicom's files, under a UID of its own: several of them share one."""
    data = pydicom.dcmread(SHIPPED / name)
    uid = f"2.25.77.{NAMES.index(name)}"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
    return data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running archive that holds pydicom's own test files and two small studies."""
    product = Product(tmp_path_factory.mktemp("dicomweb") / "archive").start()
    token = product.token()
    http = httpx.Client(
        base_url=product.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
    )
    raw = {name: part10(apart(name)) for name in NAMES}
    raw |= {
        f"small-{series}-{instance}": part10(
            small(
                1,
                series,
                instance,
                PatientName="Ñandú^José=山田^太郎",
                SpecificCharacterSet="ISO_IR 192",
                PatientID="P-1",
            )
        )
        for series in (1, 2)
        for instance in (1, 2, 3)
    }
    files = {name: pydicom.dcmread(io.BytesIO(data), force=True) for name, data in raw.items()}
    body, headers = related(list(raw.values()))
    stored = http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert stored.status_code == 200, stored.text
    try:
        yield Site(product, http, client_of(product, token), files, raw)
    finally:
        http.close()
        product.stop()


# --- STOW-RS ------------------------------------------------------------------------------------


def test_c64_a_client_of_another_house_stores_and_finds_at_once(site: Site) -> None:
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


def test_c69_the_same_request_again_changes_nothing(site: Site) -> None:
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
    site: Site, is_chunked: bool
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


def test_what_was_whole_is_kept_when_the_sender_goes_away(site: Site) -> None:
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
        deadline = time.monotonic() + 20
        while site.http.get(path).status_code == 204 and time.monotonic() < deadline:
            time.sleep(0.05)
    found = site.http.get(path)
    assert [one["00080018"]["Value"] for one in found.json()] == [["2.25.99.42.1.1"]]


def test_c66_one_bad_part_does_not_stop_the_others(site: Site) -> None:
    good = part10(small(3, 1, 1))
    body, headers = related([good, b"nonsense", good[: len(good) - 100]])
    answer = site.http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert answer.status_code == 202
    module = answer.json()
    assert len(module["00081199"]["Value"]) == 1
    assert len(module["00081198"]["Value"]) + len(module["0008119A"]["Value"]) == 2
    assert "299" in answer.headers["warning"]


def test_c66_nothing_kept_is_409(site: Site) -> None:
    body, headers = related([b"nonsense"])
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 409


def test_a_body_that_is_compressed_as_a_whole_is_415(site: Site) -> None:
    body, headers = related([part10(small(4, 1, 1))])
    answer = site.http.post(
        f"{SERVICE}/studies",
        content=gzip.compress(body),
        headers=headers | {"Content-Encoding": "gzip"},
    )
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["detail"]


def test_c67_an_instance_of_another_study_is_refused_with_a901(site: Site) -> None:
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


def test_r10_other_content_under_a_known_uid_is_a_warning(site: Site) -> None:
    site.client.store_instances([small(5, 1, 1, PatientName="First^One")])
    body, headers = related([part10(small(5, 1, 1, PatientName="Second^One"))])
    answer = site.http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB000]


def test_where_file_meta_and_data_set_differ_the_data_set_is_believed(site: Site) -> None:
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


def test_one_instance_may_come_alone(site: Site) -> None:
    answer = site.http.post(
        f"{SERVICE}/studies",
        content=part10(small(6, 1, 1)),
        headers={"content-type": "application/dicom"},
    )
    assert answer.status_code == 200


def test_c65_a_transfer_syntax_in_the_part_is_tolerated_and_names_need_no_quotes(
    site: Site,
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
        ('multipart/related; type="application/dicom+json"; boundary=x', b"--x--", 415),
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
    site: Site, content_type: str, body: bytes, status: int
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = site.http.post(f"{SERVICE}/studies", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"]


def test_c70_too_many_parts_are_refused(site: Site) -> None:
    body, headers = related([b"x"] * 10_001)
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 413


# --- QIDO-RS ------------------------------------------------------------------------------------


def test_c07_a_study_carries_what_lists_show(site: Site) -> None:
    (study,) = site.client.search_for_studies(search_filters={"PatientID": "P-1"})
    wanted = {
        *("0020000D", "00080020", "00080030", "00080050", "00100020", "00100010", "00100030"),
        *("00201208", "00081030", "00080061", "00080090", "00081190", "00080056", "00201206"),
    }
    assert wanted <= set(study)
    # C08, C23, C28
    assert study["00201208"] == {"vr": "IS", "Value": [6]}
    assert study["00100010"]["Value"] == [{"Alphabetic": "Ñandú^José", "Ideographic": "山田^太郎"}]
    assert study["00080056"]["Value"] == ["ONLINE"]


def test_c25_addresses_are_those_that_the_client_used(site: Site) -> None:
    (study,) = site.http.get(f"{SERVICE}/studies", params={"PatientID": "P-1"}).json()
    assert study["00081190"]["Value"] == [
        f"{site.product.url}{SERVICE}/studies/{study['0020000D']['Value'][0]}"
    ]
    assert site.http.get(study["00081190"]["Value"][0]).status_code == 200


@pytest.mark.parametrize("word", ["*and*", "nandu*", "ÑANDÚ^JOSÉ", "*TARO*", "山田*"])
def test_c03_names_match_with_wildcards_whatever_their_letters(site: Site, word: str) -> None:
    found = site.client.search_for_studies(search_filters={"PatientName": word})
    is_wanted = any(study["00100020"].get("Value") == ["P-1"] for study in found)
    assert is_wanted is (word != "*TARO*")


def test_c09_modalities_can_be_asked_for_and_pages_are_right(site: Site) -> None:
    every = site.client.search_for_studies(search_filters={"ModalitiesInStudy": "CT"})
    assert every
    assert all("CT" in study["00080061"]["Value"] for study in every)
    walked = [
        study["0020000D"]["Value"][0]
        for offset in range(len(every))
        for study in site.client.search_for_studies(
            search_filters={"ModalitiesInStudy": "CT"}, limit=1, offset=offset
        )
    ]
    assert walked == [study["0020000D"]["Value"][0] for study in every]


def test_c19_nothing_found_is_204_without_a_body(site: Site) -> None:
    answer = site.http.get(f"{SERVICE}/studies", params={"PatientID": "nobody"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert site.client.search_for_studies(search_filters={"PatientID": "nobody"}) == []


def test_c20_a_cut_answer_says_how_many_there_are_besides(site: Site) -> None:
    answer = site.http.get(f"{SERVICE}/studies", params={"limit": 1})
    whole = site.http.get(f"{SERVICE}/studies")
    left = len(whole.json()) - 1
    assert answer.status_code == 200
    assert f"There are {left} additional results that can be requested" in answer.headers["warning"]
    assert "warning" not in whole.headers


def test_c21_walking_the_pages_ends_and_meets_every_study_once(site: Site) -> None:
    every = site.client.search_for_studies()
    walked = site.client.search_for_studies(limit=2, get_remaining=True)
    assert len(walked) == len(every)
    assert len({study["0020000D"]["Value"][0] for study in walked}) == len(every)


def test_c14_series_of_a_study_carry_what_ohif_shows(site: Site) -> None:
    uid = site.files["small-1-1"].StudyInstanceUID
    series = site.client.search_for_series(uid, fields=["0008103E", "00080021"])
    assert len(series) == 2
    wanted = ("0020000D", "0020000E", "00080060", "00200011", "0008103E", "00080021", "00201209")
    assert all(set(wanted) <= set(one) for one in series)
    assert series[0]["00201209"]["Value"] == [3]
    # C17
    (one,) = site.client.search_for_series(
        uid, search_filters={"SeriesInstanceUID": site.files["small-2-1"].SeriesInstanceUID}
    )
    assert one["0020000E"]["Value"] == [site.files["small-2-1"].SeriesInstanceUID]


def test_c18_one_instance_of_a_series(site: Site) -> None:
    data = site.files["small-1-1"]
    (one,) = site.client.search_for_instances(
        data.StudyInstanceUID, data.SeriesInstanceUID, limit=1, fields=["00080018"]
    )
    assert one["00080018"]["Value"] == [data.SOPInstanceUID]


def test_f041_series_and_instances_are_found_across_studies(site: Site) -> None:
    series = site.http.get(f"{SERVICE}/series", params={"PatientID": "P-1"}).json()
    assert len(series) == 2
    assert all(one["00100020"]["Value"] == ["P-1"] for one in series)
    instances = site.http.get(f"{SERVICE}/instances", params={"00100020": "P-1"}).json()
    assert len(instances) == 6
    assert all({"00080060", "00081030", "00080016"} <= set(one) for one in instances)


def test_f044_all_fields_and_c27_a_sequence_are_returned(site: Site) -> None:
    uid = site.files["CT_small.dcm"].StudyInstanceUID
    (study,) = site.http.get(
        f"{SERVICE}/studies", params={"StudyInstanceUID": uid, "includefield": "all"}
    ).json()
    assert {"00101010", "00200010", "00080062"} <= set(study)


def test_f046_the_order_can_be_chosen(site: Site) -> None:
    def ids(order: str) -> list[str]:
        found = site.http.get(f"{SERVICE}/studies", params={"orderby": order}).json()
        return [(study["00100020"].get("Value") or [""])[0] for study in found]

    assert ids("PatientID") == sorted(ids("PatientID"))
    assert ids("-PatientID") == sorted(ids("PatientID"), reverse=True)


def test_f049_names_are_found_by_likeness_when_asked_for(site: Site) -> None:
    asked = {"PatientName": "nandoo jose", "fuzzymatching": "true"}
    assert site.http.get(f"{SERVICE}/studies", params=asked).status_code == 200
    asked["fuzzymatching"] = "false"
    assert site.http.get(f"{SERVICE}/studies", params=asked).status_code == 204


def test_unknown_parameters_are_told_in_a_warning(site: Site) -> None:
    answer = site.http.get(f"{SERVICE}/studies", params={"colour": "blue", "limit": "1"})
    assert answer.status_code == 200
    assert "colour" in answer.headers["warning"]


@pytest.mark.parametrize("query", ["limit=x", "StudyDate=tomorrow", "StudyInstanceUID=abc"])
def test_values_that_cannot_be_meant_are_400_with_words(site: Site, query: str) -> None:
    answer = site.http.get(f"{SERVICE}/studies?{query}")
    assert answer.status_code == 400
    assert answer.json()["remedy"]


# --- metadata and bulk data ---------------------------------------------------------------------


def test_c29_metadata_of_all_instances_come_in_one_array(site: Site) -> None:
    data = site.files["small-1-1"]
    found = site.client.retrieve_series_metadata(data.StudyInstanceUID, data.SeriesInstanceUID)
    assert len(found) == 3
    # C34, C35
    for one in found:
        assert one["00083002"]["Value"] == [EXPLICIT]
        assert set(one["7FE00010"]) == {"vr", "BulkDataURI"}
        read = Dataset.from_json(one, bulk_data_uri_handler=lambda *_: b"")
        assert read.PatientName == data.PatientName


def test_c30_a_second_multipart_type_in_accept_is_no_error(site: Site) -> None:
    answer = site.http.get(
        f"{site.path('small-1-1', level='series')}/metadata",
        headers={
            "accept": 'application/dicom+json, multipart/related; type="application/dicom+xml"'
        },
    )
    assert answer.headers["content-type"] == "application/dicom+json"


def test_c37_metadata_are_compressed_and_not_sent_twice(site: Site) -> None:
    path = f"{site.path('small-1-1', level='study')}/metadata"
    first = site.http.get(path, headers={"accept-encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    again = site.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    # C38
    late = part10(small(1, 2, 9, PatientID="P-1"))
    body, headers = related([late])
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code < 300
    newer = site.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert newer.status_code == 200
    assert len(newer.json()) == len(first.json()) + 1


def test_f067_metadata_come_as_xml(site: Site) -> None:
    accept = 'multipart/related; type="application/dicom+xml"'
    answer = site.http.get(f"{site.path('CT_small.dcm')}/metadata", headers={"accept": accept})
    ((label, document),) = parts_of(answer)
    assert label == "application/dicom+xml"
    assert document.startswith(b"<?xml")


def test_c42_bulk_data_come_alone_in_parts_and_in_ranges(site: Site) -> None:
    (model,) = site.http.get(f"{site.path('CT_small.dcm')}/metadata").json()
    address = model["7FE00010"]["BulkDataURI"]
    pixels = site.files["CT_small.dcm"].PixelData
    # C41
    assert address.startswith(f"{site.product.url}{site.path('CT_small.dcm')}/bulkdata/")
    alone = site.http.get(address, headers={"accept": "application/octet-stream"})
    assert alone.content == pixels
    parts = site.http.get(
        address, headers={"accept": 'multipart/related; type="application/octet-stream"'}
    )
    assert parts_of(parts)[0][1] == pixels
    some = site.http.get(
        address, headers={"accept": "application/octet-stream", "range": "bytes=10-19"}
    )
    assert (some.status_code, some.content) == (206, pixels[10:20])
    assert site.client.retrieve_bulkdata(address)[0] == pixels


# --- objects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_c48_every_object_comes_back_as_it_was_stored(site: Site, name: str) -> None:
    answer = site.http.get(
        site.path(name),
        headers={"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
    )
    ((label, payload),) = parts_of(answer)
    data = site.files[name]
    meta = getattr(data, "file_meta", None)
    syntax = str(meta.TransferSyntaxUID) if meta else "1.2.840.10008.1.2"
    assert label == f"application/dicom; transfer-syntax={syntax}"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert pydicom.dcmread(io.BytesIO(payload)) == data
    assert payload[:128] == bytes(128)


@pytest.mark.parametrize("name", NAMES)
def test_c53_without_a_transfer_syntax_it_is_explicit_little_endian(site: Site, name: str) -> None:
    answer = site.http.get(site.path(name), headers={"accept": "application/dicom"})
    assert answer.status_code == 200
    got = pydicom.dcmread(io.BytesIO(answer.content))
    assert got.file_meta.TransferSyntaxUID == EXPLICIT
    data = site.files[name]
    if name.startswith(("CT", "MR")):
        assert np.array_equal(got.pixel_array, data.pixel_array)


def test_f051_studies_and_series_come_as_parts(site: Site) -> None:
    data = site.files["small-1-1"]
    series = site.client.retrieve_series(data.StudyInstanceUID, data.SeriesInstanceUID)
    assert [one.InstanceNumber for one in series] == [1, 2, 3]
    assert {one.SOPInstanceUID for one in series} == {
        site.files[f"small-1-{number}"].SOPInstanceUID for number in (1, 2, 3)
    }
    assert len(site.client.retrieve_study(data.StudyInstanceUID)) >= 6


def test_f052_another_transfer_syntax_is_made(site: Site) -> None:
    data = site.files["CT_small.dcm"]
    got = site.client.retrieve_instance(
        data.StudyInstanceUID,
        data.SeriesInstanceUID,
        data.SOPInstanceUID,
        media_types=(("application/dicom", JPEG_LS),),
    )
    assert got.file_meta.TransferSyntaxUID == JPEG_LS
    assert np.array_equal(got.pixel_array, data.pixel_array)


def test_a_study_comes_as_a_zip_of_its_files(site: Site) -> None:
    path = site.path("small-1-1", level="study")
    answer = site.http.get(path, params={"accept": "application/zip"})
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        wanted = site.files["small-1-2"]
        name = f"{wanted.StudyInstanceUID}/{wanted.SeriesInstanceUID}/{wanted.SOPInstanceUID}.dcm"
        assert pydicom.dcmread(io.BytesIO(packed.read(name))) == wanted


def test_downloading_needs_its_own_permission(site: Site) -> None:
    with site.product.client("technologist") as technologist:
        path = site.path("small-1-1", level="study")
        assert technologist.get(path).status_code == 200
        assert technologist.get(path, params={"accept": "application/zip"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies/1.2.3.4", 404),
        ("/studies/1.2.3.4/series/1.2", 404),
        ("/studies/1.2.3.4/series/1.2/instances/1.2", 404),
        ("/studies/1.2.3.4/metadata", 404),
        ("/studies/1.2.3.4/rendered", 404),
        ("/studies/abc", 400),
        ("/studies/..%2f..%2fetc", 400),
        (f"/studies/{'1' * 65}", 400),
        ("/nothing", 404),
    ],
)
def test_what_is_not_here_is_404_and_what_is_no_uid_400(site: Site, path: str, status: int) -> None:
    answer = site.http.get(f"{SERVICE}{path}")
    assert answer.status_code in ((status, 404) if "%2f" in path else (status,))
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_object_cannot_be_had_through_another_study(site: Site) -> None:
    one, other = site.files["CT_small.dcm"], site.files["small-1-1"]
    path = (
        f"{SERVICE}/studies/{other.StudyInstanceUID}/series/{other.SeriesInstanceUID}"
        f"/instances/{one.SOPInstanceUID}"
    )
    assert site.http.get(path).status_code == 404


def test_c52_what_cannot_be_given_is_406_and_says_what_can(site: Site) -> None:
    answer = site.http.get(site.path("CT_small.dcm"), headers={"accept": "text/html"})
    assert answer.status_code == 406
    assert "application/dicom" in answer.json()["remedy"]


def test_c62_nobody_is_401_and_the_wrong_role_403(site: Site) -> None:
    path = site.path("CT_small.dcm")
    nobody = httpx.get(site.product.url + path)
    assert nobody.status_code == 401
    assert "www-authenticate" in nobody.headers
    with site.product.client("auditor") as auditor:
        refused = auditor.get(path)
    assert refused.status_code == 403
    assert "www-authenticate" in refused.headers


# --- frames -------------------------------------------------------------------------------------

ANY = 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"]
)
def test_c54_native_frames_come_little_endian_and_labelled(site: Site, name: str) -> None:
    answer = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": ANY})
    ((label, frame),) = parts_of(answer)
    assert label == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    data = site.files[name]
    pixels = np.frombuffer(frame, "<i2" if data.PixelRepresentation else "<u2")
    assert np.array_equal(pixels.reshape(data.Rows, data.Columns), data.pixel_array)


def test_c48_a_compressed_frame_comes_as_it_is_stored(site: Site) -> None:
    name = "MR_small_jpeg_ls_lossless.dcm"
    answer = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": ANY})
    ((label, frame),) = parts_of(answer)
    assert label == f"application/octet-stream; transfer-syntax={JPEG_LS}"
    assert frame == next(pydicom.encaps.generate_frames(site.files[name].PixelData))
    # C49, F060
    alone = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": "image/jls"})
    assert alone.headers["content-type"] == f"image/jls; transfer-syntax={JPEG_LS}"
    assert alone.content == frame


def test_a_compressed_frame_is_decoded_for_who_wants_octets(site: Site) -> None:
    name = "MR_small_jpeg_ls_lossless.dcm"
    data = site.files[name]
    accept = 'multipart/related; type="application/octet-stream"'
    answer = site.http.get(f"{site.path(name)}/frames/1", headers={"accept": accept})
    ((label, frame),) = parts_of(answer)
    assert label == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    assert np.array_equal(
        np.frombuffer(frame, "<i2").reshape(data.pixel_array.shape), data.pixel_array
    )


@pytest.fixture(scope="module")
def film(site: Site) -> Dataset:
    """A multi-frame object whose frames tell their numbers."""
    data = small(20, 1, 1, NumberOfFrames="6", Rows=4, Columns=4)
    data.PixelData = b"".join(np.full((4, 4), n, "<i2").tobytes() for n in range(1, 7))
    site.client.store_instances([data])
    return data


def frames_path(data: Dataset) -> str:
    return f"{instance_path(data)}/frames"


def test_c51_frames_come_in_the_order_asked_for(site: Site, film: Dataset) -> None:
    answer = site.http.get(f"{frames_path(film)}/4,2,6", headers={"accept": ANY})
    first = [np.frombuffer(frame, "<i2")[0] for _label, frame in parts_of(answer)]
    assert first == [4, 2, 6]
    again = site.client.retrieve_instance_frames(
        film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID, [5, 1]
    )
    assert [np.frombuffer(frame, "<i2")[0] for frame in again] == [5, 1]


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ("7", 404),
        ("1,7", 404),
        ("0", 400),
        ("-1", 400),
        ("x", 400),
        ("1,,2", 400),
        ("99999999999", 400),
    ],
)
def test_c52_frames_that_are_not_there_are_404(
    site: Site, film: Dataset, frames: str, status: int
) -> None:
    answer = site.http.get(f"{frames_path(film)}/{frames}", headers={"accept": ANY})
    assert answer.status_code == status


def test_c52_frames_of_an_object_without_pixels_are_404(site: Site) -> None:
    answer = site.http.get(f"{site.path('test-SR.dcm')}/frames/1", headers={"accept": ANY})
    assert answer.status_code in (400, 404)


def test_c52_a_form_that_cannot_be_made_is_406(site: Site) -> None:
    answer = site.http.get(f"{site.path('CT_small.dcm')}/frames/1", headers={"accept": "image/jp2"})
    assert answer.status_code == 406


# --- pictures -----------------------------------------------------------------------------------


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("level", ["study", "series", "instance"])
@pytest.mark.parametrize("form", ["rendered", "thumbnail"])
def test_c57_c58_pictures_exist_on_every_level(site: Site, level: str, form: str) -> None:
    answer = site.http.get(
        f"{site.path('CT_small.dcm', level=level)}/{form}",
        params={"viewport": "64,64"},
        headers={"accept": "image/jpeg"},
    )
    shown = picture(answer)
    assert shown.format == "JPEG"
    assert shown.size == (64, 64)
    assert np.asarray(shown).std() > 5


def test_c57_a_frame_has_pictures_too(site: Site, film: Dataset) -> None:
    for form in ("rendered", "thumbnail"):
        answer = site.http.get(f"{frames_path(film)}/3/{form}")
        assert picture(answer).format == "JPEG"
    assert site.http.get(f"{frames_path(film)}/9/rendered").status_code == 404


def test_c59_the_parameter_overrides_the_header(site: Site) -> None:
    answer = site.http.get(
        f"{site.path('CT_small.dcm')}/rendered",
        params={"accept": "image/png"},
        headers={"accept": "application/dicom+json"},
    )
    assert picture(answer).format == "PNG"


def test_c61_the_window_changes_the_picture(site: Site) -> None:
    def mean(window: str) -> float:
        answer = site.http.get(
            f"{site.path('CT_small.dcm')}/rendered",
            params={"window": window, "accept": "image/png"},
        )
        return float(np.asarray(picture(answer)).mean())

    assert mean("-500,100") > mean("500,2000") > mean("3000,100") + 1


@pytest.mark.parametrize("query", ["viewport=0,0", "viewport=x", "window=1", "quality=0"])
def test_parameters_of_pictures_that_cannot_be_meant_are_400(site: Site, query: str) -> None:
    assert site.http.get(f"{site.path('CT_small.dcm')}/rendered?{query}").status_code == 400


def test_an_object_without_a_picture_is_404(site: Site) -> None:
    assert site.http.get(f"{site.path('test-SR.dcm')}/thumbnail").status_code == 404
    assert site.http.get(f"{site.path('test-SR.dcm')}/rendered").status_code == 404


# --- documents and videos -----------------------------------------------------------------------

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
MPEG4 = "1.2.840.10008.1.2.4.102"


@pytest.fixture(scope="module")
def document(site: Site) -> Dataset:
    """An encapsulated PDF."""
    data = small(30, 1, 1, Modality="DOC", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(data, keyword)
    data.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data.EncapsulatedDocument = PDF + b"\0" * (len(PDF) % 2)
    data.EncapsulatedDocumentLength = len(PDF)
    site.client.store_instances([data])
    return data


@pytest.fixture(scope="module")
def video(site: Site) -> tuple[Dataset, bytes]:
    """A video, as far as an archive is concerned: one stream in two fragments."""
    stream = bytes(range(256)) * 3000
    data = small(31, 1, 1, NumberOfFrames="25", SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.1.1")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.TransferSyntaxUID = MPEG4
    data.PixelData = pydicom.encaps.encapsulate([stream], fragments_per_frame=2, has_bot=False)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    body, headers = related([part10(data)])
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 200
    return data, stream


def instance_path(data: Dataset) -> str:
    return (
        f"{SERVICE}/studies/{data.StudyInstanceUID}/series/{data.SeriesInstanceUID}"
        f"/instances/{data.SOPInstanceUID}"
    )


def test_c43_a_document_comes_as_itself(site: Site, document: Dataset) -> None:
    (model,) = site.http.get(f"{instance_path(document)}/metadata").json()
    address = model["00420011"]
    alone = site.http.get(f"{instance_path(document)}/bulkdata/00420011")
    assert alone.headers["content-type"] == "application/pdf"
    assert alone.content.rstrip(b"\0") == PDF
    assert alone.headers["x-content-type-options"] == "nosniff"
    parts = site.http.get(
        f"{instance_path(document)}/bulkdata/00420011",
        headers={"accept": "multipart/related; type=application/pdf"},
    )
    assert parts_of(parts)[0][0] == "application/pdf"
    assert "BulkDataURI" in address or "InlineBinary" in address
    # F062
    shown = site.http.get(f"{instance_path(document)}/rendered")
    assert shown.headers["content-type"] == "application/pdf"
    assert shown.content.rstrip(b"\0") == PDF
    assert site.http.get(f"{instance_path(document)}/thumbnail").status_code == 404


def test_c44_c45_a_video_comes_as_itself_and_in_ranges(
    site: Site, video: tuple[Dataset, bytes]
) -> None:
    data, stream = video
    path = f"{instance_path(data)}/rendered"
    whole = site.http.get(path, headers={"accept": "video/mp4"})
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.content == stream
    middle = len(stream) // 2
    for asked, expected in (
        ("bytes=0-0", stream[:1]),
        (f"bytes={middle - 5}-{middle + 4}", stream[middle - 5 : middle + 5]),
        ("bytes=-10", stream[-10:]),
    ):
        part = site.http.get(path, headers={"range": asked})
        assert (part.status_code, part.content) == (206, expected)
    assert site.http.get(path, headers={"accept": "image/jpeg"}).status_code == 406
    # No default that could be made: it leaves as it is, and says so.
    alone = site.http.get(instance_path(data), headers={"accept": "application/dicom"})
    assert pydicom.dcmread(io.BytesIO(alone.content)).file_meta.TransferSyntaxUID == MPEG4


def test_s13_what_could_come_alive_leaves_as_bytes(site: Site) -> None:
    data = small(32, 1, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.2")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(data, keyword)
    data.MIMETypeOfEncapsulatedDocument = "text/html"
    data.EncapsulatedDocument = b"<script>alert(1)</script> " * 100
    body, headers = related([part10(data)])
    assert site.http.post(f"{SERVICE}/studies", content=body, headers=headers).status_code == 200
    answer = site.http.get(
        f"{instance_path(data)}/bulkdata/00420011", headers={"accept": "text/html,*/*"}
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


# --- WADO-URI -----------------------------------------------------------------------------------


def test_f064_wado_uri_gives_objects_and_pictures(site: Site) -> None:
    data = site.files["CT_small.dcm"]
    asked = {
        "requestType": "WADO",
        "studyUID": data.StudyInstanceUID,
        "seriesUID": data.SeriesInstanceUID,
        "objectUID": data.SOPInstanceUID,
    }
    assert picture(site.http.get("/wado", params=asked)).format == "JPEG"
    shown = site.http.get(
        "/wado", params={**asked, "contentType": "image/png", "rows": "32", "columns": "32"}
    )
    assert picture(shown).size == (32, 32)
    whole = site.http.get("/wado", params={**asked, "contentType": "application/dicom"})
    assert pydicom.dcmread(io.BytesIO(whole.content)) == data
    assert site.http.get("/wado", params={**asked, "objectUID": "1.2"}).status_code == 404
    assert site.http.get("/wado").status_code == 400


# --- all together -------------------------------------------------------------------------------


def test_s10_looking_at_a_study_is_in_the_audit_book(site: Site) -> None:
    uid = site.files["CT_small.dcm"].StudyInstanceUID
    site.http.get(f"{site.path('CT_small.dcm', level='study')}/metadata")
    told = site.http.get("/api/v1/audit", params={"object_id": uid})
    if told.status_code == 404:
        pytest.skip("the audit book has no API")
    assert uid in told.text


def test_answers_are_json_that_gzip_tools_read(site: Site) -> None:
    with httpx.stream(
        "GET",
        f"{site.product.url}{SERVICE}/studies",
        headers={**site.http.headers, "accept-encoding": "gzip"},
    ) as answer:
        body = b"".join(answer.iter_raw())
    assert json.loads(gzip.decompress(body))
