"""Brings the schema of a database to what this code expects, or refuses.

At every start the revision that stands in the database is compared with the name of the newest
file in ``migrations/versions``; only when they differ is Alembic loaded. An upgrade is one
transaction, so a process that is killed in the middle of one leaves the old schema. Before an
embedded database is changed, it is copied to a file beside it.

Going back one release is possible as long as the newer schema allows it: every migration says what
the oldest code must know to work with the result (``OLDEST_CODE``).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from pacsteward.base import faults
from pacsteward.base.db.database import Database
from pacsteward.base.db.tables import SCHEMA_INFO
from pacsteward.base.errors import Conflict, Exhausted, Unavailable

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[2] / "migrations"

REVISION_TABLE = "schema_revision"
"""Where Alembic keeps the revision."""

COPIES_KEPT = 2
"""Copies of the embedded database that were made before an upgrade."""

ADVISORY_LOCK = 0x7061_6373_7363_686D
"""Key of the PostgreSQL lock: "pacsschm" in ASCII; advisory locks are counted per database."""

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.py")


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate` did.

    Parameters
    ----------
    before, after
        Revisions; `before` is empty for a new database.
    copy
        Where the database as it was is kept; None for a new one, a PostgreSQL server, or when
        nothing had to be done.
    """

    before: str
    after: str
    copy: Path | None = None


def migrate(database: Database, data_dir: Path, *, folder: Path = FOLDER) -> Migrated:
    """Make the schema of `database` fit this code; quick when it does.

    Any number of processes may start at the same time: one migrates, the others wait for it.

    Parameters
    ----------
    data_dir
        Folder of the archive: for the lock.
    folder
        Of the migrations; tests have their own.

    Raises
    ------
    Conflict
        The schema is newer than this code can work with, or the tables are not from migrations.
    Exhausted
        There is no room for the copy.
    Unavailable
        The database did not answer, or the migration failed; nothing was changed.
    """
    head = newest_revision(folder)
    if (before := _settled(database, head)) is not None:
        return Migrated(before, before)
    with _alone(data_dir):
        # Whoever had the lock before us may have done it.
        if (before := _settled(database, head)) is not None:
            return Migrated(before, before)
        with database.read() as connection:
            before = _revision(connection)[0]
        copy = _copy(database, before) if before and database.is_sqlite else None
        _upgrade(database, folder)
    logger.info(
        "The schema was migrated.",
        extra={"before": before, "after": head, "copy": str(copy or "")},
    )
    return Migrated(before, head, copy)


def newest_revision(folder: Path = FOLDER) -> str:
    """Return the number of the newest migration, ``"0003"``."""
    numbers = [
        found[1]
        for name in os.listdir(folder / "versions")
        if (found := _FILE.fullmatch(name)) is not None
    ]
    return max(numbers)


def _settled(database: Database, head: str) -> str | None:
    """Return the revision when there is nothing to do; None when there is.

    Raises
    ------
    Conflict
        The schema is too new.
    """
    with database.read() as connection:
        revision, oldest_code = _revision(connection)
    if revision == head:
        return revision
    if revision < head:
        return None
    if oldest_code <= head:
        # One release back: the newer schema still suits this code.
        logger.info("The schema is newer.", extra={"revision": revision, "known": head})
        return revision
    raise Conflict(
        "The database was made by a newer version and cannot be used by this one.",
        why=f"Its schema is {revision} and needs code that knows {oldest_code}; this one knows "
        f"{head}.",
        remedy="Start the newer version again, or restore the copy that was made before the "
        "upgrade.",
    )


def _revision(connection: Connection) -> tuple[str, str]:
    """Read the revision and what it demands; empty texts for a database without any."""
    if not inspect(connection).has_table(SCHEMA_INFO.name):
        return "", ""
    row = connection.execute(text("SELECT revision, oldest_code FROM schema_info")).first()
    return ("", "") if row is None else (row.revision, row.oldest_code)


def _refuse_foreign(connection: Connection) -> None:
    """Leave a database alone that has our table names and not our history."""
    if _revision(connection)[0]:
        return
    found = {"study", "instance", "fact"} & set(inspect(connection).get_table_names())
    if found:
        raise Conflict(
            "The database has tables that this version did not make.",
            why=f"There is {', '.join(sorted(found))}, but no revision of the schema.",
            remedy="Use an empty database.",
        )


def _upgrade(database: Database, folder: Path) -> None:
    """Run the migrations that are missing in one transaction."""
    # Here, since they take half a second to import and are hardly ever needed.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    configuration = Config()
    configuration.set_main_option("script_location", str(folder).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    try:
        with _transaction(database) as connection:
            # Only now, with the lock: another machine may have made the tables meanwhile.
            _refuse_foreign(connection)
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
            faults.reach("before-commit")
    except (DBAPIError, CommandError, OSError) as error:
        raise Unavailable(
            "The database was not migrated; it is as it was.",
            why=f"{type(error).__name__}: {str(getattr(error, 'orig', error))[:300]}",
            remedy="See that the disk has space and this account may change tables.",
        ) from error


@contextmanager
def _transaction(database: Database) -> Iterator[Connection]:
    """Begin a transaction in which tables may be changed.

    SQLite changes a table by making it anew, which would set off the actions of foreign keys:
    they are switched off, which is only possible outside a transaction, and checked in the end
    (https://sqlite.org/lang_altertable.html, section 7).
    """
    with database.engine.connect() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            yield connection
            connection.commit()
            return
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        try:
            connection.exec_driver_sql("PRAGMA synchronous=FULL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if orphans:
                raise OSError(f"{len(orphans)} rows refer to rows that do not exist.")
            connection.commit()
        finally:
            connection.rollback()
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Wait until no other process of this machine migrates."""
    folder = data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "migrate.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _copy(database: Database, revision: str) -> Path | None:
    """Copy an embedded database as it is, synced, and keep the newest such copies."""
    name = database.engine.url.database
    if not name or name == ":memory:":
        return None
    path = Path(name)
    needed = path.stat().st_size
    free = shutil.disk_usage(path.parent).free
    if free < needed * 2:
        raise Exhausted(
            "The database was not migrated, since it cannot be copied first.",
            why=f"The copy takes {needed} bytes and the migration perhaps as many; {free} are "
            "free.",
            remedy=f"Make room on the disk of {path.parent}.",
        )
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    copy = path.with_name(f"{path.name}.before-{moment}-at-{revision}")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        # The engine's own way: it sees what is still in the write-ahead log.
        source.backup(target)
    copy.chmod(0o600)
    handle = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for old in sorted(path.parent.glob(f"{path.name}.before-*"))[:-COPIES_KEPT]:
        with contextlib.suppress(FileNotFoundError):
            old.unlink()
    return copy
