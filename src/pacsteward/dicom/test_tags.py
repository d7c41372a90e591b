"""The names of tags are those of the registry."""

from __future__ import annotations

import pytest
from pydicom.datadict import keyword_for_tag

from pacsteward.dicom import tags

NAMED = {name: tag for name, tag in vars(tags).items() if isinstance(tag, int)}


@pytest.mark.parametrize(("name", "tag"), NAMED.items())
def test_a_name_is_the_keyword_of_its_tag(name: str, tag: int) -> None:
    assert name.replace("_", "") == keyword_for_tag(tag).upper()


def test_tags_stand_in_their_order() -> None:
    assert list(NAMED.values()) == sorted(set(NAMED.values()))
