r"""The index: one row each for patient, study, series and instance, and where its bytes are.

Columns are DICOM keywords in snake case, so that an administrator can read the index with
``sqlite3`` or ``psql``. What the standards lack is named in the glossary. A study carries a copy
of its patient's attributes as they were sent, so that a query at study level reads one table and
never shows a study under a name that its own objects do not bear.

Attributes with several values are kept as the standard writes them, with backslashes.
``modalities_in_study`` and ``sop_classes_in_study`` begin and end with one (``\CT\SR\``), so
that one value can be matched with ``LIKE '%\CT\%'``. Columns that end in ``_words`` hold
``names.normalise`` of the column without that ending: what is matched without regard to case and
accents. `words_index.py` adds an index for words in the middle of them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)

from pacsteward.base.db import METADATA, Timestamp

Key = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column that is literally INTEGER."""


ByteText = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is compared byte by byte on both databases: the same order of pages on either, and a
prefix search ("DOE^J*") is a range that an ordinary index serves."""

UidText = String(64).with_variant(String(64, collation="C"), "postgresql")
"""A UID, PS3.5 9.1."""


def _text(name: str) -> Column[str]:
    return Column(name, ByteText, nullable=False, server_default="")


PATIENT = Table(
    "patient",
    METADATA,
    Column("patient_key", Key, primary_key=True, autoincrement=True),
    _text("patient_id"),
    _text("issuer_of_patient_id"),
    _text("patient_name"),
    # names.normalise(patient_name): what a person name is matched against.
    _text("patient_name_words"),
    _text("patient_birth_date"),
    _text("patient_birth_time"),
    _text("patient_sex"),
    _text("other_patient_ids"),
    _text("patient_comments"),
    _text("ethnic_group"),
    # Why the identity cannot be trusted: "missing", "illegal"; empty when it can.
    _text("identity_doubt"),
    # A patient without an ID is one patient for each study, never all of them together.
    _text("only_study_instance_uid"),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("patient_id", "issuer_of_patient_id", "only_study_instance_uid"),
    Index("ix_patient_patient_name_words", "patient_name_words"),
)

STUDY = Table(
    "study",
    METADATA,
    Column("study_key", Key, primary_key=True, autoincrement=True),
    Column("study_instance_uid", UidText, nullable=False, unique=True),
    Column("patient_key", Key, ForeignKey("patient.patient_key"), nullable=False, index=True),
    _text("patient_id"),
    _text("issuer_of_patient_id"),
    _text("patient_name"),
    _text("patient_name_words"),
    _text("patient_birth_date"),
    _text("patient_birth_time"),
    _text("patient_sex"),
    _text("other_patient_ids"),
    _text("patient_comments"),
    _text("ethnic_group"),
    _text("identity_doubt"),
    _text("study_date"),
    _text("study_time"),
    _text("accession_number"),
    _text("study_id"),
    _text("study_description"),
    _text("study_description_words"),
    _text("referring_physician_name"),
    _text("referring_physician_name_words"),
    _text("name_of_physicians_reading_study"),
    _text("name_of_physicians_reading_study_words"),
    _text("admitting_diagnoses_description"),
    _text("patient_age"),
    _text("patient_size"),
    _text("patient_weight"),
    _text("occupation"),
    _text("additional_patient_history"),
    _text("timezone_offset_from_utc"),
    _text("specific_character_set"),
    # Computed; rejected instances do not count.
    _text("modalities_in_study"),
    _text("sop_classes_in_study"),
    Column("number_of_study_related_series", Integer, nullable=False, server_default="0"),
    Column("number_of_study_related_instances", Integer, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    # Raised by every change that a reader could see: the heart of every ETag.
    Column("version", Integer, nullable=False, server_default="0"),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    # Quiet until then means complete; None once StudyCompleted was announced.
    Column("completes_at", Timestamp, nullable=True, index=True),
    Column("completed_at", Timestamp, nullable=True),
    Index("ix_study_patient_id", "patient_id"),
    Index("ix_study_patient_name_words", "patient_name_words"),
    Index("ix_study_accession_number", "accession_number"),
    # With the key, so that a walk along it is a total order: pages never overlap.
    Index("ix_study_study_date_study_time_study_key", "study_date", "study_time", "study_key"),
)

# Of the few whose patient is in doubt: a health check must not read all the others. In words of its
# own, since a condition would have every start import what only a PostgreSQL needs.
_DOUBTFUL: Final = DDL(  # type: ignore[no-untyped-call]
    "CREATE INDEX ix_study_study_key_identity_doubt ON study (study_key) WHERE identity_doubt <> ''"
)
event.listen(STUDY, "after_create", _DOUBTFUL)

# Of the names in more than one script, of which most archives have none: then nobody who asks for
# the beginning of a name has to be looked for in the middle of one (`find.py`).
for _table in (PATIENT, STUDY):
    event.listen(
        _table,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE INDEX ix_{_table.name}_patient_name_words_groups ON {_table.name} "
            "(patient_name_words) WHERE patient_name_words LIKE '%%=%%'"
        ),
    )

SERIES = Table(
    "series",
    METADATA,
    Column("series_key", Key, primary_key=True, autoincrement=True),
    Column("study_key", Key, ForeignKey("study.study_key"), nullable=False, index=True),
    Column("series_instance_uid", UidText, nullable=False),
    _text("modality"),
    _text("series_number"),
    _text("series_description"),
    _text("series_description_words"),
    _text("series_date"),
    _text("series_time"),
    _text("body_part_examined"),
    _text("protocol_name"),
    _text("laterality"),
    _text("institution_name"),
    _text("institutional_department_name"),
    _text("station_name"),
    _text("manufacturer"),
    _text("manufacturer_model_name"),
    _text("operators_name"),
    _text("operators_name_words"),
    _text("performing_physician_name"),
    _text("performing_physician_name_words"),
    _text("performed_procedure_step_start_date"),
    _text("performed_procedure_step_start_time"),
    _text("performed_procedure_step_id"),
    _text("requested_procedure_id"),
    _text("scheduled_procedure_step_id"),
    _text("specific_character_set"),
    Column("number_of_series_related_instances", Integer, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    # Devices have reused a Series Instance UID in another study; both are kept apart.
    UniqueConstraint("series_instance_uid", "study_key"),
)

INSTANCE = Table(
    "instance",
    METADATA,
    Column("instance_key", Key, primary_key=True, autoincrement=True),
    Column("series_key", Key, ForeignKey("series.series_key"), nullable=False),
    Column("sop_instance_uid", UidText, nullable=False, unique=True),
    _text("sop_class_uid"),
    _text("transfer_syntax_uid"),
    _text("instance_number"),
    # instance_number as a number for the viewing order; 2147483647 when it is none.
    Column("instance_order", Integer, nullable=False, server_default="2147483647"),
    _text("content_date"),
    _text("content_time"),
    _text("acquisition_date"),
    _text("acquisition_time"),
    _text("acquisition_date_time"),
    _text("acquisition_number"),
    _text("image_type"),
    _text("rows"),
    _text("columns"),
    _text("bits_allocated"),
    _text("number_of_frames"),
    _text("specific_character_set"),
    Column("has_pixel_data", Boolean, nullable=False, server_default="0"),
    # Length of the data set, without the Part 10 head.
    Column("size_bytes", BigInteger, nullable=False),
    # crc32 of the data set as it was received; checked by every whole read and by verify.
    Column("checksum", BigInteger, nullable=False),
    # Why it is not shown: empty for a shown one, else the code of the rejection (PS3.16 CID 7011).
    _text("rejected_for"),
    # Who sent it: AE title or name of the actor.
    _text("source_name"),
    Column("received_at", Timestamp, nullable=False),
    Index("ix_instance_series_key_instance_order", "series_key", "instance_order"),
)

LOCATION = Table(
    "location",
    METADATA,
    Column(
        "instance_key",
        Key,
        ForeignKey("instance.instance_key", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    # Several copies of one instance, in other tiers or at other sites, count up from 0.
    Column("copy_number", SmallInteger, primary_key=True, server_default="0"),
    # "landing" (segment), "object" (a file of its own), "pack".
    Column("container_kind", String(16), nullable=False),
    # Name of the container within its kind, e.g. "000000000012".
    Column("container", Text, nullable=False),
    # Generation of a landing segment; a recycled segment gets another.
    Column("generation", BigInteger, nullable=False, server_default="0"),
    # Of the data set within the container, in bytes.
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    # The file meta information as it will head the Part 10 file again, group 2 without preamble.
    Column("file_meta", LargeBinary, nullable=False),
    Index("ix_location_container_kind_container", "container_kind", "container"),
)

CONFLICT = Table(
    "conflict",
    METADATA,
    # Other content under a UID that is taken: kept, shown to a human, retrievable by its own key.
    Column("conflict_key", Key, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", UidText, nullable=False, index=True),
    _text("study_instance_uid"),
    _text("series_instance_uid"),
    _text("sop_class_uid"),
    _text("transfer_syntax_uid"),
    Column("container_kind", String(16), nullable=False),
    Column("container", Text, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    _text("source_name"),
    # Empty while open; else "kept_first" or "kept_second".
    _text("settled_as"),
    Column("received_at", Timestamp, nullable=False),
)

SET_ASIDE = Table(
    "set_aside",
    METADATA,
    # An acknowledged record that the indexer could not digest: visible, and retrievable by UID.
    Column("set_aside_key", Key, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", UidText, nullable=False, index=True),
    _text("transfer_syntax_uid"),
    Column("container_kind", String(16), nullable=False),
    Column("container", Text, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    _text("why"),
    Column("received_at", Timestamp, nullable=False),
)

LANDING_POSITION = Table(
    "landing_position",
    METADATA,
    # How far the indexer has come in the landing log of a node; moved in its own transaction.
    Column("node", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

LEDGER_POSITION = Table(
    "ledger_position",
    METADATA,
    # How far the ledger of a node has been applied to the index.
    Column("node", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
