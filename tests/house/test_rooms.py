"""The grammar of a room: a file name means the same in each (ARCHITECTURE.md, chapter 5)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pacsteward import features
from pacsteward.feature import Feature, find_rooms
from tests.house.source import modules, rooms

FOLDERS = {"templates", "fixtures", "__pycache__", "dist"}
"""What a room's folder may hold besides files; ``dist`` is fetched at set-up."""

EDGES = ("dimse", "dicomweb", "routes", "hl7", "pages", "cli")
"""Files that translate between a language and the logic."""


@pytest.fixture(scope="module")
def all_rooms() -> list[Feature]:
    """Give what every room declares."""
    return find_rooms(features)


def test_every_room_is_found_under_the_name_of_its_folder(all_rooms: list[Feature]) -> None:
    assert [room.name for room in all_rooms] == [path.name for path in rooms()]


@pytest.mark.parametrize("room", rooms(), ids=lambda path: path.name)
def test_room_holds_nothing_but_its_kinds_of_files(room: Path) -> None:
    assert (room / "feature.py").is_file()
    strange = {path.name for path in room.iterdir() if path.is_dir()} - FOLDERS
    assert strange == set()


@pytest.mark.parametrize("room", rooms(), ids=lambda path: path.name)
def test_room_explains_itself_to_the_administrator(room: Path) -> None:
    help_page = room / "doc.md"
    assert help_page.is_file()
    assert len(help_page.read_text(encoding="utf-8").split()) > 30


def test_feature_file_declares_and_does_nothing_else() -> None:
    for module in modules():
        if not module.name.startswith("pacsteward.features.") or module.path.stem != "feature":
            continue
        for node in module.tree.body:
            is_prose = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            is_feature = (
                isinstance(node, ast.Assign)
                and [ast.unparse(target) for target in node.targets] == ["FEATURE"]
                and isinstance(node.value, ast.Call)
            )
            assert is_prose or is_import or is_feature, module.place(node)


def test_edge_of_a_room_never_touches_the_database() -> None:
    wrong = [
        f"{module.place(node)}: {name}"
        for module in modules()
        if module.name.startswith("pacsteward.features.") and module.path.stem in EDGES
        for name, node in module.imports()
        if name.split(".")[0] in {"sqlalchemy", "sqlite3", "psycopg"}
    ]
    assert wrong == []


def test_logic_of_a_room_knows_no_http_and_no_terminal() -> None:
    wrong = [
        f"{module.place(node)}: {name}"
        for module in modules()
        if module.name.startswith("pacsteward.features.")
        and module.path.stem not in (*EDGES, "feature", "__init__")
        for name, node in module.imports()
        if name.split(".")[0] in {"starlette", "fastapi", "uvicorn", "cyclopts", "rich"}
    ]
    assert wrong == []


def test_titles_and_summaries_are_sentences_for_people(all_rooms: list[Feature]) -> None:
    for room in all_rooms:
        assert room.title[:1].isupper(), room.name
        assert room.summary.endswith("."), room.name
        for page in room.pages:
            assert page.title, (room.name, page.path)
        for operation in room.api:
            assert operation.summary, (room.name, operation.path)


def test_names_that_are_kept_in_the_database_are_given_once(all_rooms: list[Feature]) -> None:
    jobs = [job.kind.name for room in all_rooms for job in room.jobs]
    listeners = [one.name for room in all_rooms for one in room.listens]
    checks = [check.check.name for room in all_rooms for check in room.checks]
    facts = [fact.name for room in all_rooms for fact in room.announces]
    for names in (jobs, listeners, checks, facts):
        assert sorted(names) == sorted(set(names))


def test_no_two_doors_have_the_same_address(all_rooms: list[Feature]) -> None:
    addresses = [
        *((door.method, door.path) for room in all_rooms for door in room.routes),
        *((door.method, f"/api/v1{door.path}") for room in all_rooms for door in room.api),
        *((way, page.path) for room in all_rooms for page in room.pages for way in page.methods),
    ]
    assert sorted(addresses) == sorted(set(addresses))
