"""A pool of processes that decode, so that no image can take the server with it.

What enters is a task with its data; what leaves is the result, or an error of one of the eight
kinds, within the time limit. A child that crashes, hangs or eats memory is killed and replaced,
and only the task it had fails. Was it killed from outside, or had it done other tasks before it
crashed, then the task is tried once more in a fresh child: only what ends a fresh one, too, is said
to be the image's fault. Children are started when they are first needed, kept warm, renewed
after many tasks, and ended when nobody has asked for a while.

Range reads and parsing of attributes stay in the caller's process: they are plain Python. Only
frames travel, so a child needs the memory of a frame, however large the object is. A child has
512 MiB, ten seconds for a frame, and no network.

A picture of small native pixels is drawn in the caller's thread. No codec reads anything there, its
size is known beforehand, and the way into a child and back takes half as long as the drawing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final, NamedTuple, Self

from pacsteward.base import errors
from pacsteward.base.errors import PacstewardError, Unavailable
from pacsteward.dicom import frames
from pacsteward.dicom.decode_child import (
    Blob,
    beyond_limits,
    failed,
    out_of_memory,
    receive_message,
    send_message,
)
from pacsteward.dicom.elements import RangeReader
from pacsteward.dicom.media import JPEG_MEDIA_TYPE, PDF_MEDIA_TYPE, Codec, codec_of
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.render import (
    FrameSource,
    RangeViewer,
    document,
    frame_source,
    frame_table,
    render_frame,
)
from pacsteward.dicom.render_request import RenderRequest

_log: Final = logging.getLogger(__name__)

MEMORY_BYTES_DEFAULT: Final = 512 * 1024 * 1024
TIME_S_DEFAULT: Final = 10.0
IDLE_S_DEFAULT: Final = 60.0
TASKS_PER_CHILD: Final = 2000
"""After so many tasks a child is renewed: whatever its libraries leak is bounded."""

_START_S: Final = 30.0
_GONE_WITHIN_S: Final = 1.0
_RECEIVE_MAX: Final = 1 << 20
_CHILD_MODULE: Final = "pacsteward.dicom.decode_child"

_KINDS: Final[dict[str, type[PacstewardError]]] = {
    kind.kind.value: kind for kind in PacstewardError.__subclasses__()
}


class Payload(NamedTuple):
    """What a task works on: parameters that JSON knows, and bytes."""

    parameters: Mapping[str, Any]
    blobs: Sequence[Blob]


class DecoderPool:
    """Runs decoders in killable child processes; safe to be shared by threads.

    Parameters
    ----------
    workers
        Children at most, so tasks at a time.
    memory_bytes
        Address space of a child for data, beyond what the interpreter and its libraries take.
    time_s
        Wall-clock seconds for one task.
    idle_s
        Seconds without work after which a child is ended.
    wait_s
        Seconds that a task waits for a free child.
    child_module
        Module that is run as the child; tests put one with hostile tasks here.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        memory_bytes: int = MEMORY_BYTES_DEFAULT,
        time_s: float = TIME_S_DEFAULT,
        idle_s: float = IDLE_S_DEFAULT,
        wait_s: float = 30.0,
        child_module: str = _CHILD_MODULE,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._time_s = time_s
        self._idle_s = idle_s
        self._wait_s = wait_s
        self._child_module = child_module
        # The last one back is the first one out, so idle children stay idle and can be ended.
        self._free: queue.LifoQueue[_Seat] = queue.LifoQueue()
        self._seats = [_Seat() for _ in range(max(workers, 1))]
        for seat in self._seats:
            self._free.put(seat)
        # The kernel ends a child with the *thread* that started it, so one thread that lives as
        # long as the pool starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-starter")
        self._closed = threading.Event()
        self._caretaker = threading.Thread(
            target=self._end_idle_children, name="decoder-caretaker", daemon=True
        )
        self._caretaker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- What it can do -------------------------------------------------------------------------

    def render(
        self,
        read: RangeReader,
        size: int,
        transfer_syntax_uid: str,
        request: RenderRequest,
        *,
        table: frames.FrameTable | None = None,
        view: RangeViewer | None = None,
    ) -> bytes:
        """Return one frame of a stored object as an image file; see `render.render`.

        Parameters
        ----------
        read, size, transfer_syntax_uid
            The stored data set.
        request
            What is wanted.
        table
            Where its frames are, when the caller has it cached.
        view
            Does what `read` does without a copy, where the caller can.
        """
        if request.media_type == PDF_MEDIA_TYPE:
            return document(read, size, transfer_syntax_uid, PDF_MEDIA_TYPE)
        if table is None:
            table = frame_table(read, size, transfer_syntax_uid)
        table.image.check_drawable()
        source = frame_source(read, table, request.frame, view)
        if _is_harmless(source, request):
            return drawn_here(source, request)
        return self.render_source(source, request)

    def render_source(self, source: FrameSource, request: RenderRequest) -> bytes:
        """Return the image file of a frame whose parts are at hand."""
        parameters = {
            "header_encoding": list(source.header_encoding),
            "image": source.image.to_json(),
            "transfer_syntax_uid": source.transfer_syntax_uid,
            "request": asdict(request),
        }
        return self.run("render", Payload(parameters, (source.header, source.data)))

    def decode_frame(self, data: bytes, transfer_syntax_uid: str, image: ImagePixel) -> bytes:
        """Return one frame as native little endian samples, interleaved by pixel."""
        parameters = {"transfer_syntax_uid": transfer_syntax_uid, "image": image.to_json()}
        return self.run("decode_frame", Payload(parameters, (data,)))

    def code_frame(
        self, data: bytes, from_uid: str, to_uid: str, image: ImagePixel
    ) -> tuple[bytes, str]:
        """Decode and encode one frame: the `transcode.FrameCoder` for use in a server."""
        parameters = {"from_uid": from_uid, "to_uid": to_uid, "image": image.to_json()}
        result = self.run("code_frame", Payload(parameters, (data,)))
        photometric, _, coded = result.partition(b"\0")
        return coded, photometric.decode("latin-1")

    def run(self, task_name: str, payload: Payload) -> bytes:
        """Run one task in a child and return its result.

        Parameters
        ----------
        task_name
            "render", "decode_frame" or "code_frame".
        payload
            What the task works on.

        Raises
        ------
        Invalid
            When the data cannot be decoded, or made a fresh decoder crash.
        Exhausted
            When it took more time or memory than allowed.
        Unavailable
            When all children stayed busy, none can be started, or two were killed from outside.
        PacstewardError
            What else the task raised.
        """
        if sum(map(len, payload.blobs)) > self._memory_bytes // 2:
            raise beyond_limits(
                f"Its data alone take more than half of {self._memory_bytes} bytes."
            )
        seat = self._take_seat()
        try:
            return self._run_in(seat, task_name, payload)
        finally:
            seat.idle_since = time.monotonic()
            self._free.put(seat)

    def close(self) -> None:
        """End all children; tasks that are running fail."""
        self._closed.set()
        self._starter.shutdown(wait=True, cancel_futures=True)
        for seat in self._seats:
            seat.end_child()
        self._caretaker.join()

    # --- How it does it -------------------------------------------------------------------------

    def _take_seat(self) -> _Seat:
        if self._closed.is_set():
            raise _stopping()
        try:
            return self._free.get(timeout=self._wait_s)
        except queue.Empty:
            raise Unavailable(
                "The image was not decoded.",
                why=f"All {len(self._seats)} decoders were busy for {self._wait_s:g} seconds.",
                remedy="Try again later, or allow more decoders.",
            ) from None

    def _run_in(self, seat: _Seat, task_name: str, payload: Payload) -> bytes:
        try:
            return self._ask(seat, task_name, payload)
        except _ChildDied as death:
            if not death.may_be_chance:
                raise death.told() from death
            _log.warning("decoder_ended", extra={"returncode": death.returncode})
        try:
            return self._ask(seat, task_name, payload)
        except _ChildDied as death:
            raise death.told() from death

    def _ask(self, seat: _Seat, task_name: str, payload: Payload) -> bytes:
        """Give a task to the child of a seat and return the result.

        Raises
        ------
        _ChildDied
            The child ended before it had one.
        """
        child = seat.child
        if child is None or not child.is_alive():
            seat.end_child()
            child = seat.child = self._start_child()
        try:
            answer, blobs = child.ask(task_name, payload, self._time_s)
        except TimeoutError:
            seat.end_child()
            raise beyond_limits(
                f"The decoder took more than {self._time_s:g} seconds and was stopped."
            ) from None
        except (OSError, ValueError) as error:
            if self._closed.is_set():
                raise _stopping() from error
            returncode = child.returncode_by_itself()
            seat.end_child()
            raise _ChildDied(returncode, child.tasks) from error
        child.tasks += 1
        if child.tasks >= TASKS_PER_CHILD:
            seat.end_child()
        if answer.get("ok"):
            return blobs[0]
        raise _error(answer)

    def _start_child(self) -> _Child:
        try:
            return self._starter.submit(_Child, self._child_module, self._memory_bytes).result()
        except (OSError, RuntimeError, ValueError) as error:
            raise Unavailable(
                "The image was not decoded.",
                why=f"No decoder process could be started: {error}.",
                remedy="See whether the machine has memory and processes left.",
            ) from error

    def _end_idle_children(self) -> None:
        while not self._closed.wait(min(max(self._idle_s / 4, 0.05), 10.0)):
            oldest = time.monotonic() - self._idle_s
            idle: list[_Seat] = []
            with contextlib.suppress(queue.Empty):
                while True:
                    idle.append(self._free.get_nowait())
            for seat in reversed(idle):
                if seat.idle_since < oldest:
                    seat.end_child()
                self._free.put(seat)


