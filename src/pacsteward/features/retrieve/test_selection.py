"""Promises of selection.py: which instances a retrieve names."""

from __future__ import annotations

import pytest

from pacsteward.archive import Selection
from pacsteward.base.errors import Invalid
from pacsteward.dicom.identifier import Identifier, Key
from pacsteward.dicom.information_models import PATIENT_ROOT, STUDY_ROOT, Model
from pacsteward.features.retrieve.selection import selection_from

PATIENT_ID, STUDY, SERIES, SOP = 0x00100020, 0x0020000D, 0x0020000E, 0x00080018


def selected(level: str, keys: dict[int, Key], model: Model = STUDY_ROOT) -> Selection:
    return selection_from(Identifier(level, keys), model)


def test_the_unique_key_of_the_level_may_be_a_list() -> None:
    assert selected("STUDY", {STUDY: "1.2\\1.3"}) == Selection(study_instance_uids=("1.2", "1.3"))


def test_keys_above_restrict_too() -> None:
    found = selected("IMAGE", {STUDY: "1.2", SERIES: "1.2.3", SOP: "1.2.3.4"})
    assert found == Selection((), ("1.2",), ("1.2.3",), ("1.2.3.4",))
    found = selected("STUDY", {PATIENT_ID: "P", STUDY: "1.2"}, PATIENT_ROOT)
    assert found == Selection(("P",), ("1.2",))


def test_keys_above_may_be_missing_or_open() -> None:
    """Many workstations name the object and nothing else."""
    assert selected("IMAGE", {SOP: "1.4"}) == Selection(sop_instance_uids=("1.4",))
    assert selected("SERIES", {STUDY: "*", SERIES: "1.3"}) == Selection(
        series_instance_uids=("1.3",)
    )


def test_keys_below_and_of_other_models_do_not_count() -> None:
    assert selected("STUDY", {STUDY: "1.2", SERIES: "1.3", PATIENT_ID: "P"}) == Selection(
        study_instance_uids=("1.2",)
    )


@pytest.mark.parametrize("keys", [{}, {STUDY: ""}, {STUDY: "*"}, {STUDY: "\\"}, {SERIES: "1.3"}])
def test_everything_cannot_be_asked_for(keys: dict[int, Key]) -> None:
    with pytest.raises(Invalid, match="StudyInstanceUID"):
        selected("STUDY", keys)


@pytest.mark.parametrize("keys", [{STUDY: "1.2.*"}, {STUDY: "1.2\\one"}, {STUDY: "1." + "2" * 63}])
def test_a_uid_that_is_none_is_refused_and_not_looked_for(keys: dict[int, Key]) -> None:
    with pytest.raises(Invalid, match="StudyInstanceUID"):
        selected("STUDY", keys)


@pytest.mark.parametrize("level", ["", "PATIENT", "FRAME"])
def test_the_level_is_one_of_the_model(level: str) -> None:
    with pytest.raises(Invalid):
        selected(level, {STUDY: "1.2"})
