"""The product's own source, for tests that read it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "pacsteward"
ROOMS = PACKAGE / "features"


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the product."""

    name: str
    path: Path
    tree: ast.Module

    def place(self, node: ast.AST) -> str:
        """Say where `node` is, as an editor understands it."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"

    def imports(self) -> Iterator[tuple[str, ast.AST]]:
        """Give every module that is imported, with the statement."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module, node


@cache
def modules() -> tuple[Module, ...]:
    """Read every file of the product; tests and what is fetched are left out."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name.startswith("test_") or path.name == "conftest.py" or "dist" in path.parts:
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


def rooms() -> list[Path]:
    """Return the folders of the rooms."""
    return sorted(
        path for path in ROOMS.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))
    )
