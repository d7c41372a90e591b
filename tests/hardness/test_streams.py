"""S14: broken compressed frames end in a 4xx or a failed sub-operation; the decoders live on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pydicom
import pytest
from pydicom import FileDataset
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from pacsteward.dicom.fixtures.phantoms import high_throughput_grey
from tests.hardness import wire
from tests.hardness.data_sets import encoded, file_meta
from tests.hardness.target import Target, at_once
from tests.hardness.wire import EXPLICIT, STUDY_ROOT_GET, associate_rq, context
from tests.support.product import Product
from tests.support.samples import part10, small

HIGH_THROUGHPUT = "HTJ2K"
SAMPLES = {
    "RLE": "MR_small_RLE.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG": "SC_rgb_jpeg_dcmtk.dcm",
    HIGH_THROUGHPUT: "",
}
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
NATIVE_FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=' + EXPLICIT


@dataclass(frozen=True, slots=True)
class Broken:
    """One object whose only frame is damaged."""

    name: str
    study: str
    series: str
    uid: str
    sop_class: str
    syntax: str
    file: bytes
    is_cut: bool

    @property
    def at(self) -> str:
        return f"/dicom-web/studies/{self.study}/series/{self.series}/instances/{self.uid}"


def sample(name: str) -> FileDataset:
    if name == HIGH_THROUGHPUT:
        return _high_throughput()
    path = get_testdata_file(SAMPLES[name], download=False)
    if not path:
        pytest.skip(f"pydicom came without {SAMPLES[name]}")
    return pydicom.dcmread(Path(str(path)))


def _high_throughput() -> FileDataset:
    stream, pixels = high_throughput_grey()
    data = small(93, 1, 1, BitsStored=12, HighBit=11, PixelRepresentation=0)
    data.Rows, data.Columns = pixels.shape
    data.PixelData = encapsulate([stream])
    data.file_meta.TransferSyntaxUID = HTJ2K_LOSSLESS
    return data


def damaged(name: str, flips: int = 10, cuts: int = 0) -> Iterator[tuple[str, bytes, bool]]:
    """Give broken versions of a sample's frame, and whether most of it is gone."""
    frame = next(generate_frames(sample(name).PixelData))
    places = {0, 1, 2, 20, 60, len(frame) // 4, len(frame) // 2}
    places |= {len(frame) * number // (2 * cuts) for number in range(cuts)}
    for part in sorted(places):
        yield f"cut at {part}", frame[:part], True
    yield "noise", random.Random(name).randbytes(len(frame)), True
    yield "zeros", bytes(len(frame)), True
    yield "another format", b"\x89PNG\r\n\x1a\n" + bytes(200), True
    yield "head only", frame[:100] + bytes(len(frame) - 100), False
    for seed in range(flips):
        dice = random.Random(f"{name}{seed}")
        changed = bytearray(frame)
        # The first bytes hold sizes, tables and markers: that is where decoders stumble.
        end = 200 if seed % 2 else len(frame)
        for _ in range(dice.randint(1, 8)):
            changed[dice.randrange(min(end, len(frame)))] = dice.randrange(256)
        yield f"flips {seed}", bytes(changed), False


def objects(name: str, flips: int = 10, cuts: int = 0) -> Iterator[Broken]:
    number = list(SAMPLES).index(name)
    study = f"2.25.94.{number}"
    for place, (what, frame, is_cut) in enumerate(damaged(name, flips, cuts)):
        data = sample(name)
        syntax = str(data.file_meta.TransferSyntaxUID)
        data.StudyInstanceUID, data.SeriesInstanceUID = study, f"{study}.1"
        data.SOPInstanceUID = f"{study}.1.{place + 1}"
        data.PixelData = _encapsulated(frame)
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
        uid, sop_class = data.SOPInstanceUID, data.SOPClassUID
        raw = bytes(128) + b"DICM" + file_meta(sop_class, uid, syntax) + encoded(data)
        yield Broken(f"{name} {what}", study, f"{study}.1", uid, sop_class, syntax, raw, is_cut)


def _encapsulated(frame: bytes) -> bytes:
    """Return the fragments of pixel data: an empty offset table and the frame."""
    frame += b"\0" * (len(frame) % 2)
    item = b"\xfe\xff\x00\xe0"
    return item + bytes(4) + item + len(frame).to_bytes(4, "little") + frame


def wrong(target: Target, one: Broken) -> str:
    client = target.client()
    stored = client.post(
        "/dicom-web/studies", content=one.file, headers={"content-type": "application/dicom"}
    )
    if stored.status_code not in (200, 202):
        return f"{one.name}: not stored, {stored.text}"
    for path, accept in (
        ("/rendered", "image/jpeg"),
        ("/frames/1", NATIVE_FRAMES),
        ("", f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT}'),
    ):
        answer = client.get(one.at + path, headers={"accept": accept})
        is_refused = 400 <= answer.status_code < 500
        # A whole object that cannot be converted may be given as it is, and labelled so.
        is_as_stored = f"transfer-syntax={one.syntax}".encode() in answer.content[:300]
        is_good = answer.status_code == 200 and (is_as_stored or not one.is_cut)
        if not is_refused and not is_good:
            return f"{one.name}: {path} {answer.status_code} {answer.content[:100]!r}"
    as_stored = client.get(
        one.at, headers={"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    )
    if as_stored.status_code != 200:
        return f"{one.name}: as stored {as_stored.status_code}"
    return ""


@pytest.mark.parametrize("name", SAMPLES)
def test_s14_a_broken_frame_is_refused_and_the_next_picture_is_drawn(
    target: Target, name: str
) -> None:
    with target.unharmed():
        found = [fault for fault in at_once(lambda o: wrong(target, o), objects(name)) if fault]
        assert not found, "\n".join(found)
        for size in (31, 33):
            answer = target.client().get(f"{GOOD}/rendered?viewport={size},{size}")
            assert answer.status_code == 200, answer.text


def test_s14_c_get_counts_frames_that_cannot_be_converted_as_failed(target: Target) -> None:
    """Runs behind the others: their objects are asked for in a syntax that needs decoding."""
    with target.unharmed():
        for number, name in enumerate(SAMPLES):
            sent = list(objects(name))
            asked = {one.sop_class for one in sent}
            found = _c_get(target, f"2.25.94.{number}", next(iter(asked)))
            counters = {tag: int.from_bytes(found[tag], "little") for tag in (0x1021, 0x1022)}
            assert sum(counters.values()) == len(sent), (name, counters)
            assert counters[0x1022] >= sum(one.is_cut for one in sent), (name, counters)
            assert int.from_bytes(found[0x0900], "little") in (0xB000, 0xA702), name


def _c_get(target: Target, study: str, sop_class: str) -> dict[int, bytes]:
    role = wire.item(0x54, len(sop_class).to_bytes(2, "big") + sop_class.encode() + b"\0\1")
    user = wire.item(0x50, wire.item(0x51, b"\0\1\0\0") + wire.item(0x52, b"1.2.3.4") + role)
    contexts = context(1, STUDY_ROOT_GET, [EXPLICIT]) + context(3, sop_class, [EXPLICIT])
    identifier = wire.explicit(0x00080052, "CS", "STUDY") + wire.explicit(0x0020000D, "UI", study)
    with target.line() as line:
        line.socket.settimeout(30)
        line.associate(associate_rq(contexts=contexts, user=user))
        asking = wire.command(wire.request(0x10, STUDY_ROOT_GET, has_data=True, _0700=0))
        line.send(
            wire.p_data(1, asking, is_command=True) + wire.p_data(1, identifier, is_command=False)
        )
        while True:
            message = line.response()
            assert message is not None, study
            if message[0x0100] == b"\x01\0":
                line.send(_stored(message))
            elif message[0x0900] != b"\0\xff":
                return message


def _stored(message: dict[int, bytes]) -> bytes:
    answer = {
        0x0002: message[0x0002],
        0x0100: 0x8001,
        0x0120: int.from_bytes(message[0x0110], "little"),
        0x0800: 0x0101,
        0x0900: 0,
        0x1000: message[0x1000],
    }
    return wire.p_data(3, wire.command(answer), is_command=True)


GOOD = "/dicom-web/studies/2.25.99.1/series/2.25.99.1.1/instances/2.25.99.1.1.1"
DECODER_MEMORY_BYTES = 512 * 1024**2
SECCOMP_FILTER = "2"


def decoders(target: Target) -> list[psutil.Process]:
    """Return the decoder processes, after a picture was asked for that nobody has drawn yet."""
    for process in (process for one in target.processes() for process in one.children()):
        if any("decode_child" in word for word in process.cmdline()):
            return [process]
    return []


def drawn_by_a_decoder(target: Target) -> str:
    """Store a compressed image and have it drawn; return its path."""
    data = sample("RLE")
    at = (
        f"/dicom-web/studies/{data.StudyInstanceUID}/series/{data.SeriesInstanceUID}"
        f"/instances/{data.SOPInstanceUID}"
    )
    stored = target.client().post(
        "/dicom-web/studies",
        content=part10(data),
        headers={"content-type": "application/dicom"},
    )
    assert stored.status_code == 200
    assert target.client().get(f"{at}/rendered?viewport=41,43").status_code == 200
    return at


def test_s14_a_decoder_has_bounds_no_network_and_no_secrets(target: Target) -> None:
    drawn_by_a_decoder(target)
    (decoder,) = decoders(target)[:1]
    soft, hard = decoder.rlimit(psutil.RLIMIT_AS)
    at_start = 3 * DECODER_MEMORY_BYTES
    assert DECODER_MEMORY_BYTES <= soft == hard <= DECODER_MEMORY_BYTES + at_start
    assert hard - decoder.memory_info().vms <= DECODER_MEMORY_BYTES
    assert decoder.rlimit(psutil.RLIMIT_FSIZE) == decoder.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{decoder.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Seccomp"] == SECCOMP_FILTER
    assert status["NoNewPrivs"] == "1"
    assert not [name for name in decoder.environ() if "PACSTEWARD" in name or "SECRET" in name]
    assert not decoder.net_connections("inet")
    # One socket to its parent, and what the interpreter opens for itself.
    assert decoder.num_fds() <= 8


def test_s14_a_decoder_that_hangs_is_ended_and_the_next_picture_is_drawn(
    tmp_path: Path,
) -> None:
    environment = {"PACSTEWARD_RETRIEVE__DECODER_TIME_S": "2"}
    running = Target(Product(tmp_path / "archive", environment).start(), tmp_path)
    try:
        at = drawn_by_a_decoder(running)
        (stuck,) = decoders(running)
        stuck.suspend()
        answer = running.client().get(f"{at}/rendered?viewport=42,44")
        assert answer.status_code == 413, answer.text
        assert running.client().get(f"{at}/rendered?viewport=43,45").status_code == 200
        assert not stuck.is_running()
    finally:
        for client in (*running.clients.values(), running.stranger):
            client.close()
        running.product.stop()
