"""Settings have prose, facts are plain values, and the source speaks of itself alone."""

from __future__ import annotations

import importlib
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from pacsteward.base.events import Fact
from pacsteward.base.log import FORBIDDEN_KEYS
from pacsteward.base.settings import Section
from tests.house.source import ROOT, modules

PLAIN = (str, int, float, bool, type(None))

LINES_MAX = 600
"""A longer file holds more than one theme."""


def everything_below(kind: type) -> Iterator[type]:
    """Give the classes of the product that are kinds of `kind`."""
    for module in modules():
        if module.path.name in {"settings.py", "events.py", "application.py", "app.py"}:
            importlib.import_module(module.name)
    waiting = list(kind.__subclasses__())
    seen: dict[str, type] = {}
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        # A dataclass with slots leaves its first form behind; the module holds the real one.
        real = getattr(importlib.import_module(found.__module__), found.__name__, None)
        if found.__module__.startswith("pacsteward.") and ".test_" not in found.__module__:
            seen[f"{found.__module__}.{found.__name__}"] = real or found
    yield from seen.values()


def test_every_setting_is_explained_with_its_unit_last() -> None:
    silent = [
        f"{section.__qualname__}.{name}"
        for section in everything_below(Section)
        for name, info in section.model_fields.items()  # type: ignore[attr-defined]
        if not (info.description or "").strip().endswith(".")
        or len((info.description or "").split()) < 3
    ]
    assert silent == []
    assert len(list(everything_below(Section))) >= 3


def test_every_section_is_explained() -> None:
    assert [kind for kind in everything_below(Section) if not (kind.__doc__ or "").strip()] == []


def test_facts_are_plain_values_and_hold_no_patient_data() -> None:
    wrong = []
    for fact in everything_below(Fact):
        hints = typing.get_type_hints(fact)
        for field in fields(fact):
            if field.name in FORBIDDEN_KEYS or not is_plain(hints[field.name]):
                wrong.append(f"{fact.__qualname__}.{field.name}: {hints[field.name]}")
    assert wrong == []


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, True),
        (int | None, True),
        (tuple[str, ...], True),
        (tuple[tuple[str, int], ...], True),
        (list[str], False),
        (bytes, False),
        (Any, False),
    ],
)
def test_plain_is_what_json_gives_back(hint: Any, expected: bool) -> None:
    assert is_plain(hint) is expected


def is_plain(hint: Any) -> bool:
    """Say whether a value of this type comes back from the log as it was."""
    if hint in PLAIN:
        return True
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return all(is_plain(part) for part in inner)
    if origin is tuple:
        return all(part is Ellipsis or is_plain(part) for part in inner)
    if isinstance(hint, typing.NewType):
        return is_plain(hint.__supertype__)
    return origin is typing.Literal


def test_files_hold_one_theme() -> None:
    long = {
        str(module.path.relative_to(ROOT)): lines
        for module in modules()
        if "migrations" not in module.path.parts
        and (lines := len(module.path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }
    assert long == {}


def test_source_names_no_folder_of_anybodys_machine() -> None:
    pattern = re.compile(r"(?<![\w/.])/(?:work|home/\w+|Users/\w+|root)/")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("src", "tests", "docs", "bench", "prove", "deploy", "tools")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".md", ".toml", ".html", ".service", ".yaml", ".yml"}
        and "dist" not in path.parts
        and "vendor" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert wrong == []
