"""Patients with the names that break software.

Every hospital has a Müller, an O'Brien, a 山田 and somebody whose name fills the whole field; and
every emergency department has somebody who comes without a name.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True, slots=True)
class Patient:
    """A person as a modality knows them; attributes as DICOM writes them."""

    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    specific_character_set: str


_HARD: tuple[tuple[str, str, str], ...] = (
    # Patient's Name, Patient's Sex, the character set that such a site's devices use.
    ("Müller^Jürgen^^Dr.", "M", "ISO_IR 100"),
    ("Yamada^Tarou=山田^太郎=やまだ^たろう", "M", "ISO_IR 192"),
    ("O'Brien^Siobhán", "F", "ISO_IR 100"),
    ("Hong^Gildong=洪^吉洞=홍^길동", "M", "ISO_IR 192"),
    ("Wang^XiaoDong=王^小东", "M", "GB18030"),
    ("Люксембург^Анна", "F", "ISO_IR 144"),
    ("Διονυσίου^Ελένη", "F", "ISO_IR 126"),
    ("قباني^لنزار", "M", "ISO_IR 127"),
    ("Wolfeschlegelsteinhausenbergerdorff^Hubert Blaine Maximilian Ott", "M", ""),
    ("", "O", ""),
    ("Żółkiewska-Łęcka^Grażyna^^Prof.", "F", "ISO_IR 101"),
    ("van der Berg^Anna Maria^de", "F", ""),
    ("Nguyễn^Thị Hương", "F", "ISO_IR 192"),
    ("Sørensen^Bjørn", "M", "ISO_IR 100"),
    ("Smith^John", "M", ""),
    ("Smith^Jon", "M", ""),
)


def patient(seed: int, number: int) -> Patient:
    """Return the `number`-th patient of the hospital of `seed`.

    The hard names come round first, so that even a small hospital has them; the same number is
    always the same person.
    """
    chance = random.Random(f"{seed}/patient/{number}")  # noqa: S311 — a pretend person
    name, sex, character_set = _HARD[number % len(_HARD)]
    born = date(1930, 1, 1) + timedelta(days=chance.randrange(33_000))
    round_number = number // len(_HARD)
    if round_number and name:
        # The second Müller is another person, not another study of the first.
        family, _, rest = name.partition("^")
        name = f"{family[:40]}^{rest.split('=')[0][:18]} {round_number}" if rest else family
    return Patient(
        patient_id=f"PH{seed % 1000:03d}{number:05d}",
        patient_name=name,
        patient_birth_date=born.strftime("%Y%m%d"),
        patient_sex=sex,
        specific_character_set=character_set,
    )
