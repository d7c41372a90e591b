"""Contracts of import-linter that look at the product alone.

Tests live beside the code they test, and may use what the code may not: another decoder to compare
with, a database driver to look behind the scenes. Import-linter has no pattern for their names, so
they are taken out of its graph first.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.protected import ProtectedContract
from importlinter.domain.contract import ContractCheck


class ForbiddenInProduct(ForbiddenContract):
    """Import-linter's *forbidden*, without tests."""

    type_name = "forbidden_in_product"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Check the product."""
        return super().check(without_tests(graph), verbose)


class ProtectedInProduct(ProtectedContract):
    """Import-linter's *protected*, without tests."""

    type_name = "protected_in_product"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Check the product."""
        return super().check(without_tests(graph), verbose)


def without_tests(graph: ImportGraph) -> ImportGraph:
    """Take test modules out of `graph`, which is the contract's own copy."""
    for module in list(graph.modules):
        name = module.rpartition(".")[2]
        if name.startswith("test_") or name == "conftest":
            graph.remove_module(module)
    return graph
