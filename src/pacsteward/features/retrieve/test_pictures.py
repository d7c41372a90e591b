"""Which picture stands for a study, and keeping pictures that were drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pacsteward.archive import Instance
from pacsteward.base.errors import NotFound
from pacsteward.dicom.render import RenderRequest
from pacsteward.features.retrieve import pictures
from pacsteward.features.retrieve.pictures import (
    PictureCache,
    Subject,
    middle_frame,
    number_of_frames,
    representative,
)
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.test_representations import EXPLICIT, instance


def test_c60_the_middle_of_the_first_series_with_pictures_stands_for_a_study() -> None:
    report = instance(EXPLICIT, series_instance_uid="1", has_pixel_data=False)
    slices = [
        instance(EXPLICIT, series_instance_uid="2", sop_instance_uid=str(number))
        for number in range(5)
    ]
    later = instance(EXPLICIT, series_instance_uid="3", sop_instance_uid="9")
    assert representative([report, *slices, later]) == Subject(slices[2])


def test_c60_of_a_film_it_is_the_middle_frame() -> None:
    film = instance(EXPLICIT, number_of_frames="40")
    assert representative([film]) == Subject(film, 21)
    assert middle_frame(instance(EXPLICIT, number_of_frames="")).frame == 1


def test_a_study_without_pictures_is_told_so() -> None:
    with pytest.raises(NotFound):
        representative([instance(EXPLICIT, has_pixel_data=False)])


def test_no_video_stands_for_a_study_since_none_is_drawn() -> None:
    video = instance("1.2.840.10008.1.2.4.102", series_instance_uid="1")
    still = instance(EXPLICIT, series_instance_uid="2")
    assert representative([video, still]) == Subject(still)
    with pytest.raises(NotFound, match="video"):
        representative([video])


@pytest.mark.parametrize(
    ("text", "frames"), [("", 1), ("7", 7), (" 7 ", 7), ("-1", 1), ("x", 1), ("9" * 20, 1)]
)
def test_odd_numbers_of_frames_do_no_harm(text: str, frames: int) -> None:
    assert number_of_frames(instance(EXPLICIT, number_of_frames=text)) == frames


def test_the_least_recently_used_picture_goes_first() -> None:
    cache = PictureCache(max_bytes=10)
    cache.put("a", b"1234")
    cache.put("b", b"1234")
    assert cache.get("a") == b"1234"
    cache.put("c", b"1234")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1234", None, b"1234")
    cache.put("a", b"12")
    cache.put("d", b"1234")
    assert cache.get("c") == b"1234"


def test_a_picture_is_kept_for_the_object_and_not_for_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key of what was deleted may be the next one's within a second, in the same version."""
    drawn = []

    def draw(_archive: Any, _settings: Any, one: Instance, _request: RenderRequest) -> bytes:
        drawn.append(one.sop_instance_uid)
        return one.sop_instance_uid.encode()

    monkeypatch.setattr(pictures, "draw", draw)
    monkeypatch.setattr(pictures, "_CACHE", PictureCache())
    first = instance(EXPLICIT, sop_instance_uid="1.1")
    others = [replace(first, sop_instance_uid="1.2"), replace(first, checksum=first.checksum + 1)]
    archive: Any = None
    for one in (first, *others, first):
        text = pictures.picture(archive, RetrieveSettings(), Subject(one), RenderRequest())
        assert text == one.sop_instance_uid.encode()
    assert drawn == ["1.1", "1.2", "1.1"]
