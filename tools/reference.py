"""Writes docs/reference anew from the code: ``make docs``. A test fails when it is out of date."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pacsteward.app import FLOOR_SETTINGS, find_all_rooms
from pacsteward.base.errors import Kind
from pacsteward.base.settings import load
from pacsteward.commands import show_house
from pacsteward.dicom import status
from pacsteward.dicom.information_models import FIND_MODELS, GET_MODELS, MOVE_MODELS
from pacsteward.dicom.uids import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from pacsteward.output import EXIT_CODES
from pacsteward.security.permissions import PERMISSIONS, ROLES
from pacsteward.web.problem import STATUS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
NOTE = "Written by `make docs` from the code; do not edit.\n"


def pages() -> dict[str, str]:
    """Return every page of the reference by file name."""
    return {
        "settings.md": "\n".join(_settings()) + "\n",
        "permissions.md": "\n".join(_permissions()) + "\n",
        "house.md": "\n".join(_house()) + "\n",
        "errors.md": "\n".join(_errors()) + "\n",
        "dicom-conformance.md": "\n".join(_conformance()) + "\n",
        "proven.md": "\n".join(_proven()) + "\n",
    }


def _settings() -> Iterator[str]:
    yield f"# Settings\n\n{NOTE}"
    yield "In `pacsteward.toml` by their name, in the environment by their variable.\n"
    yield "| Name | Variable | Default | Meaning |\n|---|---|---|---|"
    rooms = find_all_rooms()
    kinds = [*FLOOR_SETTINGS, *(section for room in rooms for section in room.settings)]
    for row in load(kinds, environ={}).explain():
        default = str(row.default) if row.default not in ("", None, ()) else "–"
        yield f"| `{row.name}` | `{row.variable}` | `{default}` | {row.prose} |"


def _permissions() -> Iterator[str]:
    yield f"# Permissions and roles\n\n{NOTE}"
    yield "| Permission | Allows | " + " | ".join(ROLES) + " |"
    yield "|---|---|" + "---|" * len(ROLES)
    for name, prose in PERMISSIONS.items():
        marks = ("yes" if {"*", name} & granted else "" for granted in ROLES.values())
        yield f"| `{name}` | {prose} | " + " | ".join(marks) + " |"


def _house() -> Iterator[str]:
    yield f"# The house, room by room\n\n{NOTE}"
    rooms = {room.name: room for room in find_all_rooms()}
    pieces = show_house()
    for name, room in rooms.items():
        yield f"## {room.title} (`{name}`)\n\n{room.summary}\n"
        own = [piece for piece in pieces if piece.room == name]
        if own:
            yield "| What | Name | Permission |\n|---|---|---|"
            for piece in own:
                yield f"| {piece.kind} | `{piece.name}` | `{piece.permission}` |"
            yield ""


def _errors() -> Iterator[str]:
    yield f"# Errors: eight kinds\n\n{NOTE}"
    yield "| Kind | C-STORE | C-FIND, C-MOVE, C-GET | other DIMSE | HTTP | exit |"
    yield "|---|---|---|---|---|---|"
    for kind in Kind:
        error = next(one for one in _error_classes() if one.kind is kind)("x")
        numbers = (status.store_status(error), status.query_status(error), status.status(error))
        shown = " | ".join(f"{number:04X}" for number in numbers)
        yield f"| `{kind}` | {shown} | {STATUS[kind]} | {EXIT_CODES[kind]} |"


def _error_classes() -> list[type]:
    from pacsteward.base import errors

    return [
        one
        for one in vars(errors).values()
        if isinstance(one, type)
        and issubclass(one, errors.PacstewardError)
        and one is not errors.PacstewardError
    ]


def _conformance() -> Iterator[str]:
    yield f"# DICOM conformance\n\n{NOTE}"
    yield "## Services as SCP\n\n| Service | SOP classes | Permission |\n|---|---|---|"
    for room in find_all_rooms():
        for service in room.dimse:
            words = ", ".join(sorted(command.name for command in service.commands))
            yield f"| {words} | {room.title} | `{service.permission}` |"
    yield "\n## Query and retrieve models\n\n| SOP class | Model | Service |\n|---|---|---|"
    for word, models in (("FIND", FIND_MODELS), ("MOVE", MOVE_MODELS), ("GET", GET_MODELS)):
        for uid, model in models.items():
            yield f"| {uid} | {model.name} | C-{word} |"
    yield "\n## Transfer syntaxes\n"
    yield "Storage takes these, each as it is sent; private ones are refused at negotiation.\n"
    yield "| UID | Name |\n|---|---|"
    for syntax in TRANSFER_SYNTAXES.values():
        yield f"| {syntax.uid} | {syntax.name} |"
    yield f"\n## Storage SOP classes ({len(STORAGE_SOP_CLASSES)})\n\n| UID | Name |\n|---|---|"
    for uid, name in STORAGE_SOP_CLASSES.items():
        yield f"| {uid} | {name} |"


NUMBERED = re.compile(r"def test_((?:[cfrs]\d+_)+)([a-z0-9_]+)\(")


def _proven() -> Iterator[str]:
    """List the tests that bear a number: C conformance, F feature, R reliability, S security."""
    yield f"# What is proven, and where\n\n{NOTE}"
    yield (
        "A test is named as the promise it keeps. The number says which list it is on: **C** what "
        "DICOM clients depend on, **F** functions, **R** reliability, **S** security.\n"
    )
    yield "| Number | Promise | Test |\n|---|---|---|"
    rows = []
    for folder in ("src", "tests"):
        for path in sorted((ROOT / folder).rglob("test_*.py")):
            for match in NUMBERED.finditer(path.read_text(encoding="utf-8")):
                for number in match[1].strip("_").split("_"):
                    words = match[2].replace("_", " ")
                    rows.append((number[0], int(number[1:]), words, path.relative_to(ROOT)))
    for letter, number, words, path in sorted(set(rows)):
        yield f"| {letter.upper()}{number:02d} | {words} | `{path}` |"


def main() -> int:
    """Write the pages, or with ``--check`` say which are out of date."""
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        print(f"Out of date: {', '.join(stale)}. Run make docs.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
