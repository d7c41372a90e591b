"""What Alembic runs: the migrations, on the connection that ``base/db/migrate.py`` hands over.

The transaction is begun and committed there. After each migration the database notes what it
demands of the code that uses it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import delete, insert

from pacsteward.base.db.migrate import REVISION_TABLE
from pacsteward.base.db.tables import SCHEMA_INFO


def note_demands(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Write down the revision that was reached, and the oldest code that may work with it."""
    script = context.script.get_revision(str(step.up_revision_id))
    connection = ctx.connection
    assert script is not None
    assert connection is not None
    connection.execute(delete(SCHEMA_INFO))
    connection.execute(
        insert(SCHEMA_INFO).values(
            id=1,
            revision=script.revision,
            oldest_code=script.module.OLDEST_CODE,
            migrated_at=datetime.now(UTC),
        )
    )


context.configure(
    connection=context.config.attributes["connection"],
    version_table=REVISION_TABLE,
    # SQLite changes a table by making it anew.
    render_as_batch=True,
    on_version_apply=note_demands,
    # One transaction around all migrations, which is the caller's.
    transaction_per_migration=False,
    transactional_ddl=False,
)
context.run_migrations()
