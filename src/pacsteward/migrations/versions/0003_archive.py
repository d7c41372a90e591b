"""The index of the archive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pacsteward.base.db import Timestamp

revision = "0003"
down_revision = "0002"

OLDEST_CODE = "0003"
"""Code that knows this revision may work with the schema."""

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Compared byte by byte on every database, so that order and ranges are the same.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
UID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "conflict",
        sa.Column("conflict_key", KEY, autoincrement=True, nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("study_instance_uid", TEXT, server_default="", nullable=False),
        sa.Column("series_instance_uid", TEXT, server_default="", nullable=False),
        sa.Column("sop_class_uid", TEXT, server_default="", nullable=False),
        sa.Column("transfer_syntax_uid", TEXT, server_default="", nullable=False),
        sa.Column("container_kind", sa.String(length=16), nullable=False),
        sa.Column("container", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=False),
        sa.Column("source_name", TEXT, server_default="", nullable=False),
        sa.Column("settled_as", TEXT, server_default="", nullable=False),
        sa.Column("received_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("conflict_key", name="pk_conflict"),
    )
    op.create_index("ix_conflict_sop_instance_uid", "conflict", ["sop_instance_uid"], unique=False)
    op.create_table(
        "landing_position",
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_landing_position"),
    )
    op.create_table(
        "ledger_position",
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_ledger_position"),
    )
    op.create_table(
        "patient",
        sa.Column("patient_key", KEY, autoincrement=True, nullable=False),
        sa.Column("patient_id", TEXT, server_default="", nullable=False),
        sa.Column("issuer_of_patient_id", TEXT, server_default="", nullable=False),
        sa.Column("patient_name", TEXT, server_default="", nullable=False),
        sa.Column("patient_name_words", TEXT, server_default="", nullable=False),
        sa.Column("patient_birth_date", TEXT, server_default="", nullable=False),
        sa.Column("patient_birth_time", TEXT, server_default="", nullable=False),
        sa.Column("patient_sex", TEXT, server_default="", nullable=False),
        sa.Column("other_patient_ids", TEXT, server_default="", nullable=False),
        sa.Column("patient_comments", TEXT, server_default="", nullable=False),
        sa.Column("ethnic_group", TEXT, server_default="", nullable=False),
        sa.Column("identity_doubt", TEXT, server_default="", nullable=False),
        sa.Column("only_study_instance_uid", TEXT, server_default="", nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name="pk_patient"),
        sa.UniqueConstraint(
            "patient_id",
            "issuer_of_patient_id",
            "only_study_instance_uid",
            name=op.f("uq_patient_patient_id_issuer_of_patient_id_only_study_instance_uid"),
        ),
    )
    op.create_index(
        "ix_patient_patient_name_words", "patient", ["patient_name_words"], unique=False
    )
    op.create_table(
        "set_aside",
        sa.Column("set_aside_key", KEY, autoincrement=True, nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("transfer_syntax_uid", TEXT, server_default="", nullable=False),
        sa.Column("container_kind", sa.String(length=16), nullable=False),
        sa.Column("container", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("why", TEXT, server_default="", nullable=False),
        sa.Column("received_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("set_aside_key", name="pk_set_aside"),
    )
    op.create_index(
        "ix_set_aside_sop_instance_uid", "set_aside", ["sop_instance_uid"], unique=False
    )
    op.create_table(
        "study",
        sa.Column("study_key", KEY, autoincrement=True, nullable=False),
        sa.Column("study_instance_uid", UID, nullable=False),
        sa.Column("patient_key", KEY, nullable=False),
        sa.Column("patient_id", TEXT, server_default="", nullable=False),
        sa.Column("issuer_of_patient_id", TEXT, server_default="", nullable=False),
        sa.Column("patient_name", TEXT, server_default="", nullable=False),
        sa.Column("patient_name_words", TEXT, server_default="", nullable=False),
        sa.Column("patient_birth_date", TEXT, server_default="", nullable=False),
        sa.Column("patient_birth_time", TEXT, server_default="", nullable=False),
        sa.Column("patient_sex", TEXT, server_default="", nullable=False),
        sa.Column("other_patient_ids", TEXT, server_default="", nullable=False),
        sa.Column("patient_comments", TEXT, server_default="", nullable=False),
        sa.Column("ethnic_group", TEXT, server_default="", nullable=False),
        sa.Column("identity_doubt", TEXT, server_default="", nullable=False),
        sa.Column("study_date", TEXT, server_default="", nullable=False),
        sa.Column("study_time", TEXT, server_default="", nullable=False),
        sa.Column("accession_number", TEXT, server_default="", nullable=False),
        sa.Column("study_id", TEXT, server_default="", nullable=False),
        sa.Column("study_description", TEXT, server_default="", nullable=False),
        sa.Column("study_description_words", TEXT, server_default="", nullable=False),
        sa.Column("referring_physician_name", TEXT, server_default="", nullable=False),
        sa.Column("referring_physician_name_words", TEXT, server_default="", nullable=False),
        sa.Column("name_of_physicians_reading_study", TEXT, server_default="", nullable=False),
        sa.Column(
            "name_of_physicians_reading_study_words", TEXT, server_default="", nullable=False
        ),
        sa.Column("admitting_diagnoses_description", TEXT, server_default="", nullable=False),
        sa.Column("patient_age", TEXT, server_default="", nullable=False),
        sa.Column("patient_size", TEXT, server_default="", nullable=False),
        sa.Column("patient_weight", TEXT, server_default="", nullable=False),
        sa.Column("occupation", TEXT, server_default="", nullable=False),
        sa.Column("additional_patient_history", TEXT, server_default="", nullable=False),
        sa.Column("timezone_offset_from_utc", TEXT, server_default="", nullable=False),
        sa.Column("specific_character_set", TEXT, server_default="", nullable=False),
        sa.Column("modalities_in_study", TEXT, server_default="", nullable=False),
        sa.Column("sop_classes_in_study", TEXT, server_default="", nullable=False),
        sa.Column(
            "number_of_study_related_series", sa.Integer(), server_default="0", nullable=False
        ),
        sa.Column(
            "number_of_study_related_instances", sa.Integer(), server_default="0", nullable=False
        ),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.Column("completes_at", Timestamp(), nullable=True),
        sa.Column("completed_at", Timestamp(), nullable=True),
        sa.ForeignKeyConstraint(
            ["patient_key"], ["patient.patient_key"], name="fk_study_patient_key"
        ),
        sa.PrimaryKeyConstraint("study_key", name="pk_study"),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_study_instance_uid"),
    )
    op.create_index("ix_study_accession_number", "study", ["accession_number"], unique=False)
    op.create_index("ix_study_completes_at", "study", ["completes_at"], unique=False)
    op.create_index("ix_study_patient_id", "study", ["patient_id"], unique=False)
    op.create_index("ix_study_patient_key", "study", ["patient_key"], unique=False)
    op.create_index("ix_study_patient_name_words", "study", ["patient_name_words"], unique=False)
    op.create_index(
        "ix_study_study_date_study_time_study_key",
        "study",
        ["study_date", "study_time", "study_key"],
        unique=False,
    )
    op.create_table(
        "series",
        sa.Column("series_key", KEY, autoincrement=True, nullable=False),
        sa.Column("study_key", KEY, nullable=False),
        sa.Column("series_instance_uid", UID, nullable=False),
        sa.Column("modality", TEXT, server_default="", nullable=False),
        sa.Column("series_number", TEXT, server_default="", nullable=False),
        sa.Column("series_description", TEXT, server_default="", nullable=False),
        sa.Column("series_description_words", TEXT, server_default="", nullable=False),
        sa.Column("series_date", TEXT, server_default="", nullable=False),
        sa.Column("series_time", TEXT, server_default="", nullable=False),
        sa.Column("body_part_examined", TEXT, server_default="", nullable=False),
        sa.Column("protocol_name", TEXT, server_default="", nullable=False),
        sa.Column("laterality", TEXT, server_default="", nullable=False),
        sa.Column("institution_name", TEXT, server_default="", nullable=False),
        sa.Column("institutional_department_name", TEXT, server_default="", nullable=False),
        sa.Column("station_name", TEXT, server_default="", nullable=False),
        sa.Column("manufacturer", TEXT, server_default="", nullable=False),
        sa.Column("manufacturer_model_name", TEXT, server_default="", nullable=False),
        sa.Column("operators_name", TEXT, server_default="", nullable=False),
        sa.Column("operators_name_words", TEXT, server_default="", nullable=False),
        sa.Column("performing_physician_name", TEXT, server_default="", nullable=False),
        sa.Column("performing_physician_name_words", TEXT, server_default="", nullable=False),
        sa.Column("performed_procedure_step_start_date", TEXT, server_default="", nullable=False),
        sa.Column("performed_procedure_step_start_time", TEXT, server_default="", nullable=False),
        sa.Column("performed_procedure_step_id", TEXT, server_default="", nullable=False),
        sa.Column("requested_procedure_id", TEXT, server_default="", nullable=False),
        sa.Column("scheduled_procedure_step_id", TEXT, server_default="", nullable=False),
        sa.Column("specific_character_set", TEXT, server_default="", nullable=False),
        sa.Column(
            "number_of_series_related_instances", sa.Integer(), server_default="0", nullable=False
        ),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(["study_key"], ["study.study_key"], name="fk_series_study_key"),
        sa.PrimaryKeyConstraint("series_key", name="pk_series"),
        sa.UniqueConstraint(
            "series_instance_uid", "study_key", name="uq_series_series_instance_uid_study_key"
        ),
    )
    op.create_index("ix_series_study_key", "series", ["study_key"], unique=False)
    op.create_table(
        "instance",
        sa.Column("instance_key", KEY, autoincrement=True, nullable=False),
        sa.Column("series_key", KEY, nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("sop_class_uid", TEXT, server_default="", nullable=False),
        sa.Column("transfer_syntax_uid", TEXT, server_default="", nullable=False),
        sa.Column("instance_number", TEXT, server_default="", nullable=False),
        sa.Column("instance_order", sa.Integer(), server_default="2147483647", nullable=False),
        sa.Column("content_date", TEXT, server_default="", nullable=False),
        sa.Column("content_time", TEXT, server_default="", nullable=False),
        sa.Column("acquisition_date", TEXT, server_default="", nullable=False),
        sa.Column("acquisition_time", TEXT, server_default="", nullable=False),
        sa.Column("acquisition_date_time", TEXT, server_default="", nullable=False),
        sa.Column("acquisition_number", TEXT, server_default="", nullable=False),
        sa.Column("image_type", TEXT, server_default="", nullable=False),
        sa.Column("rows", TEXT, server_default="", nullable=False),
        sa.Column("columns", TEXT, server_default="", nullable=False),
        sa.Column("bits_allocated", TEXT, server_default="", nullable=False),
        sa.Column("number_of_frames", TEXT, server_default="", nullable=False),
        sa.Column("specific_character_set", TEXT, server_default="", nullable=False),
        sa.Column("has_pixel_data", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=False),
        sa.Column("rejected_for", TEXT, server_default="", nullable=False),
        sa.Column("source_name", TEXT, server_default="", nullable=False),
        sa.Column("received_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(
            ["series_key"], ["series.series_key"], name="fk_instance_series_key"
        ),
        sa.PrimaryKeyConstraint("instance_key", name="pk_instance"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_instance_sop_instance_uid"),
    )
    op.create_index(
        "ix_instance_series_key_instance_order",
        "instance",
        ["series_key", "instance_order"],
        unique=False,
    )
    op.create_table(
        "location",
        sa.Column("instance_key", KEY, autoincrement=False, nullable=False),
        sa.Column("copy_number", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("container_kind", sa.String(length=16), nullable=False),
        sa.Column("container", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("file_meta", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_key"],
            ["instance.instance_key"],
            name="fk_location_instance_key",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("instance_key", "copy_number", name="pk_location"),
    )
    op.create_index(
        "ix_location_container_kind_container",
        "location",
        ["container_kind", "container"],
        unique=False,
    )
    statements = SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL
    for statement in statements:
        op.execute(sa.text(statement))


# What stands in the middle of a text is found by trigrams. Triggers keep SQLite's tables of them in
# step; a PostgreSQL server without pg_trgm does without.

SQLITE = (
    """
    CREATE VIRTUAL TABLE IF NOT EXISTS patient_trigrams USING fts5(patient_name_words,
    patient_id, content='patient', content_rowid='patient_key', tokenize='trigram')
    """,
    """
    CREATE TRIGGER IF NOT EXISTS patient_trigrams_insert AFTER INSERT ON patient BEGIN INSERT
    INTO patient_trigrams (rowid, patient_name_words, patient_id) VALUES (new.patient_key,
    new.patient_name_words, new.patient_id); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS patient_trigrams_delete AFTER DELETE ON patient BEGIN INSERT
    INTO patient_trigrams (patient_trigrams, rowid, patient_name_words, patient_id) VALUES
    ('delete', old.patient_key, old.patient_name_words, old.patient_id); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS patient_trigrams_update AFTER UPDATE OF patient_name_words,
    patient_id ON patient WHEN new.patient_name_words IS NOT old.patient_name_words OR
    new.patient_id IS NOT old.patient_id BEGIN INSERT INTO patient_trigrams (patient_trigrams,
    rowid, patient_name_words, patient_id) VALUES ('delete', old.patient_key,
    old.patient_name_words, old.patient_id); INSERT INTO patient_trigrams (rowid,
    patient_name_words, patient_id) VALUES (new.patient_key, new.patient_name_words,
    new.patient_id); END
    """,
    """
    CREATE VIRTUAL TABLE IF NOT EXISTS study_trigrams USING fts5(patient_name_words,
    patient_id, accession_number, study_description_words, referring_physician_name_words,
    content='study', content_rowid='study_key', tokenize='trigram')
    """,
    """
    CREATE TRIGGER IF NOT EXISTS study_trigrams_insert AFTER INSERT ON study BEGIN INSERT INTO
    study_trigrams (rowid, patient_name_words, patient_id, accession_number,
    study_description_words, referring_physician_name_words) VALUES (new.study_key,
    new.patient_name_words, new.patient_id, new.accession_number, new.study_description_words,
    new.referring_physician_name_words); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS study_trigrams_delete AFTER DELETE ON study BEGIN INSERT INTO
    study_trigrams (study_trigrams, rowid, patient_name_words, patient_id, accession_number,
    study_description_words, referring_physician_name_words) VALUES ('delete', old.study_key,
    old.patient_name_words, old.patient_id, old.accession_number, old.study_description_words,
    old.referring_physician_name_words); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS study_trigrams_update AFTER UPDATE OF patient_name_words,
    patient_id, accession_number, study_description_words, referring_physician_name_words ON
    study WHEN new.patient_name_words IS NOT old.patient_name_words OR new.patient_id IS NOT
    old.patient_id OR new.accession_number IS NOT old.accession_number OR
    new.study_description_words IS NOT old.study_description_words OR
    new.referring_physician_name_words IS NOT old.referring_physician_name_words BEGIN INSERT
    INTO study_trigrams (study_trigrams, rowid, patient_name_words, patient_id,
    accession_number, study_description_words, referring_physician_name_words) VALUES
    ('delete', old.study_key, old.patient_name_words, old.patient_id, old.accession_number,
    old.study_description_words, old.referring_physician_name_words); INSERT INTO
    study_trigrams (rowid, patient_name_words, patient_id, accession_number,
    study_description_words, referring_physician_name_words) VALUES (new.study_key,
    new.patient_name_words, new.patient_id, new.accession_number, new.study_description_words,
    new.referring_physician_name_words); END
    """,
)

POSTGRESQL = (
    """
    DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
    CREATE EXTENSION IF NOT EXISTS pg_trgm; CREATE INDEX IF NOT EXISTS
    ix_patient_patient_name_words_trigrams ON patient USING gin (patient_name_words
    gin_trgm_ops) WITH (fastupdate = off); CREATE INDEX IF NOT EXISTS
    ix_patient_patient_id_trigrams ON patient USING gin (patient_id gin_trgm_ops) WITH
    (fastupdate = off); END IF; END $$
    """,
    """
    DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
    CREATE EXTENSION IF NOT EXISTS pg_trgm; CREATE INDEX IF NOT EXISTS
    ix_study_patient_name_words_trigrams ON study USING gin (patient_name_words gin_trgm_ops)
    WITH (fastupdate = off); CREATE INDEX IF NOT EXISTS ix_study_patient_id_trigrams ON study
    USING gin (patient_id gin_trgm_ops) WITH (fastupdate = off); CREATE INDEX IF NOT EXISTS
    ix_study_accession_number_trigrams ON study USING gin (accession_number gin_trgm_ops) WITH
    (fastupdate = off); CREATE INDEX IF NOT EXISTS ix_study_study_description_words_trigrams
    ON study USING gin (study_description_words gin_trgm_ops) WITH (fastupdate = off); CREATE
    INDEX IF NOT EXISTS ix_study_referring_physician_name_words_trigrams ON study USING gin
    (referring_physician_name_words gin_trgm_ops) WITH (fastupdate = off); END IF; END $$
    """,
)
