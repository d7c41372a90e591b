"""Promises of answer_form.py: it writes what `write_identifier` writes, or nothing."""

from __future__ import annotations

import pytest

from pacsteward.base.errors import Invalid
from pacsteward.dicom.answer_form import AnswerForm
from pacsteward.dicom.identifier import Typed, Value, write_identifier
from pacsteward.dicom.tags import SPECIFIC_CHARACTER_SET

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

PATIENT_NAME, PATIENT_ID, STUDY_UID = 0x00100010, 0x00100020, 0x0020000D
STUDY_DESCRIPTION, ROWS, FRAME_POINTER, TEXT_VALUE = 0x00081030, 0x00280010, 0x00280009, 0x0040A160
LEVEL, REQUEST_ATTRIBUTES, BEFORE_THE_CHARACTER_SET = 0x00080052, 0x00400275, 0x00080001

FIXED: dict[int, Value] = {LEVEL: "STUDY", REQUEST_ATTRIBUTES: Typed("SQ", ())}
TEXTS = (
    *(PATIENT_NAME, PATIENT_ID, STUDY_UID, STUDY_DESCRIPTION, ROWS, FRAME_POINTER, TEXT_VALUE),
    BEFORE_THE_CHARACTER_SET,
)


@pytest.mark.parametrize("character_set", ["", "ISO_IR 192", "ISO 2022 IR 6\\ISO 2022 IR 87"])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize(
    "texts",
    [
        {},
        {PATIENT_NAME: "Doe^J", PATIENT_ID: "1234", STUDY_UID: "1.2.3", STUDY_DESCRIPTION: ""},
        {PATIENT_NAME: "Doe^Jo", PATIENT_ID: "12345", STUDY_UID: "1.2.34"},
        {ROWS: "512", FRAME_POINTER: "00181063\\00181065", BEFORE_THE_CHARACTER_SET: "40"},
        {ROWS: "many", FRAME_POINTER: "none"},
        {TEXT_VALUE: "x" * 70_001},
        {SPECIFIC_CHARACTER_SET: "ISO_IR 100", PATIENT_ID: "A\\B"},
        {0x00100030: "20010101", PATIENT_ID: "what the form does not have is left out"},
    ],
)
def test_an_answer_is_what_the_identifiers_own_writer_makes(
    texts: dict[int, str], syntax: str, character_set: str
) -> None:
    form = AnswerForm(FIXED, TEXTS, syntax)
    values = {**dict.fromkeys(TEXTS, ""), **FIXED}
    values |= {tag: text for tag, text in texts.items() if tag in TEXTS}
    expected = write_identifier(values, character_set=character_set, transfer_syntax_uid=syntax)
    assert form.filled(texts, character_set) == expected


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_what_is_not_plain_is_left_to_the_identifiers_own_writer(syntax: str) -> None:
    form = AnswerForm(FIXED, TEXTS, syntax)
    assert form.filled({PATIENT_NAME: "Müller"}, "ISO_IR 100") is None
    too_long = form.filled({PATIENT_NAME: "x" * 70_000}, "")
    assert (too_long is None) == (syntax != IMPLICIT)


def test_what_cannot_be_written_is_refused_when_the_form_is_made() -> None:
    with pytest.raises(Invalid):
        AnswerForm(FIXED, TEXTS, DEFLATED)
