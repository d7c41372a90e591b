"""Settings are shown with their sources, and without passwords."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from pacsteward.base.errors import Invalid
from pacsteward.base.settings import Section, load


class _Place(Section):
    """Where things are."""

    section: ClassVar[str] = "place"
    url: str = Field("", description="Where it is. A URL.")
    doors: int = Field(1, description="How many. Doors.")


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
    row = settings.explain()[0]
    assert row.value == shown
    assert row.source == "PACSTEWARD_PLACE__URL"


def test_all_faults_are_told_at_once_with_a_remedy_that_works_meanwhile(tmp_path: Path) -> None:
    """With faults in the settings `pacsteward settings explain` says the same and no more."""
    file = tmp_path / "pacsteward.toml"
    file.write_text('[place]\ndoors = "many"\nwindows = 3\n', encoding="utf-8")
    with pytest.raises(Invalid) as caught:
        load([_Place], file=file)
    assert f"place.doors ({file})" in caught.value.what
    assert f"place.windows ({file}): no such setting" in caught.value.what
    assert "docs/reference/settings.md" in caught.value.remedy
