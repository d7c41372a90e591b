"""A large catalogue, straight into the index: ``python -m bench.catalogue --data DIR --studies N``.

One patient, one study, one series and one instance each, with the columns that an object of
`study` would fill had it been sent; `encoded` gives that object, so that a peer can be loaded with
the same catalogue through its own door. There are no images behind the rows: the archive finds and
counts these studies like any other, and answers that their bytes are not there.

The product must not be running over DIR meanwhile. A second call goes on where the first ended.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2s
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.schema import Column

from bench import c_store
from bench.objects import CT_IMAGE, EXPLICIT_LITTLE, ROOT, Encoded, encode_elements
from pacsteward import migrations
from pacsteward.app import Place, first_steps, open_place_database
from pacsteward.archive.tables import INSTANCE, LOCATION, PATIENT, SERIES, STUDY
from pacsteward.base.db import Database, RowInsert
from pacsteward.dicom.names import normalise

_FAMILIES: Final = (
    "Abel Bauer Castro Dahl Egger Fontana Gruber Haas Ito Jensen Keller Lang Moreau Novak Olsen "
    "Petit Quist Roth Sato Turner Ulrich Vogel Weber Xu Young Zimmer"
)
_GIVENS: Final = "Ada Bruno Clara Dario Elsa Finn Gita Henk Ines Jan Kim Lea Mats Nora Otto Pia"
FAMILIES: Final = tuple(_FAMILIES.split())
GIVENS: Final = tuple(_GIVENS.split())
DESCRIPTIONS: Final = ("CT Thorax", "CT Abdomen", "CT Head", "CT Spine", "CT Pelvis")

FIRST_DAY: Final = date(1999, 1, 1)
A_DAY: Final = 100
"""So many studies lie on each day: a day holds as many in a small catalogue as in a large one."""

KEPT_FROM: Final = 100_000
BATCH: Final = 20_000
SIZE_BYTES: Final = 1_000


def patient_id(number: int) -> str:
    """Return the patient ID of study `number`, from 0 on."""
    return f"CAT{number:07d}"


def accession_number(number: int) -> str:
    """Return the accession number of study `number`."""
    return f"ACC{number:09d}"


def study_uid(number: int) -> str:
    """Return the Study Instance UID of study `number`."""
    return f"{ROOT}.9.{number + 1}"


def study_date(number: int) -> date:
    """Return the day of study `number`."""
    return FIRST_DAY + timedelta(days=number // A_DAY)


def patient_name(number: int) -> str:
    """Return the name of the patient of study `number`; no two share one."""
    family = FAMILIES[number % len(FAMILIES)]
    given = GIVENS[number // len(FAMILIES) % len(GIVENS)]
    return f"{family}^{given}^{number:06d}"


def study(number: int) -> dict[str, str]:
    """Return what a header of study `number` says of its patient and itself, by column."""
    return {
        "patient_id": patient_id(number),
        "patient_name": patient_name(number),
        "patient_birth_date": f"{1930 + number % 80}{number % 12 + 1:02d}{number % 28 + 1:02d}",
        "patient_sex": "FM"[number % 2],
        "study_instance_uid": study_uid(number),
        "study_date": f"{study_date(number):%Y%m%d}",
        "study_time": f"{number % 24:02d}{number % 60:02d}{number * 7 % 60:02d}",
        "accession_number": accession_number(number),
        "study_id": str(number),
        "study_description": DESCRIPTIONS[number % len(DESCRIPTIONS)],
        "referring_physician_name": f"House^{GIVENS[number % len(GIVENS)]}",
    }


def encoded(number: int) -> Encoded:
    """Return study `number` as one small object without pixels."""
    said = study(number)
    uid = said["study_instance_uid"]
    data_set = encode_elements(
        (0x0008, 0x0005, "CS", "ISO_IR 100"),
        (0x0008, 0x0016, "UI", CT_IMAGE),
        (0x0008, 0x0018, "UI", f"{uid}.1.1"),
        (0x0008, 0x0020, "DA", said["study_date"]),
        (0x0008, 0x0030, "TM", said["study_time"]),
        (0x0008, 0x0050, "SH", said["accession_number"]),
        (0x0008, 0x0060, "CS", "CT"),
        (0x0008, 0x0090, "PN", said["referring_physician_name"]),
        (0x0008, 0x1030, "LO", said["study_description"]),
        (0x0010, 0x0010, "PN", said["patient_name"]),
        (0x0010, 0x0020, "LO", said["patient_id"]),
        (0x0010, 0x0030, "DA", said["patient_birth_date"]),
        (0x0010, 0x0040, "CS", said["patient_sex"]),
        (0x0020, 0x000D, "UI", uid),
        (0x0020, 0x000E, "UI", f"{uid}.1"),
        (0x0020, 0x0010, "SH", said["study_id"]),
        (0x0020, 0x0011, "IS", "1"),
        (0x0020, 0x0013, "IS", "1"),
    )
    return Encoded(CT_IMAGE, f"{uid}.1.1", uid, f"{uid}.1", data_set)


def load(data: Path, studies: int, overrides: Mapping[str, Any] | None = None) -> int:
    """Fill the index of the folder `data` up to so many studies; return how many there are now."""
    place = Place.found(data, overrides=overrides)
    first_steps(place)
    database = open_place_database(place)
    try:
        with database.read() as connection:
            done = connection.execute(select(func.count()).select_from(STUDY)).scalar_one()
        numbers = iter(range(done, studies))
        with nullcontext() if database.is_sqlite else _without_indexes(database):
            while batch := list(islice(numbers, BATCH)):
                with database.write(durable=False) as connection:
                    _write(connection, batch)
        if not database.is_sqlite:
            # What autovacuum would do a minute later.
            with database.write() as connection:
                connection.exec_driver_sql("ANALYZE")
        with database.read() as connection:
            return connection.execute(select(func.count()).select_from(STUDY)).scalar_one()
    finally:
        database.close()


def send(port: int, called: str, studies: int) -> None:
    """Send a catalogue by C-STORE, object for object.

    Raises
    ------
    RuntimeError
        Not all of it was taken.
    """
    for start in range(0, studies, BATCH):
        batch = [encoded(number) for number in range(start, min(studies, start + BATCH))]
        if c_store.send(port, called, batch, 4).errors:
            raise RuntimeError("Not all of the catalogue was taken.")


def copied(data: Path, studies: int) -> None:
    """Put a catalogue into the new folder `data`; a large one is kept in build/bench."""
    if studies < KEPT_FROM:
        load(data, studies)
        return
    made_of = [Path(__file__), *sorted(Path(migrations.__file__).parent.rglob("*.py"))]
    digest = blake2s(b"".join(file.read_bytes() for file in made_of), digest_size=6).hexdigest()
    kept = Path("build/bench") / f"catalogue-{studies}-{digest}.db"
    if not kept.exists():
        print(f"  loading {studies} studies; takes some minutes, once", flush=True)
        with tempfile.TemporaryDirectory(prefix="bench-catalogue-") as folder:
            load(Path(folder), studies)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(folder) / "index.db", kept.with_suffix(".part"))
        kept.with_suffix(".part").rename(kept)
    data.mkdir(parents=True)
    shutil.copy(kept, data / "index.db")


_KEYS: Final = {
    PATIENT: ("patient_id", "issuer_of_patient_id", "only_study_instance_uid"),
    STUDY: ("study_instance_uid",),
    SERIES: ("series_instance_uid", "study_key"),
    INSTANCE: ("sop_instance_uid",),
    LOCATION: ("instance_key", "copy_number"),
}


def _write(connection: Connection, numbers: Sequence[int]) -> None:
    """Write rows of each table; keys are counted on from those that are there."""
    counted = (PATIENT, STUDY, SERIES, INSTANCE)
    first_keys = {f"{table.name}_key": _next_key(connection, table) for table in counted}
    now = datetime.now(UTC)
    rows = [
        _row(number, {name: first + index for name, first in first_keys.items()}, now)
        for index, number in enumerate(numbers)
    ]
    for table, key in _KEYS.items():
        columns = [column.name for column in table.columns if column.name in rows[0]]
        RowInsert(table, columns, key=key).execute(connection, rows)
    if connection.dialect.name == "postgresql":
        for table in counted:
            _count_on(connection, table)


@contextmanager
def _without_indexes(database: Database) -> Iterator[None]:
    """Take the indexes away while rows are loaded: PostgreSQL makes them anew much sooner."""
    belonging = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() "
        "AND tablename = ANY(%s) AND indexname NOT IN (SELECT conname FROM pg_constraint)"
    )
    with database.write() as connection:
        names = [table.name for table in _KEYS]
        indexes = connection.exec_driver_sql(belonging, (names,)).all()
        for name, _ in indexes:
            connection.exec_driver_sql(f'DROP INDEX "{name}"')
    try:
        yield
    finally:
        with database.write() as connection:
            for _, definition in indexes:
                connection.exec_driver_sql(definition.replace("%", "%%"))


def _row(number: int, keys: Mapping[str, int], now: datetime) -> dict[str, Any]:
    """Return the columns of all tables for study `number`; none is two things in two tables."""
    said = study(number)
    words = {
        f"{name}_words": normalise(said[name])
        for name in ("patient_name", "study_description", "referring_physician_name")
    }
    uid = said["study_instance_uid"]
    return {
        **said,
        **words,
        **keys,
        "series_instance_uid": f"{uid}.1",
        "sop_instance_uid": f"{uid}.1.1",
        "sop_class_uid": CT_IMAGE,
        "transfer_syntax_uid": EXPLICIT_LITTLE,
        "modality": "CT",
        "series_number": "1",
        "instance_number": "1",
        "instance_order": 1,
        "modalities_in_study": "\\CT\\",
        "sop_classes_in_study": f"\\{CT_IMAGE}\\",
        "number_of_study_related_series": 1,
        "number_of_study_related_instances": 1,
        "number_of_series_related_instances": 1,
        "size_bytes": SIZE_BYTES,
        "length": SIZE_BYTES,
        "checksum": number,
        "specific_character_set": "ISO_IR 100",
        "source_name": "BENCH",
        "version": 1,
        "created_at": now,
        "updated_at": now,
        "received_at": now,
        "completed_at": now,
        "container_kind": "object",
        "container": f"catalogue-{number}",
        "generation": 0,
        "offset": 0,
        "file_meta": b"",
    }


def _next_key(connection: Connection, table: Table) -> int:
    highest = connection.execute(select(func.max(_key(table)))).scalar()
    return int(highest or 0) + 1


def _count_on(connection: Connection, table: Table) -> None:
    """Have PostgreSQL's sequence go on behind the keys that were given by hand."""
    key = _key(table)
    sequence = func.pg_get_serial_sequence(table.name, key.name)
    connection.execute(select(func.setval(sequence, select(func.max(key)).scalar_subquery())))


def _key(table: Table) -> Column[int]:
    return table.c[f"{table.name}_key"]


def main() -> None:
    """Load a catalogue and say how long it took."""
    parser = argparse.ArgumentParser(prog="bench.catalogue", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--studies", type=int, required=True, help="how many there are to be")
    chosen = parser.parse_args()
    began = time.monotonic()
    count = load(chosen.data, chosen.studies)
    print(f"{count} studies, after {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
