"""Rebuild, verify, and what is removed: the bytes and the ledger are the truth."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from pacsteward.archive import replay as replay_module
from pacsteward.archive.completeness import complete_due
from pacsteward.archive.containers import container_path, stored_data
from pacsteward.archive.counters import recount
from pacsteward.archive.fixtures import index_picture
from pacsteward.archive.fixtures.sender import (
    CT,
    EXPLICIT,
    IMPLICIT,
    MIB,
    ORIGIN,
    SMALL,
    House,
    data_set,
    meta,
    running,
)
from pacsteward.archive.keeper import Keeper
from pacsteward.archive.landing import Landing
from pacsteward.archive.model import Outcome
from pacsteward.archive.rebuild import rebuild
from pacsteward.archive.record import Description, checksum_of
from pacsteward.archive.tables import (
    CONFLICT,
    INSTANCE,
    LANDING_POSITION,
    LEDGER_POSITION,
    LOCATION,
    PATIENT,
    SERIES,
    SET_ASIDE,
    STUDY,
)
from pacsteward.archive.test_failures import forget
from pacsteward.archive.verify import verify
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, Conflict, Unavailable
from pacsteward.base.events import FactLog
from pacsteward.dicom.part10 import encode_part10_head


def picture(house: House) -> dict[str, list[dict[str, Any]]]:
    """Return all that the index says, without keys and moments."""
    return index_picture.picture(house.database)


def change(house: House, kind: str, *uids: str, **details: str) -> None:
    house.keeper.change(kind, actor="admin", choose=lambda _connection: uids, details=details)


def announce_complete(house: House) -> int:
    """Announce the studies whose quiet time will be over in an hour."""
    later = house.clock.now() + timedelta(hours=1)
    with house.database.write() as connection:
        return complete_due(connection, FactLog(house.clock), later)


def fill(house: House) -> None:
    """Make a little of everything."""
    for number in range(12):
        house.store(
            data_set(
                f"1.{number}",
                study=f"1.2.{number % 3}",
                series=f"1.2.{number % 3}.{number % 2}",
                number=number,
                pixels=bytes(700_000),
                t00080060=("CS", "CT" if number % 2 else "MR"),
            ),
            f"1.{number}",
        )
    house.store(data_set("1.20", study="1.2.0", patient_id=""), "1.20")
    house.store(data_set("1.21", pixels=bytes(2 * MIB)), "1.21")
    house.store(data_set("1.22", pixels=bytes(2 * MIB)), "1.22")
    house.store(data_set("1.3", number=99), "1.3")
    change(house, "rejected", "1.1", "1.4", code="113001^DCM")
    change(house, "rejected", "1.2", code="113039^DCM")
    change(house, "restored", "1.2")
    change(house, "deleted", "1.5", "1.11", "1.8", "1.2", "1.22", "1.3")
    house.store(data_set("1.5", study="1.2.7", number=5), "1.5")
    house.store(data_set("1.30", is_implicit=True), "1.30", IMPLICIT)
    house.wait()


def test_a_rebuilt_index_says_what_the_old_one_said(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        fill(house)
        announce_complete(house)
        before = picture(house)
        facts = house.facts()
    told: list[tuple[int, int]] = []
    instances = rebuild(
        tmp_path, database, SystemClock(), SMALL, lambda done, total: told.append((done, total))
    )
    assert instances == len(before["instance"])
    assert told[-1][0] == told[-1][1]
    with running(tmp_path, database) as house:
        assert picture(house) == before
        # Nothing is announced a second time.
        assert house.facts() == facts
        assert house.audited == []
        assert all(row["completes_at"] is None for row in house.rows(STUDY))
        assert verify(tmp_path, database).damages == ()
        assert house.store(data_set("1.40"), "1.40").outcome is Outcome.STORED


def test_a_study_that_waited_to_be_complete_is_announced_after_a_rebuild(
    tmp_path: Path, database: Database
) -> None:
    """Routing hangs on it; also when the rebuild was interrupted and begun again."""

    class Interrupted(Exception):
        pass

    def interrupt(_done: int, _total: int) -> None:
        raise Interrupted

    with running(tmp_path, database) as house:
        house.store(data_set("1.1", study="1.2.1"), "1.1")
        house.wait()
        announce_complete(house)
        house.store(data_set("1.2", study="1.2.2"), "1.2")
        house.wait()
    with pytest.raises(Interrupted):
        rebuild(tmp_path, database, SystemClock(), SMALL, interrupt)
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        waiting = [row for row in house.rows(STUDY) if row["completes_at"] is not None]
        assert [row["study_instance_uid"] for row in waiting] == ["1.2.2"]
        assert announce_complete(house) == 1
        assert house.facts().count("study_completed") == 2


def test_rebuild_never_undoes_a_rejection_or_brings_back_what_was_deleted(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        for number in range(4):
            house.store(data_set(f"1.{number}"), f"1.{number}")
        change(house, "rejected", "1.0", code="113001^DCM")
        change(house, "deleted", "1.1", "1.2")
        house.store(data_set("1.2", number=7), "1.2")
    for _ in range(2):
        rebuild(tmp_path, database, SystemClock(), SMALL)
        with running(tmp_path, database) as house:
            rows = {row["sop_instance_uid"]: row for row in house.rows(INSTANCE)}
            assert sorted(rows) == ["1.0", "1.2", "1.3"]
            assert rows["1.0"]["rejected_for"] == "113001^DCM"
            assert rows["1.2"]["instance_number"] == "7"
            assert house.study()["number_of_study_related_instances"] == 2


def _land_at_once(folder: Path, *uids: str) -> None:
    """Add objects to the log of a stopped archive with one write and one sync."""
    landing = Landing(folder / "landing", segment_bytes=SMALL.segment_bytes)
    landing.open(0)
    for uid in uids:
        data = data_set(uid)
        landing.append(
            Description(datetime.now(UTC), ORIGIN, CT, uid, "1.2.1", "1.2.1.1", EXPLICIT),
            encode_part10_head(meta(uid))[132:],
            [data],
            size_bytes=len(data),
            checksum=checksum_of(data),
        )
    landing.sync()
    landing.close()


def test_erased_bytes_are_not_taken_for_the_torn_end_of_the_log(
    tmp_path: Path, database: Database
) -> None:
    """None of the last batch says that the others were synced; the ledger does."""
    with running(tmp_path, database):
        pass
    _land_at_once(tmp_path, "1.1", "1.2", "1.3")
    with running(tmp_path, database) as house:
        change(house, "deleted", "1.2")
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1", "1.3"]
    # Nor where the index is one from before, as after a restore.
    with database.write() as connection:
        for table in (LOCATION, INSTANCE, SERIES, STUDY, PATIENT):
            connection.execute(delete(table))
        for position in (LANDING_POSITION, LEDGER_POSITION):
            connection.execute(delete(position))
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1", "1.3"]
        assert house.store(data_set("1.4"), "1.4").outcome is Outcome.STORED
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1", "1.3", "1.4"]


def test_what_was_damaged_in_the_last_batch_is_set_aside_and_not_left_out(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database):
        pass
    _land_at_once(tmp_path, "1.1", "1.2")
    with running(tmp_path, database) as house:
        place = house.location("1.1")
    with container_path(tmp_path, place).open("r+b") as file:
        file.seek(place.offset + place.length - 4)
        file.write(b"\xff")
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.2"]
        assert [row["sop_instance_uid"] for row in house.rows(SET_ASIDE)] == ["1.1"]


def test_an_interrupted_rebuild_is_run_again_and_nothing_is_announced_twice(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill(house)
        before, facts = picture(house), house.facts()

    class Interrupted(Exception):
        pass

    def interrupt(_done: int, _total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        rebuild(tmp_path, database, SystemClock(), SMALL, interrupt)
    with pytest.raises(Conflict):
        House(tmp_path, database).keeper.start()
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert (picture(house), house.facts()) == (before, facts)


@pytest.mark.parametrize("crashes_after", [1, 2, 3])
def test_a_rebuild_during_which_the_database_forgets_is_not_taken_for_a_whole_one(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, crashes_after: int
) -> None:
    """A server that crashes between two transactions is connected to anew without a word."""
    monkeypatch.setattr(replay_module, "BATCH_MAX", 1)
    with running(tmp_path, database) as house:
        for uid in ("1.1", "1.2", "1.3"):
            house.store(data_set(uid), uid)
        house.wait()
        change(house, "rejected", "1.2", code="113001")

    def crash(done: int, _total: int) -> None:
        if done == crashes_after:
            forget(house)

    with pytest.raises(Unavailable, match="archive rebuild"):
        rebuild(tmp_path, database, SystemClock(), SMALL, crash)
    with pytest.raises(Conflict):
        House(tmp_path, database).keeper.start()
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1", "1.2", "1.3"]


def test_rebuild_is_refused_while_the_archive_runs(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        with pytest.raises(Conflict):
            rebuild(tmp_path, database, SystemClock(), SMALL)
        house.wait()
        assert house.uids() == ["1.1"]


def test_rebuild_without_a_sound_ledger_is_refused_before_anything_is_emptied(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        change(house, "rejected", "1.1", code="113001^DCM")
        change(house, "restored", "1.1")
    path = tmp_path / "ledger" / "000000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"1.1"', b'"1.9"', 1))
    with pytest.raises(Broken):
        rebuild(tmp_path, database, SystemClock(), SMALL)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM instance").scalar() == 1
    assert verify(tmp_path, database).damages[0].what.startswith("The ledger is damaged")


def test_a_decision_that_was_interrupted_is_carried_out_at_the_next_start(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has it and the index has not: the machine stopped between the two."""

    class Stopped(Exception):
        pass

    def stop(*_args: object) -> None:
        raise Stopped

    with running(tmp_path, database, tell=stop) as house:
        for number in range(3):
            house.store(data_set(f"1.{number}", pixels=bytes(2 * MIB)), f"1.{number}")
        house.wait()
        place = house.location("1.1")
        with pytest.raises(Stopped):
            change(house, "deleted", "1.1")
        assert house.uids() == ["1.0", "1.1", "1.2"]
        assert container_path(tmp_path, place).exists()
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.0", "1.2"]
        assert not container_path(tmp_path, place).exists()


