"""The history of the schema ends where ``tables.py`` are, on both databases."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, text
from tests.support import databases

from pacsteward.base.db import METADATA, Database, open_database
from pacsteward.base.db.migrate import FOLDER, REVISION_TABLE, migrate, newest_revision
from pacsteward.base.errors import Conflict
from pacsteward.migrations import import_all_tables

VERSIONS = sorted((FOLDER / "versions").glob("*.py"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Give a database without any table."""
    if request.param == "sqlite":
        database = open_database(tmp_path / "empty.db")
        yield database
        database.close()
        return
    server = request.getfixturevalue("postgres_server")
    with databases.empty_postgres_database(server) as database:
        yield database


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """Give a folder of migrations that a test may add to, with one that is there already."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_bytes((FOLDER / "env.py").read_bytes())
    (folder / "versions" / VERSIONS[0].name).write_bytes(VERSIONS[0].read_bytes())
    return folder


def add_step(folder: Path, number: int, body: str, oldest_code: str = "") -> None:
    revision = f"{number:04}"
    (folder / "versions" / f"{revision}_step.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '{revision}'\ndown_revision = '{number - 1:04}'\n"
        f"OLDEST_CODE = '{oldest_code or revision}'\n"
        f"def upgrade():\n    {body}\n"
    )


def test_migrated_schema_is_that_of_the_tables(
    empty: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kind = "sqlite_database" if empty.is_sqlite else "postgres_database"
    database: Database = request.getfixturevalue(kind)
    done = migrate(empty, tmp_path)
    assert (done.before, done.after, done.copy) == ("", newest_revision(), None)
    with empty.engine.connect() as migrated, database.engine.connect() as made:
        assert compare_metadata(_context(migrated), import_all_tables()) == []
        assert _described(migrated) == _described(made)


def test_history_is_one_line_and_numbered(steps: Path) -> None:
    for number, path in enumerate(VERSIONS, 1):
        source = path.read_text()
        down = f'"{number - 1:04}"' if number > 1 else "None"
        assert path.name.startswith(f"{number:04}_")
        assert f'revision = "{number:04}"\ndown_revision = {down}\n' in source
        assert re.search(r'^OLDEST_CODE = "\d{4}"$', source, re.MULTILINE)


def test_database_at_head_costs_next_to_nothing(sqlite_file: Path, tmp_path: Path) -> None:
    """Every command and every process asks at its start."""
    database = open_database(sqlite_file)
    migrate(database, tmp_path)
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    done = migrate(database, tmp_path)
    assert done.before == done.after == newest_revision()
    assert statements
    assert {one.split()[0] for one in statements} <= {"BEGIN", "PRAGMA", "SELECT"}
    assert len(statements) < 8
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from pacsteward.base.db import open_database\n"
        "from pacsteward.base.db.migrate import migrate\n"
        "migrate(open_database(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "assert 'alembic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, sqlite_file, tmp_path], check=True)


def test_rows_survive_an_upgrade_and_a_copy_of_before_is_kept(
    empty: Database, steps: Path, tmp_path: Path
) -> None:
    migrate(empty, tmp_path, folder=steps)
    with empty.write() as connection:
        connection.execute(text("INSERT INTO job_kind (kind, is_paused) VALUES ('work', '1')"))
    add_step(
        steps, 2, "op.add_column('job_kind', sa.Column('owner', sa.Text(), server_default='it'))"
    )
    done = migrate(empty, tmp_path, folder=steps)
    assert (done.before, done.after) == ("0001", "0002")
    with empty.read() as connection:
        row = connection.execute(text("SELECT kind, owner FROM job_kind")).one()
    assert tuple(row) == ("work", "it")
    if not empty.is_sqlite:
        assert done.copy is None
        return
    assert done.copy is not None
    assert done.copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(done.copy)) as copy:
        assert copy.execute("SELECT revision FROM schema_info").fetchall() == [("0001",)]
        assert copy.execute("SELECT kind FROM job_kind").fetchall() == [("work",)]


def test_only_the_newest_copies_are_kept(steps: Path, sqlite_file: Path, tmp_path: Path) -> None:
    database = open_database(sqlite_file)
    migrate(database, tmp_path, folder=steps)
    for number in range(2, 6):
        (sqlite_file.parent / f"index.db.before-20200101T00000{number}-at-0001").touch()
        add_step(steps, number, "pass")
        migrate(database, tmp_path, folder=steps)
    kept = sorted(path.name[-4:] for path in sqlite_file.parent.glob("index.db.before-*"))
    assert kept == ["0003", "0004"]


def test_failed_migration_changes_nothing(empty: Database, steps: Path, tmp_path: Path) -> None:
    migrate(empty, tmp_path, folder=steps)
    add_step(steps, 2, "op.create_table('extra', sa.Column('id', sa.Integer()))")
    add_step(steps, 3, "op.execute(sa.text('this is no SQL'))")
    with pytest.raises(Exception, match="as it was"):
        migrate(empty, tmp_path, folder=steps)
    with empty.engine.connect() as connection:
        assert connection.execute(text("SELECT revision FROM schema_info")).scalar() == "0001"
        assert "extra" not in _described(connection)["tables"]


def test_migration_that_leaves_orphans_is_not_kept(
    steps: Path, sqlite_file: Path, tmp_path: Path
) -> None:
    database = open_database(sqlite_file)
    migrate(database, tmp_path, folder=steps)
    add_step(
        steps,
        2,
        "[op.execute(sa.text(one)) for one in ('CREATE TABLE a (id INTEGER PRIMARY KEY)', "
        "'CREATE TABLE b (id INTEGER REFERENCES a (id))', 'INSERT INTO b VALUES (7)')]",
    )
    with pytest.raises(Exception, match="refer to rows"):
        migrate(database, tmp_path, folder=steps)
    with database.write() as connection:
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_killed_migration_leaves_the_old_schema(
    steps: Path, sqlite_file: Path, tmp_path: Path
) -> None:
    database = open_database(sqlite_file)
    migrate(database, tmp_path, folder=steps)
    add_step(steps, 2, "op.create_table('extra', sa.Column('id', sa.Integer()))")
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from pacsteward.base import faults\n"
        "from pacsteward.base.db import open_database\n"
        "from pacsteward.base.db.migrate import migrate\n"
        "faults.arm_from_environment({'PACSTEWARD_FAULTS': 'before-commit:kill'})\n"
        "migrate(open_database(Path(sys.argv[1])), Path(sys.argv[2]), folder=Path(sys.argv[3]))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, sqlite_file, tmp_path, steps], check=False
    )
    assert killed.returncode == -9
    with closing(sqlite3.connect(sqlite_file)) as file:
        assert file.execute("SELECT revision FROM schema_info").fetchall() == [("0001",)]
        assert file.execute("SELECT name FROM sqlite_master WHERE name = 'extra'").fetchall() == []
    assert migrate(database, tmp_path, folder=steps).after == "0002"


def test_newer_schema_is_refused_with_the_reason(
    empty: Database, steps: Path, tmp_path: Path
) -> None:
    migrate(empty, tmp_path, folder=steps)
    add_step(steps, 2, "pass")
    migrate(empty, tmp_path, folder=steps)
    (steps / "versions" / "0002_step.py").unlink()
    with pytest.raises(Conflict, match="newer version") as refused:
        migrate(empty, tmp_path, folder=steps)
    assert "0002" in refused.value.why
    assert "0001" in refused.value.why


def test_one_release_back_works_where_the_newer_schema_allows_it(
    empty: Database, steps: Path, tmp_path: Path
) -> None:
    migrate(empty, tmp_path, folder=steps)
    add_step(steps, 2, "pass", oldest_code="0001")
    migrate(empty, tmp_path, folder=steps)
    (steps / "versions" / "0002_step.py").unlink()
    assert migrate(empty, tmp_path, folder=steps).after == "0002"


def test_database_of_somebody_else_is_left_alone(empty: Database, tmp_path: Path) -> None:
    with empty.write() as connection:
        connection.execute(text("CREATE TABLE study (id INTEGER)"))
    with pytest.raises(Conflict, match="did not make"):
        migrate(empty, tmp_path)


def test_processes_that_start_together_migrate_once(empty: Database, tmp_path: Path) -> None:
    done: list[Any] = []

    def start() -> None:
        url = empty.engine.url
        own = open_database(
            tmp_path / "empty.db"
            if empty.is_sqlite
            else url.render_as_string(hide_password=False).replace("+psycopg", "")
        )
        try:
            done.append(migrate(own, tmp_path))
        finally:
            own.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.before for one in done) == ["", *[newest_revision()] * 3]


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    """Give the path of a database that does not exist yet."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "index.db"


