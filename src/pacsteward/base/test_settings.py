"""Settings are shown with their sources, and without passwords."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import Field

from pacsteward.base.settings import Section, load


class _Place(Section):
    """Where things are."""

    section: ClassVar[str] = "place"
    url: str = Field("", description="Where it is. A URL.")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://pacs:s3cret@db.example/pacs", "postgresql://pacs:***@db.example/pacs"),
        ("postgresql://pacs:s3:cr@t@db/pacs", "postgresql://pacs:***@db/pacs"),
        ("postgresql://pacs@db.example/pacs", "postgresql://pacs@db.example/pacs"),
        ("postgresql:///pacs?host=/run/postgresql", "postgresql:///pacs?host=/run/postgresql"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
    ],
)
def test_password_in_a_url_is_used_and_not_shown(url: str, shown: str) -> None:
    settings = load([_Place], environ={"PACSTEWARD_PLACE__URL": url})
    assert settings.of(_Place).url == url
    (row,) = settings.explain()
    assert row.value == shown
    assert row.source == "PACSTEWARD_PLACE__URL"
