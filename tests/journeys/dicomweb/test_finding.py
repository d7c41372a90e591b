"""QIDO-RS: studies, series and instances are found, with what lists and viewers show of them.

Numbers C03 to C28 are those of the conformance list, F041 to F049 those of the feature list.
"""

from __future__ import annotations

import pytest

from tests.journeys.dicomweb.conftest import Collection
from tests.support.dicomweb import SERVICE


def test_c07_a_study_carries_what_lists_show(site: Collection) -> None:
    (study,) = site.client.search_for_studies(search_filters={"PatientID": "P-1"})
    wanted = {
        *("0020000D", "00080020", "00080030", "00080050", "00100020", "00100010", "00100030"),
        *("00201208", "00081030", "00080061", "00080090", "00081190", "00080056", "00201206"),
    }
    assert wanted <= set(study)
    # C08, C23, C28
    assert study["00201208"] == {"vr": "IS", "Value": [6]}
    assert study["00100010"]["Value"] == [{"Alphabetic": "Ñandú^José", "Ideographic": "山田^太郎"}]
    assert study["00080056"]["Value"] == ["ONLINE"]


def test_c25_addresses_are_those_that_the_client_used(site: Collection) -> None:
    (study,) = site.http.get(f"{SERVICE}/studies", params={"PatientID": "P-1"}).json()
    assert study["00081190"]["Value"] == [
        f"{site.product.url}{SERVICE}/studies/{study['0020000D']['Value'][0]}"
    ]
    assert site.http.get(study["00081190"]["Value"][0]).status_code == 200


@pytest.mark.parametrize("word", ["*and*", "nandu*", "ÑANDÚ^JOSÉ", "*TARO*", "山田*"])
def test_c03_names_match_with_wildcards_whatever_their_letters(site: Collection, word: str) -> None:
    found = site.client.search_for_studies(search_filters={"PatientName": word})
    is_wanted = any(study["00100020"].get("Value") == ["P-1"] for study in found)
    assert is_wanted is (word != "*TARO*")


def test_c09_modalities_can_be_asked_for_and_pages_are_right(site: Collection) -> None:
    every = site.client.search_for_studies(search_filters={"ModalitiesInStudy": "CT"})
    assert every
    assert all("CT" in study["00080061"]["Value"] for study in every)
    walked = [
        study["0020000D"]["Value"][0]
        for offset in range(len(every))
        for study in site.client.search_for_studies(
            search_filters={"ModalitiesInStudy": "CT"}, limit=1, offset=offset
        )
    ]
    assert walked == [study["0020000D"]["Value"][0] for study in every]


def test_c19_nothing_found_is_204_without_a_body(site: Collection) -> None:
    answer = site.http.get(f"{SERVICE}/studies", params={"PatientID": "nobody"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert site.client.search_for_studies(search_filters={"PatientID": "nobody"}) == []


def test_c20_a_cut_answer_says_how_many_there_are_besides(site: Collection) -> None:
    answer = site.http.get(f"{SERVICE}/studies", params={"limit": 1})
    whole = site.http.get(f"{SERVICE}/studies")
    left = len(whole.json()) - 1
    assert answer.status_code == 200
    assert f"There are {left} additional results that can be requested" in answer.headers["warning"]
    assert "warning" not in whole.headers


def test_c21_walking_the_pages_ends_and_meets_every_study_once(site: Collection) -> None:
    every = site.client.search_for_studies()
    walked = site.client.search_for_studies(limit=2, get_remaining=True)
    assert len(walked) == len(every)
    assert len({study["0020000D"]["Value"][0] for study in walked}) == len(every)


def test_c14_series_of_a_study_carry_what_ohif_shows(site: Collection) -> None:
    uid = site.files["small-1-1"].StudyInstanceUID
    series = site.client.search_for_series(uid, fields=["0008103E", "00080021"])
    assert len(series) == 2
    wanted = ("0020000D", "0020000E", "00080060", "00200011", "0008103E", "00080021", "00201209")
    assert all(set(wanted) <= set(one) for one in series)
    assert series[0]["00201209"]["Value"] == [3]
    # C17
    (one,) = site.client.search_for_series(
        uid, search_filters={"SeriesInstanceUID": site.files["small-2-1"].SeriesInstanceUID}
    )
    assert one["0020000E"]["Value"] == [site.files["small-2-1"].SeriesInstanceUID]


def test_c18_one_instance_of_a_series(site: Collection) -> None:
    data = site.files["small-1-1"]
    (one,) = site.client.search_for_instances(
        data.StudyInstanceUID, data.SeriesInstanceUID, limit=1, fields=["00080018"]
    )
    assert one["00080018"]["Value"] == [data.SOPInstanceUID]


def test_f041_series_and_instances_are_found_across_studies(site: Collection) -> None:
    series = site.http.get(f"{SERVICE}/series", params={"PatientID": "P-1"}).json()
    assert len(series) == 2
    assert all(one["00100020"]["Value"] == ["P-1"] for one in series)
    instances = site.http.get(f"{SERVICE}/instances", params={"00100020": "P-1"}).json()
    assert len(instances) == 6
    assert all({"00080060", "00081030", "00080016"} <= set(one) for one in instances)


def test_f044_all_fields_and_c27_a_sequence_are_returned(site: Collection) -> None:
    uid = site.files["CT_small.dcm"].StudyInstanceUID
    (study,) = site.http.get(
        f"{SERVICE}/studies", params={"StudyInstanceUID": uid, "includefield": "all"}
    ).json()
    assert {"00101010", "00200010", "00080062"} <= set(study)


def test_f046_the_order_can_be_chosen(site: Collection) -> None:
    def ids(order: str) -> list[str]:
        found = site.http.get(f"{SERVICE}/studies", params={"orderby": order}).json()
        return [(study["00100020"].get("Value") or [""])[0] for study in found]

    assert ids("PatientID") == sorted(ids("PatientID"))
    assert ids("-PatientID") == sorted(ids("PatientID"), reverse=True)


def test_f049_names_are_found_by_likeness_when_asked_for(site: Collection) -> None:
    asked = {"PatientName": "nandoo jose", "fuzzymatching": "true"}
    assert site.http.get(f"{SERVICE}/studies", params=asked).status_code == 200
    asked["fuzzymatching"] = "false"
    assert site.http.get(f"{SERVICE}/studies", params=asked).status_code == 204


def test_unknown_parameters_are_told_in_a_warning(site: Collection) -> None:
    answer = site.http.get(f"{SERVICE}/studies", params={"colour": "blue", "limit": "1"})
    assert answer.status_code == 200
    assert "colour" in answer.headers["warning"]


@pytest.mark.parametrize("query", ["limit=x", "StudyDate=tomorrow", "StudyInstanceUID=abc"])
def test_values_that_cannot_be_meant_are_400_with_words(site: Collection, query: str) -> None:
    answer = site.http.get(f"{SERVICE}/studies?{query}")
    assert answer.status_code == 400
    assert answer.json()["remedy"]
