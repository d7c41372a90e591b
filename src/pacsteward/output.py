"""How a command's result is printed: as text for people, as JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pacsteward.base.errors import Kind, PacstewardError

EXIT_CODES = {
    Kind.INVALID: 2,
    Kind.UNSUPPORTED: 3,
    Kind.NOT_FOUND: 4,
    Kind.CONFLICT: 5,
    Kind.FORBIDDEN: 6,
    Kind.EXHAUSTED: 7,
    Kind.UNAVAILABLE: 8,
    Kind.BROKEN: 9,
}


def show(result: Any, *, as_json: bool) -> None:
    """Print what a command returned."""
    if as_json:
        print(json.dumps(_plain(result), ensure_ascii=False, indent=2))
    elif result is None:
        return
    elif isinstance(result, str):
        print(result)
    elif isinstance(result, list | tuple):
        _show_table(list(result))
    elif dataclasses.is_dataclass(result):
        for name, value in _plain(result).items():
            print(f"{name.replace('_', ' ')}: {_text(value)}")
    else:
        print(result)


def exit_code_of(result: Any) -> int:
    """Return what a command ends with that gave `result`: not 0 when that reports damage."""
    return 0 if getattr(result, "is_sound", True) else EXIT_CODES[Kind.BROKEN]


def complain(error: PacstewardError, *, as_json: bool = False) -> int:
    """Print an error and return the exit code of its kind."""
    if as_json:
        document = {
            "kind": error.kind.value,
            "what": error.what,
            "why": error.why,
            "remedy": error.remedy,
        }
        print(json.dumps(document, ensure_ascii=False), file=sys.stderr)
    else:
        for part in (error.what, error.why, error.remedy):
            if part:
                print(part, file=sys.stderr)
    return EXIT_CODES[error.kind]


def _show_table(rows: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print("None.")
        return
    if not dataclasses.is_dataclass(rows[0]):
        for row in rows:
            print(_text(_plain(row)))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = [field.name for field in dataclasses.fields(rows[0])]
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        plain = _plain(row)
        table.add_row(*(_text(plain[column]) for column in columns))
    # A file or a pipe gets each row on one line; a terminal has a width.
    width = None if sys.stdout.isatty() else 1000
    Console(highlight=False, width=width).print(table)


def _plain(value: Any) -> Any:
    """Turn a result into what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(_plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return value


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
