"""What the documents send their reader to is there: links, commands, targets of make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacsteward.app import find_all_rooms
from pacsteward.cli import build
from tests.house.source import ROOT

LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
COMMAND = re.compile(
    r"(?:`|bin/|^    |pacsteward )pacsteward ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.M
)
TARGET = re.compile(r"(?:`|^    )make ([a-z]+)", re.M)


def documents() -> list[Path]:
    """Return every page that people write; those of docs/reference are written from the code."""
    patterns = ("*.md", "docs/**/*.md", "changes/*.md", "src/pacsteward/features/*/doc.md")
    return sorted(page for pattern in patterns for page in ROOT.glob(pattern))


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_commands_that_are_named_are_there() -> None:
    app = build(find_all_rooms())
    unknown = []
    for page in documents():
        for name, verb in COMMAND.findall(page.read_text(encoding="utf-8")):
            verbs = {one for one in app[name] if not one.startswith("-")} if name in app else set()
            # `serve`, `repl` and `house` have no verbs; what follows is prose.
            if name not in app or (verbs and verb and verb not in verbs):
                unknown.append(f"{page.relative_to(ROOT)}: pacsteward {name} {verb}")
    assert unknown == []


def test_targets_of_make_that_are_named_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    named = {
        (page.name, target)
        for page in documents()
        for target in TARGET.findall(page.read_text(encoding="utf-8"))
    }
    assert {one for one in named if one[1] not in targets} == set()