class _Seat:
    """A place for one child; whoever holds the seat may use the child."""

    def __init__(self) -> None:
        self.child: _Child | None = None
        self.idle_since = time.monotonic()

    def end_child(self) -> None:
        """Kill and reap the child, if there is one."""
        child, self.child = self.child, None
        if child is not None:
            child.end()


class _Child:
    """One child process and the socket to it."""

    def __init__(self, module: str, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.enter_context(ours)
            for end in (ours, theirs):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
            self._process = subprocess.Popen(  # noqa: S603 - our own module, nothing from outside
                [
                    sys.executable,
                    "-m",
                    module,
                    str(theirs.fileno()),
                    str(memory_bytes),
                    str(memory_bytes),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Codecs write what they think of a stream to the terminal; the error says enough.
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
            unless_started.pop_all()
        self._socket = ours
        self._blob_max = max(memory_bytes, 1 << 20) * 4
        self.tasks = 0
        ours.settimeout(_START_S)
        try:
            ready = receive_message(ours, blob_max=0)
        except (OSError, ValueError):
            ready = None
        if ready is None:
            self.end()
            raise RuntimeError(f"the process ended with {self._process.returncode}")

    def returncode_by_itself(self) -> int | None:
        """Return how the process ended, a signal as a negative number; None if it still runs.

        One that has closed its socket may need a moment to be gone.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_GONE_WITHIN_S)
        return None

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(
        self, task_name: str, payload: Payload, time_s: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Give the child a task and return its answer.

        Raises
        ------
        TimeoutError
            When no answer came in time.
        OSError, ValueError
            When the child went away or talks nonsense.
        """
        head = {"task": task_name, "parameters": payload.parameters, "seconds": time_s}
        deadline = _Deadline(self._socket, time_s)
        send_message(deadline, head, payload.blobs)
        message = receive_message(deadline, blob_max=self._blob_max)
        if message is None or not message[1]:
            raise ConnectionError("the decoder went away")
        return message

    def end(self) -> None:
        """Kill the process and wait for it."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


class _Deadline:
    """A socket whose calls together may take so long and no longer."""

    def __init__(self, channel: socket.socket, time_s: float) -> None:
        self._socket = channel
        self._end = time.monotonic() + time_s

    def sendall(self, data: Blob, /) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def recv(self, size: int, flags: int, /) -> bytes:
        self._socket.settimeout(self._left())
        # At most so much at a time: the other side may say any length.
        return self._socket.recv(min(size, _RECEIVE_MAX), flags)

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _environment() -> dict[str, str]:
    """Return the variables a child may see: the way to Python, and no secrets."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LD_LIBRARY_PATH")
        if name in os.environ
    }
    # Threads of linear algebra would each take address space, and nothing here uses any.
    kept.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="2")
    return kept


