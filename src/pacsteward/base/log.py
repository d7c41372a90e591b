"""What the house writes down for the people who run it: one line for each event.

Code logs an event's name and plain values; `configure` decides once, in each process, how that
looks: JSON lines for a collector or a file, or coloured text on a terminal. Modules use
``structlog.get_logger(__name__)`` or the standard ``logging.getLogger(__name__)`` with ``extra=``;
both come out the same, as do warnings and what libraries log.

Three things are guaranteed, whatever is logged:

- *one event, one line*: line breaks, escape sequences and characters that turn the reading
  direction are written as escapes, so a name with a line break in it forges no second event;
- *no patient data by name*: values of keys such as ``patient_name`` or ``password`` are hidden,
  and so are such parameters of a URL;
- *no patient data by accident*: the words of an exception that may quote its input are hidden
  unless the level is ``debug``; where it happened always stands there.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

from pacsteward.base.errors import PacstewardError
from pacsteward.base.late import without

with without("rich"):
    # With it structlog could colour tracebacks, which we write ourselves; it takes 50 ms to import.
    import structlog

HIDDEN: Final = "[hidden]"

FORBIDDEN_KEYS: Final = frozenset(
    {
        *("patient", "patient_name", "patient_id", "patient_birth_date", "patient_birth_time"),
        *("patient_sex", "patient_age", "patient_size", "patient_weight", "patient_comments"),
        *(
            "patient_address",
            "patient_telephone_numbers",
            "other_patient_ids",
            "other_patient_names",
        ),
        *("patient_name_words", "person_name", "responsible_person", "ethnic_group", "occupation"),
        *("additional_patient_history", "admission_id", "data_set", "identifier", "message_text"),
        *("password", "passcode", "secret", "token", "authorization", "cookie", "session_key"),
    }
)
"""Keys whose values could be patient data or a secret; a test of the house looks for them too."""

_FORBIDDEN_PARAMETER = re.compile(
    r"(?i)\b((?:other)?patient(?:name|ids?|birthdate)|00100010|00100020|00100030|00101000"
    r"|password|token|code)=[^&\s\"']+"
)

_UNSAFE = re.compile(
    # C0, DEL and C1 controls; zero width and direction marks; separators; direction changes;
    # invisible operators and isolates; lone surrogates; byte order mark.
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)

_MAY_SPEAK = (
    *(PacstewardError, OSError, ImportError, TypeError, AttributeError, NameError),
    *(AssertionError, RuntimeError, MemoryError, EOFError),
)
"""Exceptions whose words describe the program or the machine, and do not quote data."""

FILE_SIZE_MAX = 20 * 1024 * 1024
FILES_KEPT = 5
"""Older files, beside the present one; so the log takes 120 MiB at most."""

_QUIET = ("uvicorn.access", "httpx", "httpcore", "asyncio", "alembic", "PIL", "pydicom")
"""Libraries that are only heard from ``warning`` on."""


def configure(
    process_name: str,
    *,
    level: str = "info",
    json: bool | None = None,
    file: Path | None = None,
    stream: TextIO | None = None,
) -> None:
    """Decide how this process logs; call it once when the process starts, after a fork again.

    Parameters
    ----------
    process_name
        Stands in every line: ``"keeper"``, ``"doors"``, ``"web"``, ``"jobs"``.
    level
        ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``. At ``"debug"`` exceptions are written
        with their words, which may quote patient data.
    json
        JSON lines; None decides by whether `stream` is a terminal.
    file
        Where JSON lines are kept besides, with rotation; several processes may share it.
    stream
        Where the process speaks; standard error by default.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    as_json = json if json is not None else not stream.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Name(process_name),
    ]
    guard: list[structlog.typing.Processor] = [
        _Explain(shows_words=number <= logging.DEBUG),
        hide,
    ]
    _configure_structlog(shared)
    console = logging.StreamHandler(stream)
    console.setFormatter(_formatter(shared, [*guard, _as_json if as_json else _as_text(stream)]))
    handlers: list[logging.Handler] = [console]
    if file is not None:
        kept = SharedFile(file)
        kept.setFormatter(_formatter(shared, [*guard, _as_json]))
        handlers.append(kept)
    _let_speak(handlers, number)
    logging.captureWarnings(True)
    # The default for a broken handler is a traceback on standard error, in the middle of JSON.
    logging.raiseExceptions = False
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _configure_structlog(shared: Sequence[structlog.typing.Processor]) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers of modules are made before the process is configured.
        cache_logger_on_first_use=False,
    )


def _let_speak(handlers: Iterable[logging.Handler], number: int) -> None:
    """Put `handlers` in the place of those there are; `number` is the level."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def named(name: str) -> Any:
    """Return the logger of that name; its methods take an event's name and plain values."""
    return structlog.stdlib.get_logger(name)


def context(**values: Any) -> AbstractContextManager[Any]:
    """Have `values` stand in every line that this thread or task logs within the block."""
    return structlog.contextvars.bound_contextvars(**values)


