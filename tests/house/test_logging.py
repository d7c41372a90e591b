"""No patient data in logs: what is given to a logger is looked at in the source.

The guard in ``base/log.py`` hides such values at run time; here the attempt is already a fault.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator

import pytest

from pacsteward.base.log import FORBIDDEN_KEYS
from tests.house.source import Module, modules

LOGGERS = {"log", "logger", "_log", "_logger", "LOG", "LOGGER", "logging"}
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

RESERVED = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Names that ``extra`` may not use: the standard library raises KeyError when it is logged."""


def log_calls(module: Module) -> Iterator[ast.Call]:
    """Give the calls that log something."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if node.func.attr in METHODS and name in LOGGERS:
                yield node


def keys_of(call: ast.Call) -> Iterator[str]:
    """Give the names under which values are logged."""
    for keyword in call.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            yield from (key.value for key in keyword.value.keys if isinstance(key, ast.Constant))
        elif keyword.arg is not None:
            yield keyword.arg


def names_in(call: ast.Call) -> Iterator[str]:
    """Give every variable and attribute whose value takes part."""
    for node in ast.walk(call):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def faults(module: Module) -> list[str]:
    """Say what is wrong with the log calls of a module."""
    found = []
    for call in log_calls(module):
        place = module.place(call)
        words = {*keys_of(call), *names_in(call)}
        found += [f"{place}: {name} may be patient data" for name in words & FORBIDDEN_KEYS]
        extra = next((word.value for word in call.keywords if word.arg == "extra"), None)
        if isinstance(extra, ast.Dict):
            keys = {key.value for key in extra.keys if isinstance(key, ast.Constant)}
            found += [f"{place}: extra cannot be called {name}" for name in keys & RESERVED]
    return found


def test_nothing_is_logged_that_could_be_patient_data() -> None:
    assert [fault for module in modules() for fault in faults(module)] == []


@pytest.mark.parametrize(
    "call",
    [
        "logger.info('found', extra={'patient_name': name})",
        "logger.info('found %s', study.patient_id)",
        "log.warning(f'{data_set}')",
        "self._log.error('no', password=text)",
        "logging.getLogger; logger.error('no', extra={'process': 1})",
    ],
)
def test_a_planted_fault_is_found(call: str) -> None:
    module = modules()[0]
    planted = Module("planted", module.path, ast.parse(call))
    assert faults(planted)


def test_nothing_is_printed_but_by_the_command_line() -> None:
    """What is printed goes past the log, its rotation and its guard."""
    may_print = {
        *("pacsteward.output", "pacsteward.cli", "pacsteward.commands", "pacsteward.serve"),
        # The set-up step that fetches the console's scripts.
        "pacsteward.web.assets",
    }
    wrong = [
        module.place(node)
        for module in modules()
        if module.name not in may_print and module.path.stem != "cli"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert wrong == []
