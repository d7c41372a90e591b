"""The console kit: lists, forms, and how values are written for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from starlette.datastructures import FormData
from starlette.requests import Request

from pacsteward.base.errors import Invalid
from pacsteward.web.forms import Form
from pacsteward.web.grid import Column, arrange, wishes_of
from pacsteward.web.page import ago, commands, counted, moment, number, size, static_url

COLUMNS = (Column("Name", "name"), Column("Port", "port"), Column("Other"))


@dataclass(frozen=True)
class Row:
    name: str
    port: int | None


ROWS = [Row("b", 2), Row("a", None), Row("c", 1), Row("ab", 3)]


def asked(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


def names(query: str, page_rows: int = 50, sort: str = "name") -> list[str]:
    wishes = wishes_of(asked(query), COLUMNS, sort=sort)
    grid = arrange(
        ROWS, COLUMNS, wishes, words_of=lambda row: row.name, key_of=getattr, page_rows=page_rows
    )
    return [row.name for row in grid.rows]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a", "ab", "b", "c"]),
        ("sort=-name", ["c", "b", "ab", "a"]),
        ("sort=port", ["c", "b", "ab", "a"]),
        ("sort=-port", ["ab", "b", "c", "a"]),
        ("sort=password_hash", ["a", "ab", "b", "c"]),
        ("q=B", ["ab", "b"]),
        ("q=a+b", ["ab"]),
        ("q=zz", []),
        ("page=x", ["a", "ab", "b", "c"]),
        ("page=-1", ["a", "ab", "b", "c"]),
        ("page=99999999999999999999", ["a", "ab", "b", "c"]),
        ("page=7", []),
    ],
)
def test_list_is_searched_and_sorted_by_its_address(query: str, expected: list[str]) -> None:
    assert names(query) == expected


def test_list_is_paged() -> None:
    assert names("page=2", page_rows=3) == ["c"]


def test_links_keep_search_and_filters() -> None:
    wishes = wishes_of(asked("q=a%26b&sort=name&actor=x&page=3"), COLUMNS, keep=("actor",))
    grid = arrange(ROWS, COLUMNS, wishes, words_of=lambda row: row.name, key_of=getattr)
    assert grid.sort_link(COLUMNS[0]) == "?actor=x&q=a%26b&sort=-name"
    assert grid.sorted_by(COLUMNS[0]) == "ascending"
    assert grid.page_link(2) == "?actor=x&q=a%26b&sort=name&page=2"


def test_form_gives_plain_values() -> None:
    form = Form(FormData([("name", "  a "), ("box", "x"), ("box", "y"), ("port", "104")]))
    assert form.text("name") == "a"
    assert form.text("name", strip=False) == "  a "
    assert form.text("missing") == ""
    assert form.many("box") == ("x", "y")
    assert form.flag("box")
    assert form.number("port", title="Port") == 104


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "٣", "1" * 30])
def test_number_must_be_one(text: str) -> None:
    with pytest.raises(Invalid, match="Port must be a whole number"):
        Form(FormData([("port", text)])).number("port", title="Port")


def test_moments_and_sizes_are_written_for_people() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert 'datetime="2026-01-02T03:04:05Z"' in moment(when)
    assert moment(None) == "never"
    assert ">2 h ago<" in ago(datetime.now(UTC) - timedelta(hours=2, minutes=5))
    assert [size(value) for value in (0, 999, 1500, 525_000, 58e6, 2.5e12)] == [
        "0 B",
        "999 B",
        "1.5 KB",
        "525 KB",
        "58.0 MB",
        "2.5 TB",
    ]
    assert number(1234567) == "1\u202f234\u202f567"


def test_file_that_was_not_fetched_has_no_address() -> None:
    assert static_url("vendor/nothing.js") == ""
    assert static_url("console.css").startswith("/static/console.css?v=")


def test_what_is_counted_is_one_or_many() -> None:
    words = [counted("1", "instance"), counted(24, "instance"), counted(None, "instance")]
    assert words == ["1 instance", "24 instances", "0 instances"]
    assert [counted(1, "series"), counted(2, "series")] == ["1 series", "2 series"]


def test_commands_in_a_remedy_are_code_and_nothing_gets_out_of_it() -> None:
    assert commands("Ask `pacsteward peers echo AE_TITLE` first.") == (
        "Ask <code>pacsteward peers echo AE_TITLE</code> first."
    )
    assert commands("`<b>` & one ` more") == "<code>&lt;b&gt;</code> &amp; one ` more"
