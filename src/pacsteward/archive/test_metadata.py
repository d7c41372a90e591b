"""Metadata: complete, never stale, with values that can be fetched, and made once."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from pacsteward.archive import metadata as metadata_module
from pacsteward.archive.bulk import locate
from pacsteward.archive.containers import container_path
from pacsteward.archive.header_json import HeaderTexts
from pacsteward.archive.metadata import MetadataBook, tidy
from pacsteward.archive.read import Reader, StoredObject
from pacsteward.base.errors import Broken, Invalid, NotFound, Unsupported
from pacsteward.dicom.part10 import split_part10

SAMPLES = os.environ.get("PACSTEWARD_TEST_DATA", "")
BASE = "https://pacs.example/dicom-web"

Make = Callable[..., MetadataBook]


@pytest.fixture
def ct() -> Dataset:
    return dcmread(get_testdata_file("CT_small.dcm"))


@pytest.fixture
def make_book(vault: Any) -> Make:
    def make(cache_bytes: int = 1 << 30) -> MetadataBook:
        return MetadataBook(
            vault.database,
            Reader(vault.database, vault.data_folder),
            vault.data_folder / "cache" / "metadata",
            inline_limit_bytes=64,
            cache_bytes=cache_bytes,
        )

    return make


@pytest.fixture
def book(make_book: Make) -> MetadataBook:
    return make_book()


def read(book: MetadataBook, *uids: str | None, base_url: str = BASE) -> list[dict[str, Any]]:
    _etag, pieces = book.metadata(*uids, base_url=base_url)  # type: ignore[arg-type]
    answer: list[dict[str, Any]] = json.loads(b"".join(pieces))
    return answer


def another(dataset: Dataset, number: int) -> Dataset:
    dataset.SOPInstanceUID = generate_uid()
    dataset.InstanceNumber = number
    return dataset


def test_c29_a_series_is_one_array_in_viewing_order(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    uids = {n: vault.keep(another(ct, n)) for n in (3, 1, 2)}
    answer = read(book, ct.StudyInstanceUID, ct.SeriesInstanceUID)
    assert [one["00080018"]["Value"][0] for one in answer] == [uids[n] for n in (1, 2, 3)]
    assert read(book, ct.StudyInstanceUID) == answer
    assert read(book, ct.StudyInstanceUID, ct.SeriesInstanceUID, uids[2]) == [answer[1]]
    assert read(book, ct.StudyInstanceUID, None, uids[2]) == [answer[1]]


def test_c31_metadata_hold_every_attribute(vault: Any, book: MetadataBook, ct: Dataset) -> None:
    vault.keep(ct)
    (answer,) = read(book, ct.StudyInstanceUID)
    expected = {f"{int(tag):08X}" for tag in ct.keys() if int(tag) & 0xFFFF}  # noqa: SIM118
    # Data Set Trailing Padding says nothing.
    assert set(answer) == expected - {"FFFCFFFC"} | {"00083002"}
    assert list(answer) == sorted(answer)
    assert answer["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "CompressedSamples^CT1"}]}


def test_c34_the_stored_transfer_syntax_is_said(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    vault.keep(ct, transfer_syntax_uid=ImplicitVRLittleEndian)
    (answer,) = read(book, ct.StudyInstanceUID)
    assert answer["00083002"] == {"vr": "UI", "Value": ["1.2.840.10008.1.2"]}


def test_c35_c41_pixel_data_are_an_absolute_uri(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    uid = vault.keep(ct)
    place = f"studies/{ct.StudyInstanceUID}/series/{ct.SeriesInstanceUID}/instances/{uid}"
    for base in (BASE, BASE + "/", 'https://x/"q'):
        (answer,) = read(book, ct.StudyInstanceUID, base_url=base)
        assert answer["7FE00010"] == {
            "vr": "OW",
            "BulkDataURI": f"{base.rstrip('/')}/{place}/bulkdata/7FE00010",
        }


def test_c36_long_values_are_named_and_can_be_fetched(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    overlay, table, private = bytes(range(256)) * 2, b"\1\2" * 100, b"p" * 100_000
    ct.add_new(0x60003000, "OW", overlay)
    item = Dataset()
    item.add_new(0x00283006, "OW", table)
    ct.VOILUTSequence = [item]
    ct.add_new(0x00990010, "LO", "ACME")
    ct.add_new(0x00991001, "OB", private)
    uid = vault.keep(ct)
    (answer,) = read(book, ct.StudyInstanceUID)
    reader = Reader(vault.database, vault.data_folder)
    uris = {
        overlay: answer["60003000"]["BulkDataURI"],
        table: answer["00283010"]["Value"][0]["00283006"]["BulkDataURI"],
        private: answer["00991001"]["BulkDataURI"],
    }
    with reader.open(reader.instance("", "", uid)) as stored:
        for expected, uri in uris.items():
            path = uri.partition("/bulkdata/")[2]
            found = locate(stored.read, stored.size, stored.transfer_syntax_uid, path)
            assert found.read(stored.read) == expected


def test_c39_private_attributes_keep_their_creator_and_vr(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    vault.keep(ct)
    (answer,) = read(book, ct.StudyInstanceUID)
    assert answer["00090010"] == {"vr": "LO", "Value": ["GEMS_IDEN_01"]}
    assert answer["00091027"] == {"vr": "SL", "Value": [862399669]}


def test_a_text_that_looks_like_a_uri_stays_as_it_is(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    ct.PatientComments = '","BulkDataURI":"x'
    vault.keep(ct)
    (answer,) = read(book, ct.StudyInstanceUID)
    assert answer["00104000"]["Value"] == ['","BulkDataURI":"x']


def test_c40_pixel_data_are_not_read(
    vault: Any, book: MetadataBook, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ct.NumberOfFrames = 500
    ct.PixelData = ct.PixelData * 500
    vault.keep(ct)
    asked: list[int] = []
    whole = StoredObject.read

    def counted(self: StoredObject, offset: int, length: int) -> bytes:
        data = whole(self, offset, length)
        asked.append(len(data))
        return data

    monkeypatch.setattr(StoredObject, "read", counted)
    (answer,) = read(book, ct.StudyInstanceUID)
    assert answer["00280008"]["Value"] == [500]
    assert sum(asked) < 200_000


def test_c38_a_late_instance_is_there_at_once_and_only_it_is_made(
    vault: Any, book: MetadataBook, make_book: Make, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = HeaderTexts.text

    def counted(self: HeaderTexts, stored: StoredObject, *, bulk_data_prefix: str) -> bytes:
        made.append(stored.instance.sop_instance_uid)
        return original(self, stored, bulk_data_prefix=bulk_data_prefix)

    monkeypatch.setattr(HeaderTexts, "text", counted)
    first = vault.keep(another(ct, 1))
    etag = book.etag(ct.StudyInstanceUID, ct.SeriesInstanceUID)
    assert len(read(book, ct.StudyInstanceUID)) == 1
    assert book.etag(ct.StudyInstanceUID, ct.SeriesInstanceUID) == etag
    late = vault.keep(another(ct, 2))
    assert book.etag(ct.StudyInstanceUID, ct.SeriesInstanceUID) != etag
    assert len(read(book, ct.StudyInstanceUID)) == 2
    # Another process finds what this one kept.
    assert len(read(make_book(), ct.StudyInstanceUID)) == 2
    assert made == [first, late]


def test_what_is_prepared_is_there_for_others_and_takes_no_memory_here(
    vault: Any, book: MetadataBook, make_book: Make, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.keep(another(ct, 1))
    book.prepare(ct.StudyInstanceUID)
    assert book._recent._total == 0
    monkeypatch.setattr(HeaderTexts, "text", None)
    reader = make_book()
    assert len(read(reader, ct.StudyInstanceUID)) == 1
    assert reader._recent._total > 0
    with pytest.raises(NotFound):
        book.prepare("1.2.3.4")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(gzip.compress(b'{"format":[1,64]}\n[]')),
        lambda path: path.write_bytes(gzip.compress(b"nonsense")),
    ],
)
def test_what_was_kept_may_be_damaged_or_gone(
    vault: Any, make_book: Make, ct: Dataset, harm: Callable[[Path], None]
) -> None:
    vault.keep(ct)
    expected = read(make_book(), ct.StudyInstanceUID)
    (kept,) = (vault.data_folder / "cache" / "metadata").glob("??/*")
    harm(kept)
    assert read(make_book(), ct.StudyInstanceUID) == expected


def test_the_cache_keeps_to_its_room(tmp_path: Path) -> None:
    for n in range(10):
        path = tmp_path / f"{n}.gz"
        path.write_bytes(b"x" * 100)
        os.utime(path, (n, n))
    assert tidy(tmp_path, 450) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["6.gz", "7.gz", "8.gz", "9.gz"]
    assert tidy(tmp_path, 0) == 4
    assert list(tmp_path.iterdir()) == []


def test_the_newest_is_kept_although_it_is_too_large(tmp_path: Path) -> None:
    for n in range(3):
        path = tmp_path / f"{n}.gz"
        path.write_bytes(b"x" * 100)
        os.utime(path, (n, n))
    assert tidy(tmp_path, 1) == 2
    # Somebody waits for it.
    assert [path.name for path in tmp_path.iterdir()] == ["2.gz"]


def test_what_is_kept_is_tidied_where_it_is_kept(
    vault: Any, make_book: Make, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_module, "_TIDY_ONE_IN", 1)
    book = make_book(cache_bytes=metadata_module._FOLDERS)
    folders = set()
    for number in range(60):
        ct.SeriesInstanceUID = f"1.2.3.{number}"
        vault.keep(another(ct, 1))
        read(book, ct.StudyInstanceUID, ct.SeriesInstanceUID)
        folders.add(metadata_module._key(ct.StudyInstanceUID, ct.SeriesInstanceUID)[:2])
    kept = list((vault.data_folder / "cache" / "metadata").glob("??/*"))
    assert len(folders) < 60
    assert sorted(path.parent.name for path in kept) == sorted(folders)


def test_what_is_not_there_is_not_found(vault: Any, book: MetadataBook, ct: Dataset) -> None:
    uid = vault.keep(ct)
    for uids in (
        ("1.2.3",),
        (ct.StudyInstanceUID, "1.2.3"),
        ("1.2.3", ct.SeriesInstanceUID),
        (ct.StudyInstanceUID, ct.SeriesInstanceUID, "1.2.3"),
        ("1.2.3", None, uid),
    ):
        with pytest.raises(NotFound):
            book.metadata(*uids, base_url=BASE)
        with pytest.raises(NotFound):
            book.etag(*uids)


def test_one_damaged_header_does_not_hide_its_series(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    vault.keep(another(ct, 1))
    ct.SOPInstanceUID = generate_uid()
    bad = vault.keep_bytes(ct, b"\x08\x00\x05\x00CS\xff\x00short", "1.2.840.10008.1.2.1")
    answer = read(book, ct.StudyInstanceUID)
    assert len(answer) == 2
    (damaged,) = [one for one in answer if one["00080018"]["Value"] == [bad]]
    assert set(damaged) == {"00080016", "00080018", "00083002", "0020000D", "0020000E"}


def test_r11_a_flipped_bit_is_never_in_metadata_and_hides_one_instance_alone(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    vault.keep(another(ct, 1))
    bad = vault.keep(another(ct, 2))
    flip = Flip(vault, bad, b"GE MEDICAL")
    for _ in range(2):
        sound, damaged = read(book, ct.StudyInstanceUID)
        assert sound["00080070"]["Value"] == ["GE MEDICAL SYSTEMS"]
        assert damaged["00080018"]["Value"] == [bad]
        assert damaged["00080056"]["Value"] == ["UNAVAILABLE"]
        assert "00080070" not in damaged
        with pytest.raises(Broken, match="is damaged"):
            read(book, ct.StudyInstanceUID, ct.SeriesInstanceUID, bad)
    flip.undo()
    _, healed = read(book, ct.StudyInstanceUID)
    assert healed["00080070"]["Value"] == ["GE MEDICAL SYSTEMS"]
    assert read(book, ct.StudyInstanceUID, ct.SeriesInstanceUID, bad) == [healed]


class Flip:
    """A bit of a stored text, turned over at once."""

    def __init__(self, vault: Any, uid: str, text: bytes) -> None:
        location = Reader(vault.database, vault.data_folder).instance("", "", uid).location
        self._path = container_path(vault.data_folder, location)
        self._at = self._path.read_bytes().index(text, location.offset)
        self.undo()

    def undo(self) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._at)
            bit = file.read(1)[0] ^ 1
            file.seek(self._at)
            file.write(bytes([bit]))


@pytest.mark.parametrize(
    ("name", "transfer_syntax_uid"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", JPEGBaseline8Bit),
        ("MR_small_bigendian.dcm", ExplicitVRBigEndian),
        ("rtplan.dcm", ImplicitVRLittleEndian),
        ("rtstruct.dcm", ImplicitVRLittleEndian),
        ("reportsi.dcm", "1.2.840.10008.1.2.1"),
    ],
)
def test_objects_of_every_encoding_have_metadata(
    vault: Any, book: MetadataBook, name: str, transfer_syntax_uid: str
) -> None:
    dataset = dcmread(get_testdata_file(name), force=True)
    dataset.StudyInstanceUID = dataset.get("StudyInstanceUID") or generate_uid()
    dataset.SeriesInstanceUID = dataset.get("SeriesInstanceUID") or generate_uid()
    vault.keep(dataset, transfer_syntax_uid=transfer_syntax_uid)
    (answer,) = read(book, dataset.StudyInstanceUID)
    assert answer["00080018"]["Value"] == [dataset.SOPInstanceUID]
    assert "null" not in json.dumps([item for item in answer.values() if item["vr"] == "SQ"])
    restored = Dataset.from_json(json.dumps(answer), bulk_data_uri_handler=lambda *_: b"")
    expected = {int(tag) for tag in dataset.keys() if int(tag) & 0xFFFF}  # noqa: SIM118
    assert set(map(int, restored.keys())) >= expected - {0xFFFCFFFC}


def test_c40_a_deflated_object_is_inflated_no_further_than_its_header(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    plain = vault.keep(another(ct, 1))
    reader = Reader(vault.database, vault.data_folder)
    with reader.open(reader.instance("", "", plain)) as stored:
        data = stored.data_set()
    ct.SOPInstanceUID = generate_uid()
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = compressor.compress(data) + compressor.flush()
    vault.keep_bytes(ct, deflated, "1.2.840.10008.1.2.1.99")
    first, second = read(book, ct.StudyInstanceUID)
    assert list(first) == list(second)
    differing = {
        tag for tag in first if first[tag] != second[tag] and "BulkDataURI" not in first[tag]
    }
    assert differing == {"00083002"}
    assert second["7FE00010"]["BulkDataURI"].endswith("/bulkdata/7FE00010")


EMPTY = struct.pack("<HH2sH", 0x11, 0x20, b"LO", 0)


@pytest.mark.parametrize(
    "many",
    [
        pytest.param(EMPTY * 20_001, id="beside each other"),
        pytest.param(
            struct.pack("<HH2sHI", 0x08, 0x1140, b"SQ", 0, 8 + 8 * 300_000)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 8 * 300_000)
            + EMPTY * 300_000,
            id="in an item",
        ),
        pytest.param(
            struct.pack("<HH2sHI", 0x08, 0x1140, b"SQ", 0, 8 * 300_001)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 300_001,
            id="items",
        ),
    ],
)
def test_an_object_of_countless_elements_shows_its_uids_and_nothing_else(
    vault: Any, book: MetadataBook, ct: Dataset, many: bytes
) -> None:
    """To decode a million empty elements takes half a minute and half a gigabyte."""
    vault.keep_bytes(ct, many, "1.2.840.10008.1.2.1")
    (answer,) = read(book, ct.StudyInstanceUID)
    assert sorted(answer) == ["00080016", "00080018", "00083002", "0020000D", "0020000E"]


def test_a_text_of_megabytes_becomes_bulk_data_and_is_not_read_for_the_rest(
    vault: Any, book: MetadataBook, ct: Dataset
) -> None:
    long = struct.pack("<HH2sHI", 0x11, 0x1020, b"UT", 0, 2 << 20) + b"x" * (2 << 20)
    short = struct.pack("<HH2sHI", 0x11, 0x1021, b"UT", 0, 4) + b"text"
    vault.keep_bytes(ct, long + short, "1.2.840.10008.1.2.1")
    (answer,) = read(book, ct.StudyInstanceUID)
    assert answer["00111020"]["BulkDataURI"].endswith("/bulkdata/00111020")
    assert answer["00111021"] == {"vr": "UT", "Value": ["text"]}


@pytest.mark.shared_data
@pytest.mark.skipif(not SAMPLES, reason="PACSTEWARD_TEST_DATA names no folder of samples")
def test_real_objects_have_metadata_whose_values_can_be_fetched(
    vault: Any, book: MetadataBook
) -> None:
    reader = Reader(vault.database, vault.data_folder)
    whole = damaged = 0
    for path in sorted((Path(SAMPLES) / "dicom").rglob("*.dcm")):
        data = path.read_bytes()
        try:
            meta, offset = split_part10(data)
        except Invalid:
            continue
        named = Dataset()
        named.SOPClassUID = meta.media_storage_sop_class_uid or "1.2"
        named.SOPInstanceUID = generate_uid()
        named.StudyInstanceUID, named.SeriesInstanceUID = "1.2.3", generate_uid()
        uid = vault.keep_bytes(named, data[offset:], meta.transfer_syntax_uid)
        (answer,) = read(book, "1.2.3", named.SeriesInstanceUID)
        if len(answer) <= 6:
            damaged += 1
            continue
        whole += 1
        with reader.open(reader.instance("", "", uid)) as stored:
            for uri in uris_in(answer):
                try:
                    place = uri.partition("/bulkdata/")[2]
                    locate(stored.read, stored.size, stored.transfer_syntax_uid, place)
                except Unsupported:
                    assert place == "7FE00010"  # several compressed frames
    assert whole > 20 * damaged


def uris_in(answer: dict[str, Any]) -> list[str]:
    found = []
    for attribute in answer.values():
        if "BulkDataURI" in attribute:
            found.append(attribute["BulkDataURI"])
        if attribute["vr"] == "SQ":
            found += [uri for item in attribute.get("Value", []) for uri in uris_in(item)]
    return found
