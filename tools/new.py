"""Scaffolds a room, a decision or a change note: ``make new KIND=feature NAME=worklist``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

FEATURE = '''"""What the {name} room gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature

FEATURE = Feature(
    name="{name}",
    title="{title}",
    summary="",
)
'''

DOC = """---
title: {title}
status: todo
---

# {title}

What an administrator does here, and how.
"""

TEST = '''"""The promises of the {name} room."""

from pacsteward.features.{name}.feature import FEATURE


def test_the_room_says_in_one_sentence_what_it_is_for() -> None:
    assert FEATURE.summary.endswith(".")
'''

DECISION = """# {title}

**Context.**

**Choice.**

**What we gave up.**

**When to revisit.**
"""


def feature(name: str) -> list[Path]:
    """Make the folder of a room with what every room has; its test is red until it is filled."""
    folder = ROOT / "src" / "pacsteward" / "features" / name
    if folder.exists():
        raise SystemExit(f"There is a room {name} already.")
    title = name.replace("_", " ").capitalize()
    texts = {
        "__init__.py": f'"""{title}."""\n',
        "feature.py": FEATURE,
        "doc.md": DOC,
        f"test_{name}.py": TEST,
    }
    return [_write(folder / file, text, name, title) for file, text in texts.items()]


def decision(name: str) -> list[Path]:
    """Make the page of a decision, numbered after the last one."""
    folder = ROOT / "docs" / "decisions"
    number = max((int(page.name[:4]) for page in folder.glob("[0-9]*.md")), default=0) + 1
    title = name.replace("-", " ").capitalize()
    return [_write(folder / f"{number:04d}-{name}.md", DECISION, name, title)]


def change(name: str) -> list[Path]:
    """Make a note for administrators."""
    return [_write(ROOT / "changes" / f"{name}.feature.md", "\n", name, name)]


def _write(path: Path, text: str, name: str, title: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(name=name, title=title), encoding="utf-8")
    return path


KINDS = {"feature": feature, "decision": decision, "change": change}


def main() -> None:
    """Make what was asked for and say where it is."""
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        raise SystemExit(f"Usage: make new KIND={'|'.join(KINDS)} NAME=…")
    for path in KINDS[sys.argv[1]](sys.argv[2]):
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