_HARMLESS_BYTES: Final = 4 * 1024 * 1024
_HARMLESS_HEADER_BYTES: Final = 64 * 1024
"""A header is walked by plain Python, which keeps all other threads waiting."""


def _is_harmless(source: FrameSource, request: RenderRequest) -> bool:
    """Whether drawing a frame is a little arithmetic and nothing more."""
    viewport = request.viewport
    return (
        codec_of(source.transfer_syntax_uid) is Codec.NATIVE
        and len(source.header) <= _HARMLESS_HEADER_BYTES
        and len(source.data) <= _HARMLESS_BYTES
        and source.image.samples <= _HARMLESS_BYTES
        and (viewport is None or viewport.width * viewport.height <= _HARMLESS_BYTES)
    )


_QUICK_BYTES: Final = 512 * 512
"""Of a CT slice. It is drawn in a millisecond or two, most of it the JPEG encoder's."""

_QUICK_HEADER_BYTES: Final = 8 << 10
"""In more there is room for what takes longer than the pixels: look-up tables, overlays, thousands
of elements."""


def is_quickly_drawn(table: frames.FrameTable, request: RenderRequest) -> bool:
    """Whether an event loop may draw a frame: a small native one in grey, as a JPEG.

    Beside that the samples of one that is harmless may be sixteen times as many, or floating point,
    and a PNG takes ten times as long as a JPEG.
    """
    image, viewport = table.image, request.viewport
    return (
        request.media_type == JPEG_MEDIA_TYPE
        and codec_of(table.delivered_transfer_syntax_uid) is Codec.NATIVE
        and codec_of(table.transfer_syntax_uid) is Codec.NATIVE
        and table.header_length <= _QUICK_HEADER_BYTES
        and image.samples_per_pixel == 1
        and image.bits_allocated in (8, 16)
        and image.samples <= _QUICK_BYTES
        and (viewport is None or viewport.width * viewport.height <= _QUICK_BYTES)
    )