def test_a_decision_that_the_index_could_not_take_is_carried_out_with_the_next(
    tmp_path: Path, database: Database
) -> None:
    failures = [Broken("The audit book is damaged.")]

    def fail(*_args: object) -> None:
        if failures:
            raise failures.pop()

    with running(tmp_path, database, tell=fail) as house:
        for number in range(3):
            house.store(data_set(f"1.{number}"), f"1.{number}")
        with pytest.raises(Broken):
            change(house, "deleted", "1.1")
        assert house.uids() == ["1.0", "1.1", "1.2"]
        change(house, "rejected", "1.2", code="113001^DCM")
        assert house.uids() == ["1.0", "1.2"]
        before = picture(house)
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert picture(house) == before


def test_bytes_of_a_decision_are_removed_even_if_the_machine_stopped_before(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", pixels=bytes(2 * MIB)), "1.1")
        house.wait()
        place = house.location("1.1")
        monkeypatch.setattr(Keeper, "_free", lambda _self, _locations: None)
        change(house, "deleted", "1.1")
        assert container_path(tmp_path, place).exists()
    monkeypatch.undo()
    with running(tmp_path, database):
        assert not container_path(tmp_path, place).exists()


def test_deleted_bytes_are_gone_from_the_disk(tmp_path: Path, database: Database) -> None:
    secret = b"\xde\xad\xbe\xef" * 2000
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", pixels=secret), "1.1")
        house.store(data_set("1.2", pixels=bytes(8000)), "1.2")
        change(house, "deleted", "1.1")
        assert house.uids() == ["1.2"]
        path = container_path(tmp_path, house.location("1.2"))
        assert secret[:64] not in path.read_bytes()
        assert verify(tmp_path, database).damages == ()
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.2"]


def test_what_is_empty_after_a_deletion_goes_with_it(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", study="1.5", series="1.5.1"), "1.1")
        house.store(data_set("1.2", study="1.5", series="1.5.2"), "1.2")
        house.wait()
        version = house.study()["version"]
        change(house, "deleted", "1.2")
        assert [row["series_instance_uid"] for row in house.series()] == ["1.5.1"]
        assert house.study()["version"] > version
        change(house, "deleted", "1.1")
        assert [house.rows(table) for table in (SERIES, STUDY, PATIENT)] == [[], [], []]


def test_counters_that_grew_are_those_that_are_counted(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        fill(house)
        before = picture(house)
        with database.write() as connection:
            keys = [row["study_key"] for row in house.rows(STUDY)]
            recount(connection, keys, house.clock.now())
        assert picture(house) == before


def test_a_rejected_instance_does_not_count_and_comes_back_whole(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", t00080060=("CS", "SR"), series="1.2.1.9"), "1.1")
        house.store(data_set("1.2"), "1.2")
        house.wait()
        before = picture(house)
        change(house, "rejected", "1.1", code="113001^DCM")
        study = house.study()
        assert study["modalities_in_study"] == "\\CT\\"
        assert study["number_of_study_related_series"] == 1
        change(house, "restored", "1.1")
        assert picture(house) == before


# --- verify --------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def damage_data(path: Path, place: Any) -> None:
    flip(path, place.offset + place.length // 2)


def damage_head(path: Path, place: Any) -> None:
    flip(path, place.offset - 10)


def remove_file(path: Path, _place: Any) -> None:
    path.unlink()


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("harm", [damage_data, damage_head, remove_file])
def test_r11_verify_finds_every_damage(
    tmp_path: Path, database: Database, harm: Callable[[Path, Any], None], *, is_big: bool
) -> None:
    size = 2 * MIB if is_big else 5000
    with running(tmp_path, database) as house:
        for number in range(5):
            house.store(data_set(f"1.{number}", pixels=bytes(size)), f"1.{number}")
        house.wait()
        sound = verify(tmp_path, database)
        assert (sound.instances, sound.damages) == (5, ())
        assert sound.bytes_read >= 5 * size
        place = house.location("1.3")
        harm(container_path(tmp_path, place), place)
        report = verify(tmp_path, database)
    found = {damage.sop_instance_uid for damage in report.damages}
    lost_all = harm is remove_file and not is_big
    assert found == ({f"1.{number}" for number in range(5)} if lost_all else {"1.3"})


def test_r11_a_hundred_flipped_bits_are_found(tmp_path: Path, database: Database) -> None:
    import random

    chance = random.Random(11)
    with running(tmp_path, database) as house:
        objects = [(data_set(f"1.{number}", number=number), f"1.{number}") for number in range(400)]
        house.store_all(objects)
        house.wait()
        chosen = chance.sample([uid for _, uid in objects], 100)
        for uid in chosen:
            place = house.location(uid)
            flip(container_path(tmp_path, place), place.offset + chance.randrange(place.length))
        report = verify(tmp_path, database)
    assert sorted(damage.sop_instance_uid for damage in report.damages) == sorted(chosen)


def test_what_is_deleted_while_verify_runs_is_no_damage(tmp_path: Path, database: Database) -> None:
    from pacsteward.archive.verify import _Check, _Copy

    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        check = _Check(tmp_path, database, None)
        copy = _Copy("1.1", house.location("1.1"), 1)
        change(house, "deleted", "1.1")
        check._count(copy, "Its bytes are not those that were received.")
        assert check.damages == []


def test_conflicting_contents_are_verified_too(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", number=1), "1.1")
        house.store(data_set("1.1", number=2), "1.1")
        house.wait()
        (conflict,) = house.rows(CONFLICT)
        report = verify(tmp_path, database)
        assert (report.instances, report.damages) == (2, ())
        path = tmp_path / "landing" / f"{conflict['container']}.segment"
        flip(path, conflict["offset"] + 20)
        assert len(verify(tmp_path, database).damages) == 1


def test_a_replayed_record_that_was_damaged_is_set_aside_and_seen(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        for number in range(3):
            house.store(data_set(f"1.{number}"), f"1.{number}")
            house.wait()
        place = house.location("1.1")
        flip(container_path(tmp_path, place), place.offset + 20)
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.0", "1.2"]
        (row,) = house.rows(SET_ASIDE)
        assert row["sop_instance_uid"] == "1.1"
        assert "damaged" in row["why"]
        with stored_data(tmp_path, house.location("1.2")) as view:
            assert view.read(0, view.size) == data_set("1.2")
