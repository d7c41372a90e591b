"""The pretend hospital: always the same one, with everything that breaks software."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest

from pacsteward.hospital import phantoms
from pacsteward.hospital.examinations import Order, objects, orders
from pacsteward.hospital.modality import encode
from pacsteward.hospital.patients import patient

DAY = datetime(2026, 3, 2)
MORNING = list(orders(7, 20, DAY))


def test_the_same_seed_is_the_same_hospital() -> None:
    assert list(orders(7, 20, DAY)) == MORNING
    assert list(orders(8, 20, DAY)) != MORNING


def test_hard_names_come_first() -> None:
    names = [patient(7, number).patient_name for number in range(16)]
    assert any("Müller" in name for name in names)
    assert any("山田^太郎" in name for name in names)
    assert any("O'Brien" in name for name in names)
    assert max(len(name.split("=")[0]) for name in names) == 64
    assert "" in names


def test_all_four_modalities_and_patients_with_more_than_one_study() -> None:
    assert {order.modality for order in MORNING} == {"CT", "MR", "CR", "US"}
    assert len({order.patient.patient_id for order in MORNING}) < len(MORNING)


def test_uids_are_valid_and_each_is_borne_once() -> None:
    uids = [data.SOPInstanceUID for order in MORNING[:4] for data in objects(order)]
    assert len(uids) == len(set(uids))
    assert all(len(uid) <= 64 and uid.is_valid for uid in uids)


@pytest.mark.parametrize("order", MORNING[:16], ids=lambda order: order.patient.patient_id)
def test_every_name_survives_its_character_set(order: Order) -> None:
    data = next(iter(objects(order)))
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    buffer.seek(0)
    read = pydicom.dcmread(buffer)
    assert str(read.PatientName) == order.patient.patient_name
    assert encode(data).endswith(bytes(data.PixelData))


def test_a_phantom_has_a_left_and_a_right() -> None:
    middle = phantoms.ct_head(24, 128, seed=1)[12]
    patients_right, patients_left = middle[:, :64], middle[:, 64:]
    bleeding = (60, 80)
    count = [
        np.count_nonzero((half > bleeding[0]) & (half < bleeding[1]))
        for half in (patients_right, patients_left)
    ]
    assert count[1] > count[0] + 50


def test_a_film_beats() -> None:
    film = phantoms.us_heart(10, 100, 120, seed=1)
    dark = [np.count_nonzero(frame[20:80, 40:80] < 10) for frame in film]
    assert max(dark) > 1.2 * min(dark)
