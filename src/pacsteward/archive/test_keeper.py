"""The keeper: one for a folder, handed instances by other processes, in order after a stop."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pacsteward.archive import disk
from pacsteward.archive.client import KeeperClient
from pacsteward.archive.containers import stored_data
from pacsteward.archive.fixtures.sender import (
    EXPLICIT,
    MIB,
    ORIGIN,
    SMALL,
    House,
    data_set,
    meta,
    running,
    serving,
)
from pacsteward.archive.folder import BeforeRebuild, mark_half_made_index
from pacsteward.archive.handover import address_of
from pacsteward.archive.messages import HEAD
from pacsteward.archive.model import Outcome
from pacsteward.base.db import Database
from pacsteward.base.errors import (
    Broken,
    Conflict,
    Exhausted,
    Invalid,
    NotFound,
    Unavailable,
    Unsupported,
)


def test_a_second_keeper_is_refused(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        with pytest.raises(Conflict) as caught:
            House(tmp_path, database).keeper.start()
        assert str(os.getpid()) in caught.value.why
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1"]


def test_the_lock_goes_with_its_process(tmp_path: Path, database: Database) -> None:
    code = (
        "import sys, os, time; from pathlib import Path;"
        "from pacsteward.archive.folder import FolderLock;"
        "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Conflict):
        House(tmp_path, database).keeper.start()
    process.kill()
    process.communicate()
    with running(tmp_path, database):
        pass


def test_a_folder_of_a_later_version_is_refused(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database):
        pass
    path = tmp_path / "format.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "format": found["format"] + 1}))
    with pytest.raises(Unsupported) as caught:
        House(tmp_path, database).keeper.start()
    assert "later" in caught.value.remedy
    path.write_text("{")
    with pytest.raises(Broken):
        House(tmp_path, database).keeper.start()
    path.write_text(json.dumps(found))
    with running(tmp_path, database):
        pass


def test_a_half_made_index_is_not_opened(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database):
        pass
    mark_half_made_index(tmp_path, BeforeRebuild(7))
    with pytest.raises(Conflict) as caught:
        House(tmp_path, database).keeper.start()
    assert "rebuild" in caught.value.remedy


def test_foreign_files_in_the_folder_are_left_alone(tmp_path: Path, database: Database) -> None:
    foreign = [tmp_path / "notes.txt", tmp_path / "objects" / "incoming" / "mine.dcm"]
    foreign[1].parent.mkdir(parents=True)
    for path in foreign:
        path.write_text("mine")
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
    assert [path.read_text() for path in foreign] == ["mine", "mine"]


def test_another_process_hands_over_instances_of_any_size(
    tmp_path: Path, database: Database
) -> None:
    objects = {
        f"1.{size}": data_set(f"1.{size}", pixels=os.urandom(size))
        for size in (2, 5000, MIB // 2, 3 * MIB)
    }
    with running(tmp_path, database) as house, serving(house) as client:
        for uid, data in objects.items():
            assert client.store(ORIGIN, meta(uid), data).outcome is Outcome.STORED
        house.wait()
        for uid, data in objects.items():
            with stored_data(tmp_path, house.location(uid)) as view:
                assert view.read(0, view.size) == data
        again = client.store(ORIGIN, meta("1.2"), data_set("1.2", patient_id="", pixels=b"\0\0"))
        assert again.outcome is Outcome.CONFLICT
        assert again.warnings


def test_errors_come_back_as_what_they_are(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house, serving(house) as client:
        with pytest.raises(Invalid) as caught:
            client.store(ORIGIN, meta("1.1"), data_set("1.1")[:-7])
        assert "cut" in str(caught.value)
        with pytest.raises(NotFound):
            client.call("no such verb", {})
        # The connection goes on after a refusal.
        assert client.store(ORIGIN, meta("1.1"), data_set("1.1")).outcome is Outcome.STORED


def test_a_refusal_before_the_data_drains_them(tmp_path: Path, database: Database) -> None:
    settings = SMALL.model_copy(update={"reserve_bytes": 1 << 60})
    with running(tmp_path, database, settings) as house, serving(house) as client:
        for _ in range(2):
            with pytest.raises(Exhausted):
                client.store(ORIGIN, meta("1.1"), data_set("1.1", pixels=bytes(2 * MIB)))


def test_verbs_are_carried_out_by_the_keeper(tmp_path: Path, database: Database) -> None:
    def reject(keeper: Any, arguments: dict[str, Any]) -> int:
        entry = keeper.change(
            "rejected",
            actor=arguments["actor"],
            choose=lambda _connection: arguments["uids"],
            details={"code": arguments["code"]},
        )
        return len(entry.sop_instance_uids)

    with running(tmp_path, database, verbs={"reject": reject}) as house:
        house.store(data_set("1.1"), "1.1")
        with serving(house) as client:
            arguments = {"uids": ["1.1"], "actor": "admin", "code": "113001^DCM"}
            assert client.call("reject", arguments) == 1
        assert house.study()["number_of_study_related_instances"] == 0


def test_without_a_keeper_other_processes_are_told_so(tmp_path: Path) -> None:
    client = KeeperClient(tmp_path)
    with pytest.raises(Unavailable):
        client.store(ORIGIN, meta("1.1"), data_set("1.1"))


def test_a_keeper_is_there_while_it_answers(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        with serving(house) as client:
            assert client.is_there()
        assert not client.is_there()
    # One that hangs: whoever connects is let in by the system, and hears nothing.
    monkeypatch.setattr("pacsteward.archive.client.PRESENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(address_of(tmp_path / "run")))
        listener.listen()
        assert not client.is_there()


def test_a_client_goes_on_after_the_keeper_was_restarted(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house, serving(house) as client:
        client.store(ORIGIN, meta("1.1"), data_set("1.1"))
        kept = KeeperClient(tmp_path)
        kept.store(ORIGIN, meta("1.2"), data_set("1.2"))
    with running(tmp_path, database) as house, serving(house):
        assert kept.store(ORIGIN, meta("1.3"), data_set("1.3")).outcome is Outcome.STORED
    kept.close()


def test_nobody_else_may_connect(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house, serving(house):
        address = address_of(tmp_path / "run")
        assert stat.S_IMODE(address.stat().st_mode) == 0o600
        assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700


def test_a_folder_with_a_long_path_is_served_too(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    with running(folder, database) as house:
        with serving(house) as client:
            address = address_of(folder / "run")
            assert len(os.fsencode(address)) < 100
            assert client.store(ORIGIN, meta("1.1"), data_set("1.1")).outcome is Outcome.STORED
            assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
        assert not address.parent.exists()


@pytest.mark.parametrize(
    "sent",
    [
        HEAD.pack(0, 0),
        HEAD.pack(1 << 31, 0),
        HEAD.pack(2, 0) + b"[]",
        HEAD.pack(2, 5) + b"{}hello",
        HEAD.pack(40, 1 << 40) + b'{"call":"store","origin":{},"meta":{}}  ',
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_on_the_socket_does_no_harm(
    tmp_path: Path, database: Database, sent: bytes
) -> None:
    with running(tmp_path, database) as house, serving(house) as client:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(address_of(tmp_path / "run")))
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            with suppress(TimeoutError, ConnectionError):
                connection.recv(1000)
        assert client.store(ORIGIN, meta("1.1"), data_set("1.1")).outcome is Outcome.STORED


def test_a_process_that_dies_in_the_middle_leaves_nothing_behind(
    tmp_path: Path, database: Database
) -> None:
    from dataclasses import asdict

    text = json.dumps(
        {"call": "store", "origin": asdict(ORIGIN), "meta": asdict(meta("1.1", EXPLICIT))}
    ).encode()
    with running(tmp_path, database) as house, serving(house) as client:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(address_of(tmp_path / "run")))
            connection.sendall(HEAD.pack(len(text), 8 * MIB) + text + bytes(4 * MIB))
        client.store(ORIGIN, meta("1.2"), data_set("1.2"))
        house.wait()
        assert house.uids() == ["1.2"]
    assert list((tmp_path / "objects" / "incoming").iterdir()) == []


def test_what_a_killed_process_left_unsynced_is_synced_before_anybody_relies_on_it(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes survive the kill in memory; the power may fail before they are on the disk."""
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.keeper.change(
            "rejected",
            actor="admin",
            choose=lambda _connection: ["1.1"],
            details={"code": "113001^DCM"},
        )
    synced: set[str] = set()
    sync, sync_folder = disk.sync, disk.sync_folder

    def sync_and_note(descriptor: int) -> None:
        sync(descriptor)
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def sync_folder_and_note(folder: Path) -> None:
        sync_folder(folder)
        synced.add(folder.name)

    monkeypatch.setattr(disk, "sync", sync_and_note)
    monkeypatch.setattr(disk, "sync_folder", sync_folder_and_note)
    with running(tmp_path, database):
        assert synced >= {
            "landing",
            "000000000001.segment",
            "ledger",
            "000000000001.jsonl",
        }
