"""Sound bytes of every kind: pydicom's files, real samples where there are some, and a few by hand.

References
----------
Real samples are those in the folder ``dicom`` of PACSTEWARD_TEST_DATA.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from pydicom.data import get_testdata_file

from pacsteward.archive.ledger import Ledger
from pacsteward.archive.model import Location, Origin
from pacsteward.archive.record import Description, aligned, checksum_of, encode
from pacsteward.archive.segment import IN_USE, encode_head
from pacsteward.base.errors import PacstewardError
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import message
from pacsteward.dicom.dimse.pdu import (
    Abort,
    AssociateReject,
    AssociateRequest,
    ContextProposal,
    ReleaseReply,
    ReleaseRequest,
    encode_pdu,
    p_data_header,
)
from pacsteward.dicom.dimse.service import UserIdentity
from pacsteward.dicom.dimse.user_information import (
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
    encode_user_information,
)
from pacsteward.dicom.identifier import write_identifier
from pacsteward.dicom.part10 import split_part10

SIZE_MAX = 60_000
"""Longer files are cut: a large image hides nothing in its pixels that a small one would not."""

SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.100",
)  # fmt: skip
"""The first byte of an input chooses one of them, where a data set follows."""


def files() -> Iterator[Path]:
    """Give pydicom's own files, and the real samples where the environment names some."""
    shipped = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    yield from sorted(shipped.glob("*.dcm"))
    real = os.environ.get("PACSTEWARD_TEST_DATA")
    if real:
        yield from sorted(path for path in (Path(real) / "dicom").rglob("*") if path.is_file())


@lru_cache
def part10_files() -> Sequence[bytes]:
    """Return files, cut to `SIZE_MAX`."""
    return [read for path in files() if (read := _beginning(path))]


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SIZE_MAX)


@lru_cache
def data_sets() -> Sequence[bytes]:
    """Return data sets behind a byte that says which of `SYNTAXES` they are in."""
    found = []
    for data in part10_files():
        try:
            meta, start = split_part10(data)
        except PacstewardError:
            continue
        if meta.transfer_syntax_uid in SYNTAXES:
            found.append(bytes((SYNTAXES.index(meta.transfer_syntax_uid),)) + data[start:])
    return found


def compressed() -> Sequence[bytes]:
    """Return those with fragments."""
    return [data for data in data_sets() if data[0] > 3]


def deflated() -> Sequence[bytes]:
    """Return deflated data sets, made of plain ones, without the byte before them."""
    plain = [data[1:] for data in data_sets() if data[0] == 1]
    packed = []
    for data in plain:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed.append(packer.compress(data) + packer.flush())
    return packed


# --- the upper layer -----------------------------------------------------------------------------

USER = UserInformation(
    implementation_class_uid=Uid("1.2.3"),
    implementation_version_name="SEED",
    asynchronous_window=(1, 1),
    roles=(RoleSelection(Uid("1.2.840.10008.5.1.4.1.1.2"), scu=True, scp=True),),
    extended=(ExtendedNegotiation(Uid("1.2.840.10008.5.1.4.1.2.2.1"), b"\1\1\1"),),
    common_extended=(CommonExtendedNegotiation(Uid("1.2.3"), Uid("1.2.4"), (Uid("1.2.5"),)),),
    identity=UserIdentity(2, b"somebody", b"secret", wants_response=True),
)
REQUEST = AssociateRequest(
    AeTitle("PACSTEWARD"),
    AeTitle("SEED"),
    (
        ContextProposal(1, Uid("1.2.840.10008.1.1"), (Uid("1.2.840.10008.1.2"),)),
        ContextProposal(
            3, Uid("1.2.840.10008.5.1.4.1.1.2"), tuple(Uid(name) for name in SYNTAXES[:6])
        ),
    ),
    USER,
)
ECHO = message.encode_command_set(
    {
        message.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.1.1",
        message.COMMAND_FIELD: 0x30,
        message.MESSAGE_ID: 1,
        message.COMMAND_DATA_SET_TYPE: message.NO_DATA_SET,
    }
)
STORE = message.encode_command_set(
    {
        message.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.1.2",
        message.COMMAND_FIELD: 1,
        message.MESSAGE_ID: 2,
        message.PRIORITY: 0,
        message.COMMAND_DATA_SET_TYPE: message.WITH_DATA_SET,
        message.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
        message.MOVE_ORIGINATOR_AE_TITLE: "SOMEBODY",
    }
)


def user_information() -> Sequence[bytes]:
    return [encode_user_information(USER), encode_user_information(UserInformation())]


def pdus() -> Sequence[bytes]:
    """Return one PDU of each kind."""
    control = [REQUEST, AssociateReject(1, 1, 3), ReleaseRequest(), ReleaseReply(), Abort(2, 1)]
    data = [p_data_header(1, 3, len(part)) + part for part in (ECHO, STORE)]
    return [*map(encode_pdu, control), *data]


def commands() -> Sequence[bytes]:
    return [ECHO, STORE]


# --- questions -----------------------------------------------------------------------------------

