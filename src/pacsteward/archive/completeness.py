"""When a study is complete: nothing was added to it for the quiet time.

Nobody tells an archive that the last image has been sent, so silence has to do. The deadline is a
column of the study (`completes_at`), which the indexer moves with each arrival: a restart forgets
nothing, and a deadline that passed while the house was closed is kept when it opens again. A late
arrival makes the study incomplete, and it is announced again.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select, update

from pacsteward.archive.events import StudyCompleted
from pacsteward.archive.tables import STUDY
from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.errors import PacstewardError
from pacsteward.base.events import FactLog

_log: Final = logging.getLogger(__name__)

AT_ONCE: Final = 200
"""Studies that one transaction announces."""

LOOK_EVERY_S: Final = 1.0


def complete_due(connection: Connection, facts: FactLog, now: datetime) -> int:
    """Announce the studies whose quiet time is over; return how many, at most `AT_ONCE`.

    Parameters
    ----------
    connection
        Of a writing transaction.
    """
    due = connection.execute(
        select(
            STUDY.c.study_key,
            STUDY.c.study_instance_uid,
            STUDY.c.number_of_study_related_instances,
            STUDY.c.version,
        )
        .where(STUDY.c.completes_at <= now)
        .order_by(STUDY.c.completes_at)
        .limit(AT_ONCE)
        # Another node announces others meanwhile (PostgreSQL).
        .with_for_update(skip_locked=True)
    ).all()
    if not due:
        return 0
    connection.execute(
        update(STUDY)
        .where(STUDY.c.study_key.in_([row.study_key for row in due]))
        .values(completes_at=None, completed_at=now)
    )
    facts.append(
        connection,
        *(
            StudyCompleted(
                study_instance_uid=row.study_instance_uid,
                number_of_instances=row.number_of_study_related_instances,
                version=row.version,
            )
            for row in due
            # Of a study whose instances were all rejected meanwhile nobody can see anything.
            if row.number_of_study_related_instances
        ),
    )
    return len(due)


def is_anything_due(connection: Connection, now: datetime) -> bool:
    """Whether a quiet time is over; asks without holding up writers."""
    query = select(STUDY.c.study_key).where(STUDY.c.completes_at <= now).limit(1)
    return connection.execute(query).first() is not None


class CompletenessWatch:
    """Looks for studies whose quiet time is over, in a thread of the keeper.

    Parameters
    ----------
    facts
        Takes `StudyCompleted`.
    """

    def __init__(self, database: Database, facts: FactLog, clock: Clock) -> None:
        self._database = database
        self._facts = facts
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="completeness", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when it no longer looks."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> int:
        """Announce all that is due now; return how many studies."""
        announced = 0
        while True:
            with self._database.read() as connection:
                if not is_anything_due(connection, self._clock.now()):
                    return announced
            with self._database.write() as connection:
                announced += complete_due(connection, self._facts, self._clock.now())

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                self.look()
            except PacstewardError as error:
                # The database is away for a while; the deadlines wait for it.
                _log.warning("Studies were not announced as complete: %s", error)
            except Exception:  # noqa: BLE001
                # Nothing else would start it again before the keeper is.
                _log.exception("Studies were not announced as complete.")