def hide(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide what could be patient data or a secret; a structlog processor."""
    for key, value in event.items():
        event[key] = _hidden(key, value)
    return event


def escape(text: str) -> str:
    """Write unsafe characters as escapes, so that `text` is one harmless line."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _hidden(key: str, value: Any) -> Any:
    if key.lower() in FORBIDDEN_KEYS:
        return HIDDEN
    if isinstance(value, str):
        return _FORBIDDEN_PARAMETER.sub(rf"\1={HIDDEN}", value) if "=" in value else value
    if isinstance(value, Mapping):
        return {str(name): _hidden(str(name), part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden("", part) for part in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    return value


class _Name:
    """Adds which process speaks, and takes away what says nothing."""

    def __init__(self, process_name: str) -> None:
        self._name = process_name

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        # Uvicorn says everything twice, the second time for coloured terminals.
        event.pop("color_message", None)
        event["process"] = self._name
        event["pid"] = os.getpid()
        return event


class _Explain:
    """Turns an exception into where it happened and, where that is harmless, its words."""

    def __init__(self, *, shows_words: bool) -> None:
        self._shows_words = shows_words

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        error = _exception_of(event.pop("exc_info", None))
        if error is not None:
            event["exception"] = self._told(error)
        return event

    def _told(self, error: BaseException) -> str:
        parts = []
        seen: set[int] = set()
        cause: BaseException | None = error
        while cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            frames = "".join(traceback.format_tb(cause.__traceback__)).rstrip()
            parts.append(f"{frames}\n{self._named(cause)}".strip())
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return "\ncaused by\n".join(parts)

    def _named(self, error: BaseException) -> str:
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        if self._shows_words or isinstance(error, _MAY_SPEAK):
            return f"{name}: {escape(str(error))[:2000]}"
        return f"{name}: {HIDDEN}"


def _exception_of(found: Any) -> BaseException | None:
    if isinstance(found, BaseException):
        return found
    if isinstance(found, tuple):
        return found[1] if isinstance(found[1], BaseException) else None
    return sys.exc_info()[1] if found else None


def _formatter(
    shared: list[structlog.typing.Processor], last: list[structlog.typing.Processor]
) -> logging.Formatter:
    """Bring events of the standard library to the same form; both then pass the guard."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _as_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Write one JSON object; what has no JSON form is written as its name."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    line = json.dumps({**first, **event}, ensure_ascii=False, default=_by_name)
    # JSON itself escapes only the first 32 characters.
    return escape(line)


def _by_name(value: Any) -> str:
    """Name a value that has no JSON form; its `repr` could hold anything, even a data set."""
    if isinstance(value, Path | BaseException):
        return str(value) if isinstance(value, Path) else type(value).__name__
    return str(value) if hasattr(value, "isoformat") else f"<{type(value).__name__}>"


def _as_text(stream: TextIO) -> structlog.typing.Processor:
    """Write for a terminal: time, level, event, values; a traceback follows, indented."""
    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    level_styles = {"warning": "33", "error": "31", "critical": "1;31", "debug": "2"}

    def render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        moment = str(event.pop("timestamp", ""))[11:19]
        level = str(event.pop("level", ""))
        words = escape(str(event.pop("event", "")))
        told = event.pop("exception", "")
        for name in ("logger", "pid"):
            event.pop(name, None)
        process = event.pop("process", "")
        values = " ".join(f"{escape(key)}={_brief(value)}" for key, value in event.items())
        head = f"{moment} {level:<8}{process:<6} {words}"
        if colours and level in level_styles:
            head = f"\x1b[{level_styles[level]}m{head}\x1b[0m"
        lines = [f"{head} {values}".rstrip()]
        # Indented, so that no line of it can pass for an event.
        lines += [f"    | {escape(line)}" for line in told.splitlines()]
        return "\n".join(lines)

    return render


def _brief(value: Any) -> str:
    if isinstance(value, str):
        text = value if value and " " not in value else json.dumps(value, ensure_ascii=False)
    else:
        text = json.dumps(value, ensure_ascii=False, default=_by_name)
    return escape(text)


class SharedFile(logging.Handler):
    """A log file that several processes write and rotate.

    A line is one write to a file opened for appending, which the kernel does not mix with others.
    Whoever finds the file full rotates it while holding a lock beside it; the others notice, by
    its number on the disk, that the name belongs to a new file.
    """

    def __init__(
        self, path: Path, *, size_max: int = FILE_SIZE_MAX, kept: int = FILES_KEPT
    ) -> None:
        super().__init__()
        self._path = path
        self._size_max = size_max
        self._kept = kept
        self._handle = -1
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a full disk must not end what was being done."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            self._follow()
            os.write(self._handle, line)
        except Exception:  # noqa: BLE001
            self.handleError(record)

    def close(self) -> None:
        """Close the file."""
        self.acquire()
        try:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
        finally:
            self.release()
        super().close()

    def _follow(self) -> None:
        """Have the file open that bears the name, and rotate it when it is full."""
        if self._handle < 0:
            self._open()
        ours = os.fstat(self._handle)
        if ours.st_nlink == 0 or not self._is_named(ours):
            self._open()
        elif ours.st_size >= self._size_max:
            self._rotate()

    def _is_named(self, ours: os.stat_result) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        return (named.st_ino, named.st_dev) == (ours.st_ino, ours.st_dev)

    def _open(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def _rotate(self) -> None:
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another process may have rotated it while we waited.
            if self._is_named(os.fstat(self._handle)):
                for number in range(self._kept - 1, 0, -1):
                    older = self._path.with_suffix(f".log.{number}")
                    if older.exists():
                        older.replace(self._path.with_suffix(f".log.{number + 1}"))
                self._path.replace(self._path.with_suffix(".log.1"))
            self._open()
        finally:
            os.close(lock)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("pacsteward").critical("uncaught", exc_info=(kind, error, where))


def _log_uncaught_in_thread(hooked: threading.ExceptHookArgs) -> None:
    if hooked.exc_value is None or issubclass(hooked.exc_type, SystemExit):
        return
    logging.getLogger("pacsteward").critical(
        "uncaught_in_thread",
        exc_info=(hooked.exc_type, hooked.exc_value, hooked.exc_traceback),
        extra={"thread_name": hooked.thread.name if hooked.thread else ""},
    )
