"""Lists that can be searched, sorted and paged through, by address alone.

What a list shows stands in its address (``?q=ct&sort=-port&page=2``), so a list can be sent to a
colleague, and works without script. `arrange` does it for lists that fit into memory; rooms whose
lists are long give the wishes in `Wishes` to their own query and make the `Grid` themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

PAGE_ROWS = 50
PAGES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list; `name` "" is one that cannot be sorted by."""

    title: str
    name: str = ""
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the address asks for."""

    search: str
    sort: str
    is_descending: bool
    page: int
    kept: tuple[tuple[str, str], ...]
    """Other parameters of the address, which links must keep."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One page of a list, with what its heading and its pager need."""

    columns: Sequence[Column]
    rows: Sequence[Any]
    total: int
    wishes: Wishes
    page_rows: int = PAGE_ROWS

    @property
    def pages(self) -> int:
        """How many pages there are; an empty list has one."""
        return max(1, -(-self.total // self.page_rows))

    @property
    def first(self) -> int:
        """Number of the first row shown, counted from 1; 0 when there is none."""
        return (self.wishes.page - 1) * self.page_rows + 1 if self.rows else 0

    @property
    def last(self) -> int:
        """Number of the last row shown."""
        return max(0, self.first + len(self.rows) - 1)

    def sort_link(self, column: Column) -> str:
        """Address that sorts by `column`; a second click turns it round."""
        wishes = self.wishes
        turn = wishes.sort == column.name and not wishes.is_descending
        return self._link(sort=("-" if turn else "") + column.name, page=1)

    def sorted_by(self, column: Column) -> str:
        """Value of ``aria-sort``."""
        if not column.name or self.wishes.sort != column.name:
            return "none"
        return "descending" if self.wishes.is_descending else "ascending"

    def page_link(self, page: int) -> str:
        """Address of another page."""
        return self._link(page=page)

    def _link(self, **changes: Any) -> str:
        wishes = self.wishes
        sort = ("-" if wishes.is_descending else "") + wishes.sort
        values = {"q": wishes.search, "sort": sort, "page": wishes.page, **changes}
        if values["page"] == 1:
            del values["page"]
        pairs = [*wishes.kept, *((name, value) for name, value in values.items() if value)]
        return "?" + urlencode(pairs)


def wishes_of(
    request: Request, columns: Iterable[Column], *, sort: str = "", keep: Iterable[str] = ()
) -> Wishes:
    """Read the address.

    Parameters
    ----------
    sort
        Column to sort by when the address names none; ``"-name"`` begins with the largest.
    keep
        Other parameters of the page, such as filters.
    """
    asked = request.query_params.get("sort", "") or sort
    names = {column.name for column in columns if column.name}
    if asked.lstrip("-") not in names:
        asked = sort
    page = request.query_params.get("page", "1")
    is_page = page.isascii() and page.isdigit() and len(page) < 6
    return Wishes(
        search=request.query_params.get("q", "").strip()[:200],
        sort=asked.lstrip("-"),
        is_descending=asked.startswith("-"),
        page=min(max(1, int(page) if is_page else 1), PAGES_MAX),
        kept=tuple(
            (name, request.query_params[name]) for name in keep if request.query_params.get(name)
        ),
    )


def arrange(
    rows: Iterable[Any],
    columns: Sequence[Column],
    wishes: Wishes,
    *,
    words_of: Callable[[Any], str],
    key_of: Callable[[Any, str], Any],
    page_rows: int = PAGE_ROWS,
) -> Grid:
    """Search, sort and cut a list that is in memory.

    Parameters
    ----------
    words_of
        Text of a row that is searched; every word wished for must be in it.
    key_of
        What a row is sorted by, given a column's name; None comes last.
    """
    wanted = wishes.search.casefold().split()
    found = [row for row in rows if all(word in words_of(row).casefold() for word in wanted)]
    if wishes.sort:
        known = [row for row in found if key_of(row, wishes.sort) is not None]
        rest = [row for row in found if key_of(row, wishes.sort) is None]
        known.sort(key=lambda row: key_of(row, wishes.sort), reverse=wishes.is_descending)
        found = known + rest
    start = (wishes.page - 1) * page_rows
    return Grid(columns, found[start : start + page_rows], len(found), wishes, page_rows)