SEARCHES = (
    b"PatientName=M%C3%BCller*&StudyDate=20260101-20261231&limit=10&offset=2",
    b"00100020=A%5CB&includefield=all&orderby=-StudyDate,PatientName&fuzzymatching=true",
    b"StudyInstanceUID=1.2.3,1.2.4&00400275.00400009=x&StudyTime=0800-120000.5",
    b"includefield=00081030,ReferencedSeriesSequence.SeriesInstanceUID&ModalitiesInStudy=CT",
    b"NumberOfStudyRelatedSeries=3&PatientBirthDate=19700101&AccessionNumber=?*?a*b*",
)
RENDERINGS = (
    b"viewport=256,256,0,0,,&window=40,400,linear&quality=80&annotation=patient",
    b"viewport=-100,100,1.5,2,10,10&window=1e3,0.5,sigmoid",
    b"rows=100&columns=50&region=0,0,0.5,1&windowCenter=1&windowWidth=2&frameNumber=3",
)
MEDIA_TYPES = (
    b'multipart/related; type="application/dicom"; transfer-syntax=*; q=0.5, */*;q=0.1',
    b"application/dicom+json, image/jpeg;q=0.3, text/html; charset=utf-8",
    b'multipart/related; type="application/octet-stream"; boundary="a b"; start="<1>"',
)


def identifiers() -> Sequence[bytes]:
    """Return C-FIND identifiers behind the byte of their syntax."""
    values = {
        0x00080052: "STUDY", 0x00100010: "M\u00fcller^*", 0x0020000D: "1.2.3\\1.2.4",
        0x00080020: "20260101-", 0x00080061: "", 0x00280010: "512",
    }  # fmt: skip
    return [
        bytes((number,))
        + write_identifier(values, character_set="ISO_IR 192", transfer_syntax_uid=SYNTAXES[number])
        for number in (0, 1, 2)
    ]


def texts() -> Sequence[bytes]:
    """Return character sets, a line break and a value in them."""
    return [
        b"ISO 2022 IR 6\\ISO 2022 IR 87\nYamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        b"ISO 2022 IR 13\\ISO 2022 IR 87\n\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J",
        b"\\ISO 2022 IR 149\nHong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
        b"GB18030\nWang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=",
        b"ISO_IR 192\nB\xc3\xbcc^J\xc3\xa9r\xc3\xb4me",
        b"ISO_IR 144\n\xbb\xee\xda\xe1\xea\xd8\xdf",
        b"\\ISO 2022 IR 58\n\x1b$)A\xcd\xf5^\x1b$)A",
        b"\nplain",
    ]


def json_models() -> Sequence[bytes]:
    """Return data sets in the DICOM JSON model."""
    by_hand = (
        b'{"00100010":{"vr":"PN","Value":[{"Alphabetic":"M^A","Ideographic":"\xe5\xb1\xb1"}]},'
        b'"00081199":{"vr":"SQ","Value":[{"00081150":{"vr":"UI","Value":["1.2"]}},null]},'
        b'"00280010":{"vr":"US","Value":[512]},"00101030":{"vr":"DS","Value":[71.5,null]},'
        b'"7FE00010":{"vr":"OW","BulkDataURI":"../x"},"00091002":{"vr":"UN","InlineBinary":"z0x"},'
        b'"00280009":{"vr":"AT","Value":["00181065"]},"00720076":{"vr":"FD","Value":["NaN",1e9]}}'
    )
    shipped = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    return [by_hand, *(path.read_bytes() for path in sorted(shipped.glob("*.json")))]


def multiparts() -> Sequence[bytes]:
    """Return STOW-RS bodies with the boundary "B"."""
    part = b"--B\r\nContent-Type: application/dicom\r\nContent-Location: x\r\n\r\n"
    small = min(part10_files(), key=len)
    return [
        part + small + b"\r\n" + part + small[:200] + b"\r\n--B--\r\n",
        b"preamble\r\n--B  \r\n\r\nx\r\n--B--\r\nepilogue",
    ]


# --- what lies on the disk -----------------------------------------------------------------------

_WHEN = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)
_ABOUT = Description(
    _WHEN,
    Origin("dimse", "CT1", "10.0.0.1", "a1", "PACSTEWARD", "HOSPITAL"),
    "1.2.840.10008.5.1.4.1.1.2", "1.2.3.1", "1.2.3", "1.2.3.0", "1.2.840.10008.1.2.1",
)  # fmt: skip


def segments() -> Sequence[bytes]:
    """Return a segment of the landing log with three records."""
    head, segment = encode_head(IN_USE, 77, 5)
    whole, previous = bytearray(head), segment.check
    for sequence in range(5, 8):
        data = bytes(100 * sequence)
        before, previous = encode(
            _ABOUT,
            b"meta",
            generation=77,
            sequence=sequence,
            safe_sequence=sequence,
            data_size=len(data),
            data_checksum=checksum_of(data),
            previous=previous,
        )
        whole += before + data
        whole += bytes(aligned(len(whole)) - len(whole))
    return [bytes(whole) + bytes(512)]


def ledgers() -> Sequence[bytes]:
    """Return a file of the ledger with three entries."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.open()
        for number, kind in enumerate(("rejected", "restored", "deleted")):
            ledger.append(
                landed_sequence=number,
                at=_WHEN,
                kind=kind,
                actor="somebody",
                sop_instance_uids=("1.2.3", "1.2.4"),
                details={"code": "113001"},
                locations=(Location("segment", "000000000001", 77, 4096, 100),),
            )
        ledger.close()
        return [path.read_bytes() for path in Path(folder).iterdir()]


SETTINGS = (
    b'host = "0.0.0.0"\ndimse_port = 104\n\n[dicom]\nae_title = "PACS"\nfurther_ae_titles = ["A"]\n'
    b"associations_max = 10\nartim_s = 5.5\n\n[web]\ntrusted_proxies = ['10.0.0.0/8']\n"
    b'public_url = "https://pacs.example"\ncors_origins = ["https://v.example"]\n',
    b'[archive]\nacknowledge = "landed"\nreserve_bytes = 1000\nwarn_share = 0.5\n'
    b"[query]\nmax_matches = 0\n[storage]\naccept_private_sop_classes = true\n",
)
