"""The history of the schema, one line for all floors and rooms.

`versions` holds one file for each step, numbered; `env.py` is what Alembic runs. How and when they
are run is in ``base/db/migrate.py``.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from sqlalchemy import MetaData

from pacsteward.base.db import METADATA

TABLE_MODULES = ("tables.py", "words_index.py")
"""Modules that declare tables, or what comes with them."""


def import_all_tables() -> MetaData:
    """Import every module of the house that declares tables, and return them all together.

    Tables are found by folder, like the rooms, so that a new one needs no entry anywhere. Only
    tests and tools need this: migrations are written out, and the house imports what it uses.
    """
    root = Path(__file__).parents[1]
    for name in TABLE_MODULES:
        for path in sorted(root.rglob(name)):
            module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
            importlib.import_module(module)
    return METADATA
