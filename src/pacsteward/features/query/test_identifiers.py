"""Promises of identifiers.py: what is asked of the archive, and what an answer holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydicom import Dataset, Sequence, dcmread

from pacsteward.archive import Match
from pacsteward.base.errors import Invalid
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.identifier import (
    Identifier,
    Key,
    Typed,
    Value,
    read_identifier,
    write_identifier,
)
from pacsteward.dicom.information_models import PATIENT_ROOT, STUDY_ROOT, Model
from pacsteward.dicom.matching import Query, SequenceMatch, Single, Wildcard
from pacsteward.features.query.identifiers import (
    AnswerWriter,
    _elements,
    answer_values,
    query_from,
    restricts_by_private,
)

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"

PATIENT_NAME, PATIENT_ID, KVP = 0x00100010, 0x00100020, 0x00180060
STUDY_UID, SERIES_UID, SOP_UID = 0x0020000D, 0x0020000E, 0x00080018
REQUEST_ATTRIBUTES, STEP_ID, PROCEDURE_ID = 0x00400275, 0x00400009, 0x00401001
CREATOR, PRIVATE = 0x00090010, 0x00091001
SAMPLES = os.environ.get("PACSTEWARD_TEST_DATA", "")
ASKED_BY_WORKLISTS = (
    *(PATIENT_NAME, PATIENT_ID, STUDY_UID, SERIES_UID, SOP_UID, 0x00100030, 0x00100040),
    *(0x00080020, 0x00080030, 0x00080050, 0x00080060, 0x00080080, 0x00080090, 0x00081030),
    *(0x0008103E, 0x00200010, 0x00200011, 0x00200013, 0x00280008, 0x00280010, 0x00280011),
)


def asked(level: str, keys: dict[int, Key], character_set: str = "") -> Identifier:
    private = tuple(tag for tag in keys if tag & 0x10000)
    return Identifier(level, keys, character_set, private)


def question(
    level: str, keys: dict[int, Key], model: Model = STUDY_ROOT, *, is_relational: bool = False
) -> Query:
    return query_from(
        asked(level, keys), model, is_relational=is_relational, combined_datetime=False, fuzzy=False
    )


def answer(
    match: Match, keys: dict[int, Key], character_set: str = ""
) -> tuple[dict[int, Value], str]:
    return answer_values(
        match, asked("IMAGE", keys, character_set), Level.IMAGE, retrieve_ae_title="HERE"
    )


def test_what_holds_a_value_is_matched_and_everything_asked_for_is_returned() -> None:
    query = question("STUDY", {PATIENT_NAME: "Doe*", PATIENT_ID: "", STUDY_UID: "1.2"})
    assert query.criteria == {PATIENT_NAME: Wildcard("Doe*"), STUDY_UID: Single("1.2")}
    assert {PATIENT_NAME, PATIENT_ID, STUDY_UID} <= set(query.returns)


def test_what_is_said_of_the_question_itself_is_never_matched() -> None:
    keys: dict[int, Key] = {STUDY_UID: "", 0x00080054: "OTHER", 0x00080201: "+0100"}
    assert question("STUDY", keys).criteria == {}


@pytest.mark.parametrize(
    ("model", "level", "keys"),
    [
        (STUDY_ROOT, "SERIES", {}),
        (STUDY_ROOT, "SERIES", {STUDY_UID: ""}),
        (STUDY_ROOT, "SERIES", {STUDY_UID: "1.2\\1.3"}),
        (STUDY_ROOT, "IMAGE", {STUDY_UID: "1.2"}),
        (PATIENT_ROOT, "STUDY", {}),
        (PATIENT_ROOT, "STUDY", {PATIENT_ID: "P*"}),
        (PATIENT_ROOT, "STUDY", {PATIENT_ID: "P?"}),
    ],
)
def test_c77_a_hierarchical_question_names_every_level_above(
    model: Model, level: str, keys: dict[int, Key]
) -> None:
    with pytest.raises(Invalid):
        question(level, keys, model)
    question(level, keys, model, is_relational=True)


def test_the_model_says_which_levels_there_are() -> None:
    with pytest.raises(Invalid):
        question("PATIENT", {PATIENT_ID: "1"})
    assert question("PATIENT", {PATIENT_ID: "1"}, PATIENT_ROOT).level is Level.PATIENT


def test_the_item_of_a_sequence_is_a_question_of_its_own() -> None:
    query = question("STUDY", {STUDY_UID: "", REQUEST_ATTRIBUTES: ({STEP_ID: "7"},)})
    assert query.criteria == {REQUEST_ATTRIBUTES: SequenceMatch({STEP_ID: Single("7")})}
    for empty in ((), ({},), ({STEP_ID: ""},)):
        assert question("STUDY", {STUDY_UID: "", REQUEST_ATTRIBUTES: empty}).criteria == {}


def test_private_keys_are_returned_and_never_matched() -> None:
    keys: dict[int, Key] = {STUDY_UID: "", CREATOR: "ACME", PRIVATE: "x"}
    query = question("STUDY", keys)
    assert query.criteria == {}
    assert {CREATOR, PRIVATE} <= set(query.returns)
    assert restricts_by_private(asked("STUDY", keys))
    assert not restricts_by_private(asked("STUDY", {CREATOR: "ACME", PRIVATE: ""}))


def test_an_answer_holds_what_was_asked_for_and_nothing_else() -> None:
    match = Match({SOP_UID: "1.2.3", PATIENT_NAME: "Doe", STUDY_UID: "1.2", KVP: "120"})
    values, _ = answer(match, {PATIENT_NAME: "", PATIENT_ID: ""})
    assert values == {
        SOP_UID: "1.2.3",
        PATIENT_NAME: "Doe",
        PATIENT_ID: "",
        0x00080052: "IMAGE",
        0x00080054: "HERE",
        0x00080056: "ONLINE",
    }


@pytest.mark.parametrize(
    ("wanted", "of_the_object", "chosen"),
    [
        ("ISO_IR 100", "ISO_IR 192", "ISO_IR 100"),
        ("ISO_IR 126", "ISO_IR 100", "ISO_IR 100"),
        ("", "ISO_IR 192", "ISO_IR 192"),
        ("", "", "ISO_IR 100"),
        ("NONSENSE", "ISO_IR 192", "ISO_IR 100"),
    ],
)
def test_c82_the_character_set_carries_every_value(
    wanted: str, of_the_object: str, chosen: str
) -> None:
    match = Match({PATIENT_NAME: "Müller", 0x00080005: of_the_object})
    values, character_set = answer(match, {PATIENT_NAME: ""}, wanted)
    assert character_set == chosen
    write_identifier(values, character_set=character_set, transfer_syntax_uid=EXPLICIT)


def test_c82_texts_inside_sequences_and_private_attributes_count_too() -> None:
    item = Dataset()
    item.CodeMeaning = "山田"
    more = Dataset()
    more.add_new(CREATOR, "LO", "ACME")
    more.add_new(PRIVATE, "SQ", [item])
    _, character_set = answer(Match({}, more), {CREATOR: "", PRIVATE: ""}, "ISO_IR 100")
    assert character_set == "ISO_IR 192"


def test_f009_values_keep_the_representation_that_their_object_gives_them() -> None:
    more = Dataset()
    more.add_new(CREATOR, "LO", "ACME")
    more.add_new(PRIVATE, "FD", [1.5, 2.0])
    more.add_new(PRIVATE + 1, "OB", b"\1\2\3")
    more.add_new(PRIVATE + 2, "AT", 0x00100010)
    more.add_new(PRIVATE + 3, "PN", "Doe^Jane")
    more.add_new(PRIVATE + 4, "DS", "1.50")
    more.add_new(PRIVATE + 5, "US", None)
    keys: dict[int, Key] = {CREATOR: "ACME"} | {PRIVATE + n: "" for n in range(6)}
    values, _ = answer(Match({}, more), keys)
    assert [values[PRIVATE + n] for n in range(6)] == [
        Typed("FD", "1.5\\2.0"),
        Typed("OB", b"\1\2\3"),
        Typed("AT", "00100010"),
        Typed("PN", "Doe^Jane"),
        Typed("DS", "1.50"),
        Typed("US", ""),
    ]


def test_f009_the_block_of_another_maker_is_left_out() -> None:
    more = Dataset()
    more.add_new(CREATOR, "LO", "ACME")
    more.add_new(PRIVATE, "LO", "theirs")
    more.add_new(0x000B0010, "LO", "OURS")
    more.add_new(0x000B1001, "LO", "ours")
    keys: dict[int, Key] = {CREATOR: "OTHER", PRIVATE: "", 0x000B0010: "OURS", 0x000B1001: ""}
    values, _ = answer(Match({}, more), keys)
    assert (values[CREATOR], values[PRIVATE]) == ("OTHER", "")
    assert values[0x000B1001] == Typed("LO", "ours")


def test_a_sequence_comes_with_what_its_item_of_keys_names() -> None:
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "7", "R"
    more = Dataset()
    more.RequestAttributesSequence = Sequence([request])
    match = Match({}, more)
    one, _ = answer(match, {REQUEST_ATTRIBUTES: ({STEP_ID: "", KVP: ""},)})
    assert one[REQUEST_ATTRIBUTES] == Typed("SQ", [{STEP_ID: Typed("SH", "7"), KVP: ""}])
    everything, _ = answer(match, {REQUEST_ATTRIBUTES: ()})
    assert everything[REQUEST_ATTRIBUTES] == Typed(
        "SQ", [{STEP_ID: Typed("SH", "7"), PROCEDURE_ID: Typed("SH", "R")}]
    )


def test_an_element_that_cannot_be_read_does_not_take_the_others_along() -> None:
    class Damaged(Dataset):
        def __getitem__(self, key: object) -> object:  # type: ignore[override]
            if int(key) == KVP:  # type: ignore[call-overload]
                raise NotImplementedError("a VR of nobody's")
            return super().__getitem__(key)  # type: ignore[index]

    more = Damaged()
    more.add_new(KVP, "DS", "120")
    more.add_new(0x00180050, "DS", "5")
    values, _ = answer(Match({}, more), {KVP: "", 0x00180050: ""})
    assert (values[KVP], values[0x00180050]) == ("", Typed("DS", "5"))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_a_private_answer_can_be_written_and_read_in_every_syntax(syntax: str) -> None:
    more = Dataset()
    more.add_new(CREATOR, "LO", "ACME")
    more.add_new(PRIVATE, "OW", b"\1\2\3\4")
    keys: dict[int, Key] = {CREATOR: "ACME", PRIVATE: "", PRIVATE + 1: ({PRIVATE: ""},)}
    values, character_set = answer(Match({}, more), keys)
    written = write_identifier(values, character_set=character_set, transfer_syntax_uid=syntax)
    read = read_identifier(written, syntax)
    assert read.keys[CREATOR] == "ACME"
    assert (b"\2\1\4\3" if syntax == BIG else b"\1\2\3\4") in written


BLURRED = Dataset()
BLURRED.add_new(KVP, "DS", "120")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("character_set", ["", "ISO_IR 192", "ISO_IR 100", "no such set"])
@pytest.mark.parametrize(
    "match",
    [
        Match({PATIENT_NAME: "Doe^John", PATIENT_ID: "17", STUDY_UID: "1.2.3", SOP_UID: "1.2.4"}),
        Match({PATIENT_NAME: "Müller^Jörg", PATIENT_ID: "17", 0x00080005: "ISO_IR 100"}),
        Match({PATIENT_NAME: "山田^太郎", PATIENT_ID: "17", 0x00080005: "ISO_IR 192"}),
        Match({PATIENT_NAME: "Doe", PATIENT_ID: "", 0x00080005: "ISO 2022 IR 6\\ISO 2022 IR 87"}),
        Match({PATIENT_NAME: "Doe", 0x00080005: "nobody knows it", 0x00280010: "512"}),
        Match({PATIENT_NAME: "x" * 70_000}),
        Match({PATIENT_NAME: "Doe"}, BLURRED),
        Match({}),
    ],
)
@pytest.mark.parametrize("creator", ["ACME", "ÄCME"])
def test_an_answer_is_the_same_whichever_way_it_was_written(
    match: Match, character_set: str, syntax: str, creator: str
) -> None:
    keys: dict[int, Key] = {
        **dict.fromkeys((PATIENT_NAME, PATIENT_ID, STUDY_UID, KVP, 0x00280010, PRIVATE), ""),
        **{CREATOR: creator, REQUEST_ATTRIBUTES: ({STEP_ID: ""},), 0x00080005: character_set},
    }
    identifier = asked("IMAGE", keys, character_set)
    writer = AnswerWriter(
        identifier, Level.IMAGE, retrieve_ae_title="HERE", transfer_syntax_uid=syntax
    )
    values, chosen = answer(match, keys, character_set)
    expected = write_identifier(values, character_set=chosen, transfer_syntax_uid=syntax)
    assert writer.write(match) == expected


@pytest.mark.shared_data
@pytest.mark.skipif(not SAMPLES, reason="PACSTEWARD_TEST_DATA names no folder of samples")
@pytest.mark.filterwarnings("ignore")
def test_answers_about_real_objects_are_the_same_whichever_way_they_were_written() -> None:
    keys: dict[int, Key] = dict.fromkeys(ASKED_BY_WORKLISTS, "")
    compared = 0
    for path in sorted(Path(SAMPLES).rglob("*.dcm")):
        texts = {
            tag: str(value.value)
            for tag, value in _elements(dcmread(path, force=True, stop_before_pixels=True))
            if isinstance(value, Typed) and isinstance(value.value, str)
        }
        match = Match({tag: texts.get(tag, "") for tag in (*keys, 0x00080005)})
        for syntax in (EXPLICIT, IMPLICIT, BIG):
            writer = AnswerWriter(
                asked("IMAGE", keys),
                Level.IMAGE,
                retrieve_ae_title="HERE",
                transfer_syntax_uid=syntax,
            )
            values, chosen = answer(match, keys)
            assert writer.write(match) == write_identifier(
                values, character_set=chosen, transfer_syntax_uid=syntax
            ), path
            compared += 1
    assert compared > 0
