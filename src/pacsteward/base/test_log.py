"""What a log line may never become, and what must always stand in it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from pacsteward.base import log
from pacsteward.base.errors import Unavailable

NASTY = 'DOE^JANE\r\n{"level":"critical"}\x1b[31m\u202e\u2028\x85\x00'


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the logging of the test run as it was."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    raising = logging.raiseExceptions
    root.handlers = []
    yield
    for handler in root.handlers[:]:
        handler.close()
    root.handlers, logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()


def logged(say: Callable[[], Any], **how: Any) -> str:
    stream = io.StringIO()
    log.configure("doors", stream=stream, **{"json": True, **how})
    say()
    return stream.getvalue()


def only(text: str) -> dict[str, Any]:
    assert text.endswith("\n")
    (line,) = text[:-1].split("\n")
    return dict(json.loads(line))


def test_event_of_structlog_and_of_the_standard_library_look_the_same() -> None:
    ours = only(logged(lambda: structlog.get_logger("a.b").warning("peer_refused", peer="CT1")))
    theirs = only(
        logged(lambda: logging.getLogger("a.b").warning("peer_refused", extra={"peer": "CT1"}))
    )
    for event in (ours, theirs):
        del event["timestamp"]
    assert ours == theirs
    assert (ours["event"], ours["level"], ours["peer"]) == ("peer_refused", "warning", "CT1")
    assert (ours["process"], ours["logger"]) == ("doors", "a.b")


@pytest.mark.parametrize("json_lines", [True, False])
def test_nasty_text_stays_one_harmless_line(json_lines: bool) -> None:
    def say() -> None:
        structlog.get_logger().warning(NASTY, peer=NASTY, peers=[NASTY], **{"k\ney": "v"})
        logging.getLogger().warning("from %s", NASTY, extra={"peer": NASTY})

    text = logged(say, json=json_lines)
    assert text.count("\n") == 2
    assert not set(text) & set("\x1b\u202e\u2028\x85\x00\r")
    if json_lines:
        first, second = (json.loads(line) for line in text.splitlines())
        assert first["event"] == NASTY
        assert second["peer"] == NASTY


def test_every_unsafe_character_is_escaped() -> None:
    unsafe = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x2028, 0x2029, 0x202E, 0x2066]
    for code in unsafe:
        assert log.escape(f"a{chr(code)}b") == f"a\\u{code:04x}b"
    assert log.escape("Müller^Jürgen 山田 ñ") == "Müller^Jürgen 山田 ñ"


def test_traceback_cannot_pass_for_an_event() -> None:
    def say() -> None:
        try:
            raise OSError(f"no such file {NASTY}")
        except OSError:
            structlog.get_logger().exception("not_kept")

    first, *rest = logged(say, json=False).splitlines()
    assert "not_kept" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)


def test_values_that_could_be_patient_data_are_hidden() -> None:
    def say() -> None:
        structlog.get_logger().warning(
            "found",
            patient_name="DOE^JANE",
            PATIENT_ID="4711",
            peer={"password": "x", "deep": [{"token": "y"}]},
            path="/studies?PatientName=DOE*&limit=1&00100020=4711",
            body=b"DOE^JANE",
            other=object(),
        )
        logging.getLogger().warning("found", extra={"patient_birth_date": "19700101"})

    text = logged(say)
    event = json.loads(text.splitlines()[0])
    assert event["patient_name"] == event["PATIENT_ID"] == log.HIDDEN
    assert event["peer"] == {"password": log.HIDDEN, "deep": [{"token": log.HIDDEN}]}
    assert event["path"] == f"/studies?PatientName={log.HIDDEN}&limit=1&00100020={log.HIDDEN}"
    assert event["body"] == "[8 bytes]"
    assert event["other"] == "<object>"
    for secret in ("DOE", "4711", "19700101"):
        assert secret not in text


def test_exception_tells_where_but_not_what_it_quotes() -> None:
    def say() -> None:
        try:
            try:
                int("DOE^JANE")
            except ValueError as error:
                raise Unavailable("Peer CT1 did not answer.") from error
        except Unavailable:
            structlog.get_logger().exception("not_sent")

    told = only(logged(say))["exception"]
    assert "Unavailable: Peer CT1 did not answer." in told
    assert "caused by" in told
    assert f"ValueError: {log.HIDDEN}" in told
    assert "in say" in told
    assert "DOE" not in told.replace('int("DOE^JANE")', "")
    assert "invalid literal" in only(logged(say, level="debug"))["exception"]


def test_standard_library_exceptions_and_warnings_are_events_too() -> None:
    def say() -> None:
        try:
            {}["DOE^JANE"]
        except KeyError:
            logging.getLogger("x").exception("failed")
        warnings.warn("old setting", stacklevel=1)

    failed, warned = (json.loads(line) for line in logged(say).splitlines())
    assert f"KeyError: {log.HIDDEN}" in failed["exception"]
    assert "old setting" in warned["event"]


def test_what_kills_a_thread_is_logged() -> None:
    def die() -> None:
        raise RuntimeError("the end")

    def say() -> None:
        thread = threading.Thread(target=die, name="facts-route")
        thread.start()
        thread.join()

    event = only(logged(say))
    assert (event["event"], event["thread_name"]) == ("uncaught_in_thread", "facts-route")


def test_values_bound_to_a_context_stand_in_every_line() -> None:
    def say() -> None:
        with log.context(association_id="x7"):
            logging.getLogger().warning("echo")

    assert only(logged(say))["association_id"] == "x7"


def test_level_and_quiet_libraries() -> None:
    def say() -> None:
        logging.getLogger("pacsteward").info("a")
        logging.getLogger("uvicorn.access").info("b")
        structlog.get_logger().debug("c")

    assert only(logged(say))["event"] == "a"
    assert logged(say, level="error") == ""


def test_several_processes_share_a_file_and_rotate_it_without_losing_a_line(
    tmp_path: Path,
) -> None:
    writer = """
import logging, sys
from pathlib import Path
from pacsteward.base.log import SharedFile
handler = SharedFile(Path(sys.argv[1]), size_max=20_000, kept=99)
for number in range(500):
    handler.handle(logging.makeLogRecord({"msg": f"{sys.argv[2]} {number:06} " + "x" * 80}))
"""
    path = tmp_path / "logs" / "pacsteward.log"
    processes = [
        subprocess.Popen([sys.executable, "-c", writer, str(path), name]) for name in "abc"
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    files = [file for file in path.parent.iterdir() if file.suffix != ".lock"]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len(files) > 5
    assert sorted(line[:8] for line in lines) == sorted(
        f"{name} {number:06}" for name in "abc" for number in range(500)
    )


def test_only_so_many_old_files_are_kept(tmp_path: Path) -> None:
    handler = log.SharedFile(tmp_path / "pacsteward.log", size_max=100, kept=2)
    for number in range(20):
        handler.handle(logging.makeLogRecord({"msg": f"{number} " + "x" * 100}))
    handler.close()
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {
        "pacsteward.log",
        "pacsteward.log.1",
        "pacsteward.log.2",
        "pacsteward.lock",
    }


def test_full_disk_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = log.SharedFile(Path("/dev/full"))
    failed: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", failed.append)
    record = logging.makeLogRecord({"msg": "x"})
    handler.handle(record)
    assert failed == [record]
    handler.close()
