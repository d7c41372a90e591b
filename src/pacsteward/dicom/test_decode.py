"""Decoders in processes of their own: what they give, and what becomes of one that goes wrong."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from pacsteward.base.errors import Exhausted, Invalid, NotFound, PacstewardError, Unavailable
from pacsteward.dicom import uids
from pacsteward.dicom.decode import DecoderPool, Payload
from pacsteward.dicom.encode import ENCODABLE
from pacsteward.dicom.fixtures.phantoms import (
    colours,
    encapsulated,
    gradient,
    high_throughput_grey,
    image,
    parsed,
    reader,
    transcoded,
    written,
)
from pacsteward.dicom.frames import frame_bytes, locate_frames
from pacsteward.dicom.media import PDF_MEDIA_TYPE, PNG_MEDIA_TYPE
from pacsteward.dicom.render import render
from pacsteward.dicom.render_request import RenderRequest, Viewport

_LITTLE = uids.EXPLICIT_VR_LITTLE_ENDIAN
_HOSTILE = "pacsteward.dicom.fixtures.hostile_child"
_NOTHING = Payload({}, ())


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    """The product's own child."""
    with DecoderPool(time_s=10) as shared:
        yield shared


@pytest.fixture(scope="module")
def hostile() -> Iterator[DecoderPool]:
    """A child that also has tasks which misbehave, on a short leash."""
    with DecoderPool(time_s=3, memory_bytes=256 << 20, child_module=_HOSTILE) as shared:
        yield shared


def _identity(pool: DecoderPool) -> tuple[int, int, int]:
    process, parent, group, _ = pool.run("identity", _NOTHING).split(b" ", 3)
    return int(process), int(parent), int(group)


def _until(is_so: Callable[[], bool]) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _works(pool: DecoderPool) -> bool:
    return pool.run("identity", Payload({}, (b"still ", b"here"))).endswith(b"still here")


# --- What it is for ---


def test_an_image_from_the_pool_is_the_image(pool):
    stored = written(image(gradient(64, 64), WindowCenter="2048", WindowWidth="4096"))
    for request in (
        RenderRequest(),
        RenderRequest(media_type=PNG_MEDIA_TYPE, viewport=Viewport(32, 32, 5, 5, -20, 20)),
        RenderRequest.from_query({"window": "40,400,sigmoid", "quality": "50"}),
    ):
        drawn = pool.render(reader(stored), len(stored), _LITTLE, request)
        assert drawn == render(stored, _LITTLE, request)


def test_a_cached_table_is_used(pool):
    stored = written(image(np.stack([gradient()] * 3), frames=3))
    table = locate_frames(reader(stored), len(stored), _LITTLE)
    request = RenderRequest(frame=2)
    drawn = pool.render(reader(stored), len(stored), _LITTLE, request, table=table)
    assert drawn == render(stored, _LITTLE, request)


def test_frames_are_decoded_and_objects_transcoded(pool):
    pixels = np.stack([gradient(40, 36, dtype="u1", top=255) + n for n in range(3)])
    stored = written(image(pixels, frames=3))
    rle = transcoded(stored, _LITTLE, uids.RLE_LOSSLESS, code_frame=pool.code_frame)
    assert rle == transcoded(stored, _LITTLE, uids.RLE_LOSSLESS)
    table = locate_frames(reader(rle), len(rle), uids.RLE_LOSSLESS)
    frame = frame_bytes(reader(rle), table, 2)
    decoded = pool.decode_frame(frame.data, frame.transfer_syntax_uid, table.image)
    assert decoded == pixels[1].tobytes()
    native = transcoded(rle, uids.RLE_LOSSLESS, _LITTLE, code_frame=pool.code_frame)
    assert parsed(native).PixelData == pixels.tobytes()


def test_a_document_needs_no_decoder():
    data_set = image(gradient())
    del data_set.PixelData
    data_set.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data_set.EncapsulatedDocument = b"%PDF"
    stored = written(data_set)
    with DecoderPool(child_module="there.is.no.such.module") as pool:
        request = RenderRequest(media_type=PDF_MEDIA_TYPE)
        assert pool.render(reader(stored), len(stored), _LITTLE, request) == b"%PDF"


def test_errors_of_the_child_arrive_whole(hostile):
    with pytest.raises(NotFound) as caught:
        hostile.run("refuse", _NOTHING)
    assert str(caught.value) == "There is no frame 7. The object has 3. Ask for 1 to 3."
    assert _works(hostile)


# --- Broken streams ---


