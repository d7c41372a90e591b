"""Promises of information_models.py: which levels there are, and what a question must name."""

from __future__ import annotations

import pytest

from pacsteward.base.errors import Invalid
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.information_models import (
    FIND_MODELS,
    GET_MODELS,
    MOVE_MODELS,
    PATIENT_ROOT,
    PATIENT_STUDY_ONLY,
    STUDY_ROOT,
    UNIQUE_KEYS,
    Model,
)

PATIENT_ID, STUDY_UID, SERIES_UID = 0x00100020, 0x0020000D, 0x0020000E


@pytest.mark.parametrize(
    ("uid", "model"),
    [
        ("1.2.840.10008.5.1.4.1.2.1.1", PATIENT_ROOT),
        ("1.2.840.10008.5.1.4.1.2.2.1", STUDY_ROOT),
        ("1.2.840.10008.5.1.4.1.2.3.1", PATIENT_STUDY_ONLY),
    ],
)
def test_a_sop_class_names_its_model(uid: str, model: Model) -> None:
    assert FIND_MODELS[uid] is model
    assert MOVE_MODELS[uid[:-1] + "2"] is model
    assert GET_MODELS[uid[:-1] + "3"] is model


@pytest.mark.parametrize(
    ("model", "text", "level"),
    [
        (STUDY_ROOT, "STUDY", Level.STUDY),
        (STUDY_ROOT, " study ", Level.STUDY),
        (PATIENT_ROOT, "PATIENT", Level.PATIENT),
        (PATIENT_STUDY_ONLY, "STUDY", Level.STUDY),
    ],
)
def test_a_level_is_read_as_it_was_meant(model: Model, text: str, level: Level) -> None:
    assert model.level(text) is level


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (STUDY_ROOT, ""),
        (STUDY_ROOT, "PATIENT"),
        (STUDY_ROOT, "STUDIES"),
        (PATIENT_STUDY_ONLY, "SERIES"),
        (STUDY_ROOT, "IMAGE\\STUDY"),
    ],
)
def test_c76_what_is_no_level_of_the_model_is_refused_with_those_that_are(
    model: Model, text: str
) -> None:
    with pytest.raises(Invalid) as refused:
        model.level(text)
    assert ", ".join(model.levels) in refused.value.why


def test_the_levels_above_are_listed_from_the_root() -> None:
    assert PATIENT_ROOT.above(Level.SERIES) == (Level.PATIENT, Level.STUDY)
    assert STUDY_ROOT.above(Level.STUDY) == ()


@pytest.mark.parametrize("value", ["", "1.2\\1.3"])
def test_c77_a_unique_key_above_holds_one_value(value: str) -> None:
    STUDY_ROOT.check_unique_keys(Level.SERIES, {STUDY_UID: "1.2"})
    with pytest.raises(Invalid, match="StudyInstanceUID"):
        STUDY_ROOT.check_unique_keys(Level.SERIES, {STUDY_UID: value})


@pytest.mark.parametrize("value", ["P*", "P?1", ""])
def test_c77_a_patient_id_above_is_no_pattern(value: str) -> None:
    with pytest.raises(Invalid, match="PatientID"):
        PATIENT_ROOT.check_unique_keys(Level.STUDY, {PATIENT_ID: value})


def test_the_level_asked_for_may_be_left_open() -> None:
    STUDY_ROOT.check_unique_keys(Level.STUDY, {})
    PATIENT_ROOT.check_unique_keys(Level.SERIES, {PATIENT_ID: "1", STUDY_UID: "1.2"})


def test_every_level_has_a_unique_key() -> None:
    assert set(UNIQUE_KEYS) == set(Level)
