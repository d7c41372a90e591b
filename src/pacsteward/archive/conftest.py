"""What the tests of the archive share: rows of an index, objects, a keeper's landing log."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import Connection, Table, insert, update

from pacsteward.archive import tables, words_index  # noqa: F401  (they declare the tables)
from pacsteward.archive.landing import Landing
from pacsteward.archive.model import Origin
from pacsteward.archive.record import Description, checksum_of
from pacsteward.base.db import Database
from pacsteward.base.events import tables as _facts  # noqa: F401
from pacsteward.dicom.names import normalise
from pacsteward.dicom.part10 import FileMeta, encode_part10_head
from pacsteward.security import tables as _security  # noqa: F401

NOW = datetime(2026, 1, 1, 7, 0, tzinfo=UTC)


class Index:
    """Writes rows of the index directly, for tests of the read side alone."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._patients: dict[tuple[str, str], int] = {}

    def study(self, uid: str, **values: Any) -> int:
        """Add a study with its patient; return its key."""
        identity = (values.get("patient_id", ""), values.get("issuer_of_patient_id", ""))
        with self.database.write(durable=False) as connection:
            if identity not in self._patients:
                own = {key: value for key, value in values.items() if key in tables.PATIENT.c}
                self._patients[identity] = self._insert(connection, tables.PATIENT, own)
            row = {
                "study_instance_uid": uid,
                "patient_key": self._patients[identity],
                "updated_at": NOW,
                "number_of_study_related_instances": 1,
                "number_of_study_related_series": 1,
                **values,
            }
            return self._insert(connection, tables.STUDY, row)

    def series(self, uid: str, study_key: int, **values: Any) -> int:
        """Add a series to a study; return its key."""
        row = {
            "series_instance_uid": uid,
            "study_key": study_key,
            "updated_at": NOW,
            "number_of_series_related_instances": 1,
            **values,
        }
        with self.database.write(durable=False) as connection:
            return self._insert(connection, tables.SERIES, row)

    def instance(self, uid: str, series_key: int, **values: Any) -> int:
        """Add an instance to a series; return its key."""
        row = {
            "sop_instance_uid": uid,
            "series_key": series_key,
            "size_bytes": 0,
            "checksum": 0,
            "received_at": NOW,
            **values,
        }
        with self.database.write(durable=False) as connection:
            return self._insert(connection, tables.INSTANCE, row)

    def _insert(self, connection: Connection, table: Table, values: dict[str, Any]) -> int:
        for column in table.c:
            plain = column.name.removesuffix("_words")
            if column.name.endswith("_words") and plain in values:
                values = {**values, column.name: normalise(values[plain])}
        if "created_at" in table.c:
            values = {**values, "created_at": NOW}
        key = connection.execute(insert(table).values(**values)).inserted_primary_key
        assert key is not None
        return int(key[0])


@pytest.fixture
def index(database: Database) -> Index:
    """Give a writer of index rows."""
    return Index(database)


class Vault:
    """Puts objects where the archive keeps them, with their rows, without the write side."""

    def __init__(self, index: Index, data_folder: Path) -> None:
        self.index = index
        self.database = index.database
        self.data_folder = data_folder
        self._landing = Landing(data_folder / "landing", segment_bytes=64 << 20)
        self._landing.open(0)
        self._studies: dict[str, int] = {}
        self._series: dict[str, int] = {}

    def keep(self, dataset: Dataset, *, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> str:
        """Store a data set as it would be received; return its SOP Instance UID."""
        buffer = BytesIO()
        writer = DicomIO(buffer)
        writer.is_little_endian = UID(transfer_syntax_uid).is_little_endian
        writer.is_implicit_VR = UID(transfer_syntax_uid).is_implicit_VR
        write_dataset(writer, dataset)
        return self.keep_bytes(dataset, buffer.getvalue(), transfer_syntax_uid)

    def keep_bytes(self, dataset: Dataset, data: bytes, transfer_syntax_uid: str) -> str:
        """Store bytes under the UIDs of a data set."""
        study_uid, series_uid = dataset.StudyInstanceUID, dataset.SeriesInstanceUID
        file_meta = encode_part10_head(
            FileMeta(dataset.SOPClassUID, dataset.SOPInstanceUID, transfer_syntax_uid)
        )[132:]
        landed = self._landing.append(
            Description(
                received_at=NOW,
                origin=Origin("import", "test"),
                sop_class_uid=dataset.SOPClassUID,
                sop_instance_uid=dataset.SOPInstanceUID,
                study_instance_uid=study_uid,
                series_instance_uid=series_uid,
                transfer_syntax_uid=transfer_syntax_uid,
            ),
            file_meta,
            [data],
            size_bytes=len(data),
            checksum=checksum_of(data),
        )
        self._landing.sync()
        if study_uid not in self._studies:
            self._studies[study_uid] = self.index.study(
                study_uid,
                patient_id=str(dataset.get("PatientID", "")),
                patient_name=str(dataset.get("PatientName", "")),
            )
        if series_uid not in self._series:
            self._series[series_uid] = self.index.series(
                series_uid, self._studies[study_uid], modality=dataset.get("Modality", "")
            )
        number = dataset.get("InstanceNumber")
        key = self.index.instance(
            dataset.SOPInstanceUID,
            self._series[series_uid],
            sop_class_uid=dataset.SOPClassUID,
            transfer_syntax_uid=transfer_syntax_uid,
            instance_number="" if number is None else str(number),
            instance_order=2147483647 if number is None else int(number),
            size_bytes=len(data),
            checksum=landed.checksum,
        )
        with self.database.write(durable=False) as connection:
            connection.execute(
                insert(tables.LOCATION).values(
                    instance_key=key,
                    copy_number=0,
                    container_kind=landed.location.container_kind,
                    container=landed.location.container,
                    generation=landed.location.generation,
                    offset=landed.location.offset,
                    length=landed.location.length,
                    file_meta=file_meta,
                )
            )
            connection.execute(
                update(tables.SERIES)
                .where(tables.SERIES.c.series_key == self._series[series_uid])
                .values(version=tables.SERIES.c.version + 1)
            )
        return str(dataset.SOPInstanceUID)


@pytest.fixture
def vault(index: Index, tmp_path: Path) -> Vault:
    """Give a data folder that objects can be put into."""
    return Vault(index, tmp_path / "data")