def _streams() -> list[tuple[str, bytes]]:
    pixels = gradient(64, 64)
    native = written(image(pixels, BitsStored=12, HighBit=11))
    streams = [(syntax, transcoded(native, _LITTLE, syntax)) for syntax in sorted(ENCODABLE)]
    data, pixels = high_throughput_grey()
    streams.append((uids.HTJ2K_LOSSLESS, encapsulated(image(pixels), [data])))
    picture = io.BytesIO()
    Image.fromarray(colours(64, 64)).save(picture, "JPEG")
    colour = image(colours(64, 64), PhotometricInterpretation="YBR_FULL_422")
    streams.append((uids.JPEG_BASELINE, encapsulated(colour, [picture.getvalue()])))
    return streams


@pytest.mark.parametrize(("syntax", "stored"), _streams())
def test_damaged_streams_end_in_an_error_or_a_picture_and_never_stop_the_pool(pool, syntax, stored):
    random = np.random.default_rng(23)
    table = locate_frames(reader(stored), len(stored), syntax)
    ((offset, length),) = table.spans(1)
    for number in range(30):
        damaged = bytearray(stored)
        if number % 3 == 0:  # cut: zeros instead of the rest
            start = offset + int(random.integers(length))
            damaged[start : offset + length] = bytes(offset + length - start)
        else:
            for _ in range(1 + number):
                damaged[offset + int(random.integers(length))] = int(random.integers(256))
        try:
            drawn = pool.render(
                reader(bytes(damaged)), len(damaged), syntax, RenderRequest(), table=table
            )
            assert Image.open(io.BytesIO(drawn)).size == (table.columns, table.rows)
        except (Invalid, Exhausted):
            continue
    assert pool.render(reader(stored), len(stored), syntax, RenderRequest())