def drawn_here(source: FrameSource, request: RenderRequest) -> bytes:
    """Draw a frame in this process: one that no decoder has to read.

    Raises
    ------
    PacstewardError
        As `DecoderPool.render` does.
    """
    try:
        return render_frame(source, request)
    except PacstewardError:
        raise
    except MemoryError:
        raise out_of_memory() from None
    except Exception as error:
        raise failed(error) from error


_FROM_OUTSIDE: Final = (-signal.SIGKILL, -signal.SIGTERM)
"""No code of a decoder ends so: the system was short of memory, or somebody stopped the process."""


class _ChildDied(Exception):
    """A child ended in the middle of a task.

    Parameters
    ----------
    returncode
        How it ended; None if it did not, and made no sense.
    tasks
        How many it had done before.
    """

    def __init__(self, returncode: int | None, tasks: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode
        self._tasks = tasks

    @property
    def may_be_chance(self) -> bool:
        """Whether something else than the task may have ended it."""
        if self.returncode == -signal.SIGALRM:
            return False
        return self.returncode in _FROM_OUTSIDE or self._tasks > 0

    def told(self) -> PacstewardError:
        """Return what the caller is told."""
        if self.returncode == -signal.SIGALRM:
            return beyond_limits("The decoder took too long.")
        if self.returncode in _FROM_OUTSIDE:
            return Unavailable(
                "The image was not decoded.",
                why="The system ended the decoder twice while it worked"
                f" (signal {-self.returncode}).",
                remedy="Try again; if it lasts, see whether the machine is short of memory.",
            )
        return failed()


def _stopping() -> Unavailable:
    return Unavailable(
        "The image was not decoded.",
        why="The server is stopping.",
        remedy="Try again in a moment.",
    )


def _error(answer: Mapping[str, Any]) -> PacstewardError:
    kind = _KINDS.get(str(answer.get("kind")), errors.Broken)
    what, why, remedy = (str(answer.get(key, "")) for key in ("what", "why", "remedy"))
    return kind(what or "The image was not decoded.", why=why, remedy=remedy)
