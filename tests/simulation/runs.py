"""Where stories are played: scratch space in memory, a template of the index, a PostgreSQL server.

Every fifth seed lives on PostgreSQL.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from tests.simulation.day import Result, live
from tests.simulation.world import quiet_surroundings
from tests.support import databases

POSTGRES_EVERY: Final = 5


def replay_command(seed: int) -> str:
    """Return what tells the story of a seed again."""
    return f".venv/bin/python -m tests.simulation --seed {seed} --story"


class Stage:
    """What stories share; a context."""

    def __enter__(self) -> Self:
        self._open = ExitStack()
        # What a power cut loses is decided by the seed, so the machine's own disk need not wait.
        memory = Path("/dev/shm")
        self._folder = Path(
            tempfile.mkdtemp(prefix="pacsteward-day-", dir=memory if memory.is_dir() else None)
        )
        self._open.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._template = self._open.enter_context(databases.sqlite_template(self._folder))
        self._server = ""
        self._postgres_template = ""
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def live(self, seed: int, *, say: Callable[[str], None] = lambda _line: None) -> Result:
        """Live the day of a seed."""
        folder = Path(tempfile.mkdtemp(prefix=f"seed-{seed}-", dir=self._folder))
        with ExitStack() as own:
            own.enter_context(quiet_surroundings())
            url = None
            if seed % POSTGRES_EVERY == 0:
                database = own.enter_context(databases.postgres_database(*self._postgres()))
                url = database.engine.url.render_as_string(hide_password=False)
                database.close()
            return live(seed, folder, self._template, database_url=url, say=say)

    def _postgres(self) -> tuple[str, str]:
        if not self._server:
            self._server = self._open.enter_context(databases.postgres_server())
            self._postgres_template = self._open.enter_context(
                databases.postgres_template(self._server)
            )
        return self._server, self._postgres_template