@pytest.mark.parametrize(("syntax", "stored"), _streams())
def test_an_empty_or_wrong_stream_is_invalid(pool, syntax, stored):
    image_pixel = locate_frames(reader(stored), len(stored), syntax).image
    for data in (b"", b"\0" * 64, os.urandom(1000), b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51"):
        with pytest.raises(Invalid, match="could not be decoded"):
            pool.decode_frame(data, syntax, image_pixel)


# --- Decoders that misbehave ---


@pytest.mark.parametrize("task", ["hang", "spin"])
def test_a_decoder_that_takes_too_long_is_killed(hostile, task):
    before = _identity(hostile)[0]
    with pytest.raises(Exhausted, match="more than 3 seconds"):
        hostile.run(task, _NOTHING)
    assert _works(hostile)
    assert _identity(hostile)[0] != before
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


def test_a_decoder_that_eats_memory_is_refused_it(hostile):
    assert hostile.run("eat_memory", Payload({"bytes": 100 << 20}, ())) == b"104857600"
    with pytest.raises(Exhausted, match="more memory"):
        hostile.run("eat_memory", Payload({"bytes": 300 << 20}, ()))
    assert _works(hostile)


@pytest.mark.parametrize("task", ["crash", "leave", "babble"])
def test_a_decoder_that_dies_or_talks_nonsense_is_replaced(hostile, task):
    with pytest.raises(Invalid, match="made the decoder fail"):
        hostile.run(task, _NOTHING)
    assert _works(hostile)


def _deaths(folder, count, how):
    """Return a task that so many children do not survive."""
    for number in range(count):
        (folder / str(number)).touch()
    return Payload({"folder": str(folder), "signal": how}, ())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_decoder_that_is_killed_from_outside_is_not_the_fault_of_the_image(
    hostile, tmp_path, how
):
    """As by the kernel when the machine is short of memory."""
    assert hostile.run("kill", _deaths(tmp_path, 1, how)) == b"alive"
    with pytest.raises(Unavailable, match=f"ended the decoder twice.*signal {how:d}"):
        hostile.run("kill", _deaths(tmp_path, 2, how))
    assert os.listdir(tmp_path) == []
    assert _works(hostile)


def test_a_crash_of_a_used_decoder_may_come_from_what_it_did_before(hostile, tmp_path):
    assert _works(hostile)
    assert hostile.run("kill", _deaths(tmp_path, 1, signal.SIGSEGV)) == b"alive"
    with pytest.raises(Invalid, match="made the decoder fail"):
        hostile.run("kill", _deaths(tmp_path, 2, signal.SIGSEGV))
    assert _works(hostile)


def test_what_crashes_a_fresh_decoder_is_not_tried_again(tmp_path):
    with DecoderPool(child_module=_HOSTILE) as pool:
        with pytest.raises(Invalid, match="made the decoder fail"):
            pool.run("kill", _deaths(tmp_path, 2, signal.SIGSEGV))
        assert len(os.listdir(tmp_path)) == 1


def test_a_task_that_runs_while_the_pool_closes_is_told_so():
    pool = DecoderPool(time_s=600, child_module=_HOSTILE)
    outcome: list[PacstewardError] = []
    thread = threading.Thread(target=_note_error, args=(pool, "hang", outcome))
    thread.start()
    _until(pool._free.empty)
    _until(lambda: pool._seats[0].child is not None)
    pool.close()
    thread.join()
    assert [str(error) for error in outcome] == [
        "The image was not decoded. The server is stopping. Try again in a moment."
    ]


def _note_error(pool, task, outcome):
    try:
        pool.run(task, _NOTHING)
    except PacstewardError as error:
        outcome.append(error)


def test_an_error_that_nobody_foresaw_is_an_answer(hostile):
    before = _identity(hostile)[0]
    with pytest.raises(Invalid, match="KeyError"):
        hostile.run("fail", _NOTHING)
    assert _identity(hostile)[0] == before


def test_data_that_could_never_fit_are_refused_before_they_are_sent(hostile):
    with pytest.raises(Exhausted, match="more than half"):
        hostile.run("identity", Payload({}, (bytes(200 << 20),)))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's filter is that of Linux")
@pytest.mark.parametrize("task", ["connect", "run_program"])
def test_a_decoder_has_no_network_and_runs_no_programs(hostile, task):
    assert hostile.run(task, _NOTHING) == b"PermissionError"


def test_a_decoder_writes_no_files(hostile, tmp_path):
    path = tmp_path / "loot"
    assert hostile.run("write_file", Payload({"path": str(path)}, ())) == b"OSError"
    assert path.read_bytes() == b""


def test_a_decoder_sees_no_secrets(monkeypatch):
    monkeypatch.setenv("PACSTEWARD_DATABASE_URL", "postgresql://user:secret@host/db")
    with DecoderPool(child_module=_HOSTILE) as pool:
        assert b"PACSTEWARD" not in pool.run("secrets", _NOTHING)


# --- Life of the children ---


def test_a_child_stays_in_the_group_of_its_parent(hostile):
    _, parent, group = _identity(hostile)
    assert parent == os.getpid()
    assert group == os.getpgrp()


def test_a_child_is_kept_between_tasks():
    with DecoderPool(child_module=_HOSTILE) as pool:
        assert _identity(pool)[0] == _identity(pool)[0]


def test_an_idle_child_is_ended():
    with DecoderPool(idle_s=0.2, child_module=_HOSTILE) as pool:
        first = _identity(pool)[0]
        _until(lambda: not _exists(first))
        assert _identity(pool)[0] != first


def test_a_child_that_was_killed_from_outside_is_replaced(hostile):
    before = _identity(hostile)[0]
    os.kill(before, signal.SIGKILL)
    _until(lambda: not _exists(before))
    assert _works(hostile)


def test_children_die_with_their_parent():
    """Also when it is killed and can do nothing more."""
    script = (
        "from pacsteward.dicom.decode import DecoderPool, Payload\n"
        f"pool = DecoderPool(child_module={_HOSTILE!r})\n"
        "print(pool.run('identity', Payload({}, ())).decode(), flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as parent:
        child = int(parent.stdout.readline().split()[0])
        assert _exists(child)
        parent.kill()
        parent.wait()
    _until(lambda: not _exists(child))


def test_a_child_survives_the_thread_that_needed_it_first():
    with DecoderPool(child_module=_HOSTILE) as pool:
        found = []
        thread = threading.Thread(target=lambda: found.append(_identity(pool)[0]))
        thread.start()
        thread.join()
        time.sleep(0.1)
        assert _identity(pool)[0] == found[0]


def test_many_threads_share_few_children():
    with DecoderPool(2, child_module=_HOSTILE) as pool:
        results: list[bytes] = []

        def work(number: int) -> None:
            for _ in range(10):
                results.append(pool.run("identity", Payload({}, (b"%d" % number,))))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 80
        assert len({result.split()[0] for result in results}) <= 2
        assert sorted(r.split()[3] for r in results) == sorted([b"%d" % n for n in range(8)] * 10)


def test_who_waits_too_long_for_a_child_is_told():
    with DecoderPool(1, time_s=600, wait_s=0.2, child_module=_HOSTILE) as pool:
        busy = _identity(pool)[0]
        outcome: list[PacstewardError] = []
        thread = threading.Thread(target=_note_error, args=(pool, "hang", outcome))
        thread.start()
        _until(pool._free.empty)
        with pytest.raises(Unavailable, match="busy"):
            pool.run("identity", _NOTHING)
        os.kill(busy, signal.SIGKILL)
        pool.close()
        thread.join()
        assert [type(error) for error in outcome] == [Unavailable]


def test_a_child_that_cannot_start_is_said_and_not_waited_for():
    with (
        DecoderPool(child_module="there.is.no.such.module") as pool,
        pytest.raises(Unavailable, match="could be started"),
    ):
        pool.run("render", _NOTHING)


def test_a_closed_pool_refuses_and_leaves_nobody_behind():
    pool = DecoderPool(child_module=_HOSTILE)
    child = _identity(pool)[0]
    pool.close()
    assert not _exists(child)
    with pytest.raises(Unavailable, match="stopping"):
        pool.run("identity", _NOTHING)


def _exists(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
