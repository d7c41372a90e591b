"""The database: one embedded file, or a PostgreSQL server; the rest of the house cannot tell."""

from pacsteward.base.db.database import CONNECTIONS_MAX, Database, open_database
from pacsteward.base.db.insert_new import insert_new
from pacsteward.base.db.look import Look, took_nothing, was_stopped
from pacsteward.base.db.patience import patient_once
from pacsteward.base.db.question import Question
from pacsteward.base.db.recordset import Recordset
from pacsteward.base.db.row_insert import RowInsert
from pacsteward.base.db.schema import METADATA, Timestamp

__all__ = [
    "CONNECTIONS_MAX",
    "METADATA",
    "Database",
    "Look",
    "Question",
    "Recordset",
    "RowInsert",
    "Timestamp",
    "insert_new",
    "open_database",
    "patient_once",
    "took_nothing",
    "was_stopped",
]
