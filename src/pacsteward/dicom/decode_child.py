"""The process in which decoders run: one task at a time, no network, little memory, dead on time.

What enters through one socket are tasks with their data; what leaves are results, or errors of the
eight kinds. The codecs in here are C and C++ and what they read was written by strangers, so the
process gives away what it does not need before the first task: new sockets, other programs,
growing files, core dumps, memory beyond its limit. The keeper of the process is
`decode.DecoderPool`; neither believes the other's pickles, messages are JSON and bytes.

A message is a head of eight bytes (length of the JSON, number of blobs), the lengths of the blobs,
the JSON and the blobs. A task's JSON is ``{"task", "parameters", "seconds"}``; an answer's is
``{"ok": true}``, or ``{"kind", "what", "why", "remedy"}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from pacsteward.base.errors import Exhausted, Invalid, PacstewardError
from pacsteward.dicom.elements import Encoding
from pacsteward.dicom.pixels import ImagePixel

Blob = bytes | bytearray | memoryview
Task = Callable[[Mapping[str, Any], Sequence[bytes]], bytes]
"""Takes the parameters and the blobs of a task, returns its result."""

_HEAD: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<Q")
_BLOBS_MAX: Final = 16
_JSON_MAX: Final = 1 << 20

# The parent kills at the limit; should it be gone or stuck, the alarm comes this much later.
_ALARM_SLACK_S: Final = 2.0


# --- Messages -----------------------------------------------------------------------------------


class Channel(Protocol):
    """The two calls of a socket that messages need."""

    def sendall(self, data: Blob, /) -> None:
        """Send all of it."""

    def recv(self, size: int, flags: int, /) -> bytes:
        """Return up to ``size`` bytes, none when the other side has closed."""


def send_message(channel: Channel, head: Mapping[str, Any], blobs: Sequence[Blob]) -> None:
    """Send one message; blocks as the channel does."""
    text = json.dumps(head, separators=(",", ":")).encode()
    lengths = b"".join([_LENGTH.pack(len(blob)) for blob in blobs])
    channel.sendall(b"".join((_HEAD.pack(len(text), len(blobs)), lengths, text)))
    for blob in blobs:
        channel.sendall(blob)


def receive_message(
    channel: Channel, *, blob_max: int
) -> tuple[dict[str, Any], list[bytes]] | None:
    """Return one message, None when the other side has closed.

    Raises
    ------
    ValueError
        When what comes is no message, or larger than ``blob_max``.
    """
    raw = _receive(channel, _HEAD.size)
    if raw is None:
        return None
    json_length, count = _HEAD.unpack(raw)
    if json_length > _JSON_MAX or count > _BLOBS_MAX:
        raise ValueError("a message with an impossible head")
    raw_lengths = _receive(channel, count * _LENGTH.size)
    text = _receive(channel, json_length)
    if raw_lengths is None or text is None:
        return None
    blobs = []
    for (length,) in _LENGTH.iter_unpack(raw_lengths):
        if length > blob_max:
            raise ValueError("a message with an impossible length")
        blob = _receive(channel, length)
        if blob is None:
            return None
        blobs.append(blob)
    head = json.loads(text)
    if not isinstance(head, dict):
        raise ValueError("a message without a head")  # noqa: TRY004 - bad input, not a bad call
    return head, blobs


def _receive(channel: Channel, length: int) -> bytes | None:
    """Return so many bytes; on a blocking socket by one call and without copying them."""
    if not length:
        return b""
    data = channel.recv(length, socket.MSG_WAITALL)
    if len(data) == length:
        return data
    received = bytearray(data)
    while data and len(received) < length:
        data = channel.recv(length - len(received), socket.MSG_WAITALL)
        received += data
    return bytes(received) if data else None


# --- Tasks --------------------------------------------------------------------------------------


def _render(parameters: Mapping[str, Any], blobs: Sequence[bytes]) -> bytes:
    from pacsteward.dicom.render import FrameSource, render_frame

    source = FrameSource(
        header=blobs[0],
        header_encoding=Encoding(*parameters["header_encoding"]),
        image=ImagePixel.from_json(parameters["image"]),
        data=blobs[1],
        transfer_syntax_uid=parameters["transfer_syntax_uid"],
    )
    return render_frame(source, request_from_json(parameters["request"]))


def request_from_json(fields: Mapping[str, Any]) -> Any:
    """Return the `RenderRequest` that `dataclasses.asdict` made JSON of."""
    from pacsteward.dicom.grayscale import VoiFunction, Window
    from pacsteward.dicom.render_request import RenderRequest, Viewport

    viewport, window = fields["viewport"], fields["window"]
    return RenderRequest(
        frame=fields["frame"],
        media_type=fields["media_type"],
        viewport=None if viewport is None else Viewport(**viewport),
        window=None
        if window is None
        else Window(window["center"], window["width"], VoiFunction(window["function"])),
        quality=fields["quality"],
    )


def _decode_frame(parameters: Mapping[str, Any], blobs: Sequence[bytes]) -> bytes:
    """Return a frame as a native one, one-bit samples packed."""
    import numpy as np

    from pacsteward.dicom.codecs import decode_frame
    from pacsteward.dicom.samples import native_bytes

    image = ImagePixel.from_json(parameters["image"])
    samples = decode_frame(blobs[0], parameters["transfer_syntax_uid"], image).samples
    if image.bits_allocated == 1:
        return np.packbits(samples, bitorder="little").tobytes()
    return native_bytes(samples)


def _code_frame(parameters: Mapping[str, Any], blobs: Sequence[bytes]) -> bytes:
    """Return the photometric interpretation, a zero byte, and the frame in its new syntax."""
    from pacsteward.dicom.transcode import transcode_frame

    coded, photometric = transcode_frame(
        blobs[0],
        parameters["from_uid"],
        parameters["to_uid"],
        ImagePixel.from_json(parameters["image"]),
    )
    return b"\0".join((photometric.encode("latin-1"), coded))


TASKS: Final[Mapping[str, Task]] = {
    "render": _render,
    "decode_frame": _decode_frame,
    "code_frame": _code_frame,
}


def serve(channel: socket.socket, tasks: Mapping[str, Task], blob_max: int) -> None:
    """Do tasks until the other side closes."""
    while (message := receive_message(channel, blob_max=blob_max)) is not None:
        head, blobs = message
        signal.setitimer(signal.ITIMER_REAL, head["seconds"] + _ALARM_SLACK_S)
        try:
            result = tasks[head["task"]](head["parameters"], blobs)
            answer: dict[str, Any] = {"ok": True}
        except PacstewardError as error:
            result, answer = b"", _answer(error)
        except MemoryError:
            result, answer = b"", _answer(out_of_memory())
        except Exception as error:  # noqa: BLE001 - the door of the process: nothing passes it
            result, answer = b"", _answer(failed(error))
        signal.setitimer(signal.ITIMER_REAL, 0)
        send_message(channel, answer, [result])


def _answer(error: PacstewardError) -> dict[str, Any]:
    return {
        "kind": error.kind.value,
        "what": error.what,
        "why": error.why,
        "remedy": error.remedy,
    }


def failed(error: Exception | None = None) -> Invalid:
    """Return the error for what no decoder foresaw; only the data can have caused it.

    Parameters
    ----------
    error
        What was raised; None where the whole process ended.
    """
    named = "" if error is None else f" ({type(error).__name__})"
    return Invalid(
        "The image could not be decoded.",
        why=f"Its data made the decoder fail{named}.",
        remedy="Compare with the sender's copy, and send it again.",
    )


def out_of_memory() -> Exhausted:
    """Return the error for a decoder that has too little memory."""
    return beyond_limits("It needs more memory than a decoder may have.")


def beyond_limits(why: str) -> Exhausted:
    """Return the error for an image that takes more than a decoder may have."""
    return Exhausted(
        "The image was not decoded.",
        why=why,
        remedy="Retrieve the object as it is stored.",
    )


# --- Limits -------------------------------------------------------------------------------------


def give_up_powers(memory_bytes: int) -> None:
    """Give away what decoding does not need; everything is imported before.

    Parameters
    ----------
    memory_bytes
        Address space beyond what the process has now.
    """
    _die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as statm:
        pages = int(statm.read().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _refuse_system_calls()


_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2

# Numbers of socket, connect, bind, listen, execve, execveat, ptrace, by machine. Sending itself is
# not among them: the answers need it, and without a new socket there is nowhere else to send.
_FORBIDDEN_CALLS: Final[dict[str, tuple[int, tuple[int, ...]]]] = {
    "x86_64": (0xC000003E, (41, 42, 49, 50, 59, 322, 101)),
    "aarch64": (0xC00000B7, (198, 203, 200, 201, 221, 281, 117)),
}

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_KILL: Final = 0x80000000  # SECCOMP_RET_KILL_PROCESS
_FAIL: Final = 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
_ALLOW: Final = 0x7FFF0000  # SECCOMP_RET_ALLOW
_X32_BIT: Final = 0x40000000


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _prctl(option: int, *arguments: Any) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(option, *arguments) == 0)


def _die_with_parent() -> None:
    if sys.platform != "linux":
        return
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent or parent == 1:
        os._exit(0)


def _refuse_system_calls() -> None:
    """Have the kernel refuse sockets and other programs to this process for good (seccomp)."""
    machine = _FORBIDDEN_CALLS.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return
    architecture, calls = machine
    program = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, 0), (_JUMP_IF_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    for call in calls:
        program += [(_JUMP_IF_EQUAL, 0, 1, call), (_RETURN, 0, 0, _FAIL)]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = b"".join([struct.pack("=HBBI", *instruction) for instruction in program])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Without the kernel's support (containers may forbid it) the other limits still hold.
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program), code)))


# What tasks need; imported before the memory limit and the clock count against it.
_LIBRARIES: Final = (
    "numpy",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "gdcm",
    "jpeg_ls",
    "openjpeg.utils",
    "rle.utils",
    "pacsteward.dicom.render",
    "pacsteward.dicom.transcode",
)


def main(tasks: Mapping[str, Task] = TASKS) -> None:
    """Run as a child: arguments are the socket's file descriptor, memory and largest blob."""
    descriptor, memory_bytes, blob_max = (int(argument) for argument in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this process ends
    channel = socket.socket(fileno=descriptor)
    for name in _LIBRARIES:
        importlib.import_module(name)
    give_up_powers(memory_bytes)
    # The parent closing in the middle of a message is a way to end, not an error.
    with contextlib.suppress(ConnectionError):
        send_message(channel, {"ok": True}, [])
        serve(channel, tasks, blob_max)


if __name__ == "__main__":
    main()