def _context(connection: Connection) -> MigrationContext:
    def is_ours(_object: Any, name: str | None, kind: str, is_there: bool, _other: Any) -> bool:
        """What is not in `METADATA` is compared by `_described`."""
        if not is_there:
            return True
        own_words = (REVISION_TABLE, "ix_study_study_key_identity_doubt")
        is_of_words = "_trigrams" in (name or "") or (name or "").endswith("_words_groups")
        return not is_of_words and name not in own_words

    return MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "include_object": is_ours,
            "target_metadata": METADATA,
        },
    )


def _described(connection: Connection) -> dict[str, Any]:
    """Describe everything in a database in its own words, without Alembic's own table."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(
            text("SELECT type, name, sql FROM sqlite_master WHERE tbl_name <> :own"),
            {"own": REVISION_TABLE},
        ).all()
        said = {row.name: _parts(row.sql or "") for row in rows}
        return {"tables": {row.name for row in rows if row.type == "table"}, "sql": said}
    return {
        "tables": _asked(connection, "SELECT tablename FROM pg_tables"),
        "columns": _asked(
            connection,
            "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, "
            "column_default, collation_name FROM information_schema.columns",
        ),
        "indexes": _asked(connection, "SELECT indexdef FROM pg_indexes"),
        "constraints": _asked(
            connection,
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(c.oid) "
            "FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace",
            schema="n.nspname",
        ),
    }


def _parts(statement: str) -> list[str]:
    """Take a statement apart into its columns and, in any order, its constraints."""
    words = re.sub(r"\s+", " ", statement).removesuffix(" )")
    columns, *constraints = re.split(r", (?=CONSTRAINT )", words)
    return [columns, *sorted(constraints)]


def _asked(connection: Connection, query: str, schema: str = "") -> set[tuple[Any, ...]]:
    column = schema or ("table_schema" if "information_schema" in query else "schemaname")
    rows = connection.execute(text(f"{query} WHERE {column} = 'public'")).all()
    return {tuple(row) for row in rows if REVISION_TABLE not in str(tuple(row))}
