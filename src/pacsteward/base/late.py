"""Modules that are imported when something of them is first used.

numpy takes a tenth of a second to import, and most of what this program does needs none of it:
not the start, and no command that shows or changes a list. A module that computes with it says

    if TYPE_CHECKING:
        import numpy as np
    else:
        np = late("numpy")

and goes on as if it were imported. Functions of one module that are needed in one place are better
imported there. What a library imports only to use it if it is installed is left away by `without`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def late(name: str) -> Any:
    """Return what stands for the module `name` until it is needed, and afterwards."""
    return _Late(name)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Have imports of `names` within the block fail, as if they were not installed.

    References
    ----------
    https://docs.python.org/3/reference/import.html#the-module-cache
    """
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


class _Late:
    """Stands for a module; what was asked of it once is found here as fast as in the module."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        # The import system has one thread import and the others wait.
        found = getattr(importlib.import_module(self._name), name)
        setattr(self, name, found)
        return found
