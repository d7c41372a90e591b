"""PostgreSQL asked through its own library: one statement, one trip there and back.

A question of a reader or of the arbiter takes the server 20 to 40 µs. The driver's cursor, its
queue for results and its way of waiting take twice as long again, and a transaction around it two
more trips. So a short question goes to libpq itself, with the driver's own conversion of values,
and in no transaction: one statement sees one consistent state.

A statement that is asked again is prepared, so that the server plans it once. Whoever may not wait
says how long an answer may take; when it takes longer the connection is given up, since what comes
on it later would be the answer to another question.

References
----------
https://www.postgresql.org/docs/current/libpq-async.html;
https://www.psycopg.org/psycopg3/docs/api/pq.html
"""

from __future__ import annotations

import re
import secrets
import select
import time
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final

import psycopg
from psycopg import errors, pq
from psycopg.adapt import PyFormat, Transformer

PREPARED_MAX: Final = 100
"""Statements that the server keeps for one connection; then all are forgotten and learnt anew."""

_MARKS: Final = re.compile(rb"%[s%]")
_BEGIN_UNSYNCED: Final = (
    b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit TO off"
)
_GOOD: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)

_Key = tuple[str, tuple[int, ...]]


class TooLate(Exception):
    """The answer was not there in time, and the connection is closed."""


class Wire:
    """A connection that is asked one statement at a time, by one thread at a time.

    Parameters
    ----------
    connection
        Which nobody else uses; it is closed with this.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        connection.autocommit = True
        self._connection = connection
        self._library = connection.pgconn
        self._library.nonblocking = 1
        self._values = Transformer(connection)
        self._encoding = connection.info.encoding
        self._seen: set[_Key] = set()
        self._prepared: dict[_Key, bytes] = {}
        # Of this connection alone: where a pooler lends a session of the server to several, the
        # statement of another one must be unknown there, and not be taken for ours.
        self._own_name = b"wire_%s" % secrets.token_hex(4).encode()
        self._poll = select.poll()
        self._poll.register(self._library.socket, select.POLLIN)
        self.is_near = _is_near(connection)
        """Whether the server is on this machine."""

    def rows(
        self, statement: str, parameters: Sequence[object] = (), *, within_s: float | None = None
    ) -> list[tuple[Any, ...]]:
        """Return the rows of an answer, as the driver would.

        Parameters
        ----------
        statement
            With the parameter marks of the driver.
        within_s
            How long all of it may take, in seconds.

        Raises
        ------
        psycopg.Error
            The server is away, or says that something is wrong.
        TooLate
            The answer was not there in time.
        """
        deadline = None if within_s is None else time.monotonic() + within_s
        values = self._values.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
        types, formats = self._values.types or (), self._values.formats
        key = statement, types
        name = self._prepared.get(key)
        if name is None and key in self._seen:
            name = self._prepare(key, deadline)
        if name is not None:
            self._library.send_query_prepared(name, values, formats)
        else:
            self._remember(key, deadline)
            self._library.send_query_params(marked(statement), values, types, formats)
        return self._loaded(self._answer(deadline))

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()

    # --- prepared statements ------------------------------------------------------------------

    def _remember(self, key: _Key, deadline: float | None) -> None:
        if len(self._seen) >= PREPARED_MAX:
            self._seen.clear()
            self._prepared.clear()
            self._library.send_query(b"DEALLOCATE ALL")
            self._answer(deadline)
        self._seen.add(key)

    def _prepare(self, key: _Key, deadline: float | None) -> bytes:
        name = b"%s_%d" % (self._own_name, len(self._prepared))
        self._library.send_prepare(name, marked(key[0]), key[1])
        self._answer(deadline)
        self._prepared[key] = name
        return name

    # --- the answer -----------------------------------------------------------------------------

    def _answer(self, deadline: float | None) -> pq.abc.PGresult:
        """Wait for the answer to what was sent, and take it in whole."""
        library = self._library
        while library.flush():
            # More than the socket takes at once: it may have to be read from before.
            self._poll.modify(library.socket, select.POLLIN | select.POLLOUT)
            self._wait(deadline)
            self._poll.modify(library.socket, select.POLLIN)
            library.consume_input()
        answer = None
        while True:
            while library.is_busy():
                self._wait(deadline)
                library.consume_input()
            result = library.get_result()
            if result is None:
                break
            answer = answer or result
        if answer is None:
            raise psycopg.OperationalError("The server gave no answer.")
        if answer.status not in _GOOD:
            raise _error(answer, self._encoding)
        return answer

    def _wait(self, deadline: float | None) -> None:
        wait_ms = None if deadline is None else max(1, int((deadline - time.monotonic()) * 1000))
        if not self._poll.poll(wait_ms):
            self.close()
            raise TooLate

    def _loaded(self, answer: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        self._values.set_pgresult(answer)
        found: list[tuple[Any, ...]] = self._values.load_rows(0, answer.ntuples, tuple)
        self._values.set_pgresult(None)
        return found


# --- connections of the pool ----------------------------------------------------------------------


def is_lost(connection: psycopg.Connection[Any]) -> bool:
    """Say whether the server has ended a connection that lay idle.

    A server that ends says so, or closes: either can be read, and then it is asked. Of one that is
    silent nothing has to be asked, which is a trip saved for every transaction.
    """
    poll = select.poll()
    try:
        poll.register(connection.pgconn.socket, select.POLLIN)
        if not poll.poll(0):
            return False
        return connection.pgconn.exec_(b"").status != pq.ExecStatus.EMPTY_QUERY
    except psycopg.Error:
        return True


def begin_unsynced(connection: psycopg.Connection[Any]) -> None:
    """Begin a transaction whose commit does not wait for the server's disk, in one trip.

    Raises
    ------
    psycopg.Error
        The server is away.
    """
    answer = connection.pgconn.exec_(_BEGIN_UNSYNCED)
    if answer.status not in _GOOD:
        raise _error(answer, connection.info.encoding)


# --- statements and errors ------------------------------------------------------------------------


@lru_cache(maxsize=512)
def marked(statement: str) -> bytes:
    """Return a statement with the server's own marks for parameters, ``$1``, ``$2`` and so on."""
    number = 0

    def mark(found: re.Match[bytes]) -> bytes:
        nonlocal number
        if found.group() == b"%%":
            return b"%"
        number += 1
        return b"$%d" % number

    return _MARKS.sub(mark, statement.encode())


def _error(answer: pq.abc.PGresult, encoding: str) -> psycopg.Error:
    state = (answer.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")
    words = answer.get_error_message(encoding)
    try:
        return errors.lookup(state)(words)
    except KeyError:
        return psycopg.DatabaseError(words)


def _is_near(connection: psycopg.Connection[Any]) -> bool:
    host, address = connection.info.host, connection.info.hostaddr
    if host.startswith(("/", "@")):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
