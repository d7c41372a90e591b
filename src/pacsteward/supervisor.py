"""One command, several processes: keeper, doors, web and jobs, begun and ended together.

Everything is imported once and the processes are forked from that, so a restart is quick and the
code is in memory once. A process that ends without being told to is started again; when the
supervisor goes, however it goes, its processes go with it.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pacsteward.base.apart import die_with

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 60.0
GRACE_S = 7.5
"""From SIGTERM to SIGKILL for all processes but the first, in seconds."""
FIRST_GRACE_S = 5.0
"""The same for the first one, counted from when the others have ended, however long they took."""
RESTART_PAUSES_S = (0.2, 1.0, 3.0, 10.0)
"""Pauses before a process that failed is started again; the last one repeats."""
STEADY_S = 60.0
"""A process that has run this long starts anew with the first pause."""
TOLD_TO_STOP_BY = (signal.SIGTERM, signal.SIGINT)
PROCESS_PREFIX = "pacs-"
"""Before a process's name, where the system shows it."""

Tell = Callable[[], None]
Run = Callable[[Tell], None]
"""Runs one kind of process until SIGTERM; calls its argument once it is ready."""


@dataclass(slots=True)
class _Child:
    name: str
    run: Run
    pid: int = 0
    ready: int = -1
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs each of `processes` in a process of its own.

    Parameters
    ----------
    processes
        What to run, by name. The first one must be ready before the others are started, and is
        ended after them, since they finish their work with its help.
    later
        What is started when all of those are ready and it is wanted, and not waited for.
    is_later_wanted
        Asked now and then until it says so.
    when_ended
        Called with the name of a process that ended by itself, before it is started again.
    before_end
        Called before the processes are told to end: lets go of what was opened for them.
    grace_s, first_grace_s
        How long the others, and then the first process, may take to end, in seconds.
    """

    processes: Mapping[str, Run]
    later: Mapping[str, Run] = field(default_factory=dict)
    is_later_wanted: Callable[[], bool] = lambda: True
    when_ended: Callable[[str], None] = lambda _name: None
    before_end: Callable[[], None] = lambda: None
    grace_s: float = GRACE_S
    first_grace_s: float = FIRST_GRACE_S
    _children: dict[str, _Child] = field(default_factory=dict, init=False)
    is_stopping: bool = field(default=False, init=False)
    """Whether it was told to stop, by a signal or by a process that failed at the start."""

    def start(self) -> None:
        """Start all processes and return when every one is ready, or when told to stop.

        Raises
        ------
        ChildFailed
            One ended before it was ready, or was not ready in time; it has said why, or the log
            does, and the others have been stopped.
        """
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        # Objects made so far stay where they are, so that children share the pages they are on.
        # Looking for garbage first would take a tenth of a second and find next to nothing.
        gc.freeze()
        children = [_Child(name, run) for name, run in self.processes.items()]
        self._children = {child.name: child for child in children}
        # The first one takes the folder into its possession; the others may start side by side.
        for together in (children[:1], children[1:]):
            for child in together:
                self._fork(child)
            for child in together:
                self._await_ready(child)
                if self.is_stopping:
                    return

    def watch(self) -> int:
        """Keep the processes running until told to stop; return the exit code."""
        while not self.is_stopping:
            self._start_later()
            self._restart_due()
            self._reap(timeout_s=0.2)
        return self._end_all()

    def _stop(self, _signal: int, _frame: object) -> None:
        self.is_stopping = True

    def _fork(self, child: _Child) -> None:
        reading, writing = os.pipe()
        child.started_at, child.restart_at = time.monotonic(), None
        supervisor = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that came between the fork and the lines below would be taken by the supervisor's
        # handler in the child, and lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_TO_STOP_BY)
        child.pid = os.fork()
        if child.pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_TO_STOP_BY)
            os.close(writing)
            child.ready = reading
            return
        os.close(reading)
        code = 1
        try:
            die_with(supervisor)
            _be_called(PROCESS_PREFIX + child.name)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # A Ctrl-C reaches the whole group; the supervisor hears it and tells us in good order.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_TO_STOP_BY)
            child.run(partial(_tell, writing))
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            logger.exception("process failed", extra={"child": child.name})
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _await_ready(self, child: _Child) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.is_stopping:
            readable, _, _ = select.select([child.ready], [], [], 0.2)
            if readable:
                if os.read(child.ready, 1):
                    return
                break
            if time.monotonic() > deadline:
                logger.error(
                    "process was not ready in time",
                    extra={"child": child.name, "timeout_s": READY_TIMEOUT_S},
                )
                break
        else:
            # Told to stop meanwhile, which is no failure: `watch` ends what there is.
            return
        self.is_stopping = True
        raise ChildFailed(child.name, self._end_all() or 1)

    def _reap(self, timeout_s: float) -> None:
        time.sleep(timeout_s)
        for child in self._children.values():
            if not child.pid:
                continue
            if self.is_stopping:
                # A process manager may signal the whole group; who ends by that is met in
                # `_end_all`, which has to wait for each of them itself.
                return
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._note_end(child, os.waitstatus_to_exitcode(status))

    def _note_end(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        child.failures = 1 if now - child.started_at > STEADY_S else child.failures + 1
        pause = RESTART_PAUSES_S[min(child.failures, len(RESTART_PAUSES_S)) - 1]
        child.pid, child.restart_at = 0, now + pause
        # Only now: a process that is started again tells its readiness too, and nobody reads it.
        os.close(child.ready)
        self.when_ended(child.name)
        logger.error(
            "process ended; it is started again",
            extra={"child": child.name, "exit_code": code, "pause_s": pause},
        )

    def _start_later(self) -> None:
        if self.later.keys() <= self._children.keys() or not self.is_later_wanted():
            return
        for name, run in self.later.items():
            self._children[name] = _Child(name, run)
            self._fork(self._children[name])

    def _restart_due(self) -> None:
        for child in self._children.values():
            if child.restart_at is not None and time.monotonic() >= child.restart_at:
                self._fork(child)

    def _end_all(self) -> int:
        """Ask every process to end, wait, and end those that do not."""
        self.before_end()
        children = list(self._children.values())
        code = self._end(children[1:], self.grace_s)
        return self._end(children[:1], self.first_grace_s) or code

    def _end(self, children: Sequence[_Child], grace_s: float) -> int:
        deadline = time.monotonic() + grace_s
        living = [child for child in children if child.pid]
        for child in living:
            _send(child.pid, signal.SIGTERM)
        code = 0
        while living and time.monotonic() < deadline:
            for child in list(living):
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    living.remove(child)
                    code = code or _exit_code(os.waitstatus_to_exitcode(status))
            time.sleep(0.02)
        for child in living:
            logger.error("process did not end in time", extra={"child": child.name})
            _send(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            code = 1
        return code


class ChildFailed(Exception):
    """A process ended before it was ready."""

    def __init__(self, name: str, exit_code: int) -> None:
        super().__init__(f"The process {name!r} did not start.")
        self.name = name
        self.exit_code = exit_code


def _exit_code(ended: int) -> int:
    """Return what we end with when a process ended so: by a signal, where it is negative."""
    if ended == -signal.SIGTERM:
        return 0  # some servers end themselves by the signal once they have tidied up
    # As a shell has it; the signal's own number would read as one of our exit codes.
    return 128 - ended if ended < 0 else ended


def _tell(pipe: int) -> None:
    """Say that this process is ready."""
    os.write(pipe, b"1")


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _be_called(name: str) -> None:
    """Have `top` and `ps -o comm` show which process this is (Linux)."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name[:15], encoding="ascii")
