"""Instances and the places of their bytes come into the index together, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select

from pacsteward.archive.conftest import NOW
from pacsteward.archive.digest import Row
from pacsteward.archive.index_insert import Raced, insert_instances
from pacsteward.archive.landing import Landed
from pacsteward.archive.model import Location, Origin
from pacsteward.archive.record import Description
from pacsteward.archive.tables import INSTANCE, LOCATION
from pacsteward.base.db import Database

META = bytes(range(256))


def rows_of(series_key: int, numbers: range) -> tuple[list[Row], list[Landed]]:
    """Make instances 1.2.3.N, with what a database might read as something else."""
    texts = {column.name: "" for column in INSTANCE.c if column.name != "rejected_for"}
    rows, landed = [], []
    for number in numbers:
        uid = f"1.2.3.{number}"
        values: Mapping[str, Any] = {
            "series_key": series_key,
            "sop_instance_uid": uid,
            "image_type": 'ORIGINAL\\"PRIMARY"\\☃ %s {}',
            "instance_order": number,
            "has_pixel_data": number % 2 == 0,
            "size_bytes": 2**40,
            "checksum": 2**32 - 1,
            "received_at": NOW,
        }
        row = {**texts, **values}
        del row["instance_key"]
        rows.append(row)
        description = Description(NOW, Origin("dimse", "CT1"), "1.2", uid, "1.2", "1.2.3", "1.2")
        place = Location("landing", "000000000001", 2**60, number * 4096, 2**40)
        landed.append(Landed(number, description, META, place, 2**40, 2**32 - 1))
    return rows, landed


def test_what_is_inserted_is_what_was_given(database: Database, index: Any) -> None:
    rows, landed = rows_of(index.series("1.2.3", index.study("1.2")), range(40))
    with database.write() as connection:
        insert_instances(connection, rows, landed)
    with database.read() as connection:
        query = select(INSTANCE, LOCATION).join(LOCATION).order_by(INSTANCE.c.instance_key)
        found = connection.execute(query).mappings().all()
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    assert [Location(**{name: row[name] for name in Location.__slots__}) for row in found] == [
        one.location for one in landed
    ]
    assert {(row["copy_number"], bytes(row["file_meta"])) for row in found} == {(0, META)}


def test_a_batch_with_an_instance_that_another_node_wrote_is_not_written(
    database: Database, index: Any
) -> None:
    series_key = index.series("1.2.3", index.study("1.2"))
    with database.write() as connection:
        insert_instances(connection, *rows_of(series_key, range(3, 4)))
    with pytest.raises(Raced), database.write() as connection:
        insert_instances(connection, *rows_of(series_key, range(6)))
    with database.read() as connection:
        assert len(connection.execute(select(INSTANCE)).all()) == 1
        assert len(connection.execute(select(LOCATION)).all()) == 1
