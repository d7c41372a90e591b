"""An archive is found by its folder and its settings file."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete
from tests.support.postgres import new_database

from pacsteward.app import (
    Place,
    first_steps,
    open_place_database,
    opened_house,
    refuse_lost_index,
)
from pacsteward.archive.fixtures import sender as sent
from pacsteward.archive.folder import FolderLock
from pacsteward.archive.ledger import Ledger
from pacsteward.archive.tables import LANDING_POSITION
from pacsteward.base.clock import SystemClock
from pacsteward.base.db.migrate import migrate
from pacsteward.base.errors import Broken, Forbidden, Invalid
from pacsteward.cli import main
from pacsteward.serve import Kind, _greet

NOBODY = 65534
"""An account that owns nothing."""


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    """Opening an archive makes the umask strict, for the whole process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_settings_file_that_was_named_and_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the defaults instead, another and empty archive would be opened."""
    with pytest.raises(Invalid, match="is not there"):
        Place.found(tmp_path, config=tmp_path / "pacstewart.toml")


def test_settings_file_in_the_data_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    (data / "pacsteward.toml").write_text("http_port = 8181\n", encoding="utf-8")
    assert Place.found(data).server.http_port == 8181


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Close `path`, and be an account that this keeps out: root it would not."""
    mode = path.stat().st_mode
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that every account may read, with settings in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "pacsteward.toml").write_text("http_port = 8181\n", encoding="utf-8")
        Place.found(folder)  # what is imported only now might be closed to another account
        yield folder


def test_current_folder_may_be_one_that_the_account_cannot_enter(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``sudo -u pacsteward`` of somebody who stands in a home of his own."""
    monkeypatch.chdir(tmp_path)
    with closed(tmp_path):
        assert Place.found(open_folder).server.http_port == 8181


def test_data_folder_of_another_account_is_no_empty_one(open_folder: Path) -> None:
    with closed(open_folder), pytest.raises(Forbidden, match="cannot be looked into"):
        Place.found(open_folder)


def test_settings_file_that_may_not_be_read_is_not_passed_over(open_folder: Path) -> None:
    file = open_folder / "pacsteward.toml"
    with closed(file), pytest.raises(Invalid, match=r"pacsteward\.toml could not be read"):
        Place.found(open_folder)


def test_command_on_a_wrong_path_says_that_there_is_no_archive_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It must not look like an archive in which nothing is amiss."""
    monkeypatch.chdir(tmp_path)
    wrong = tmp_path / "wrong"
    for _ in range(2):
        with pytest.raises(SystemExit, match="4"):
            main(["archive", "conflicts", "--data", str(wrong), "--json"])
        said = capsys.readouterr()
        assert said.out == ""
        assert f"no archive in {wrong}" in said.err
        assert not wrong.exists()


def test_settings_alone_are_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pacsteward.toml").write_text("http_port = 8181\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="4"):
        main(["access", "reset-password", "admin", "--data", str(tmp_path)])
    assert f"no archive in {tmp_path}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pacsteward.toml"]


def test_command_opens_an_archive_that_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first_steps(Place.found(tmp_path / "data"))
    with pytest.raises(SystemExit, match="0"):
        main(["archive", "conflicts", "--data", str(tmp_path / "data"), "--json"])
    assert capsys.readouterr().out == "[]\n"


def test_help_offers_no_negation_of_what_is_off_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["archive", "delete"], ["peers", "add"], ["access", "audit"], ["repl"]):
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--help"])
        told = capsys.readouterr().out
        assert "--json" in told or words == ["repl"]
        assert re.findall("--(?:no|empty)-", told) == []


def test_setting_without_effect_is_not_offered_and_told_to_whoever_sets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    assert "--http-port" in told
    assert "mllp" not in told
    for given, is_told in ((None, False), (0, False), (2576, True)):
        place = Place.found(tmp_path, overrides={"mllp_port": given})
        _greet(place, None, tuple(Kind), seconds=1.0)
        assert ("mllp_port has no effect" in capsys.readouterr().out) is is_told


def test_greeting_names_the_address_that_people_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = "http://127.0.0.1:8080/"
    _greet(Place.found(tmp_path), None, tuple(Kind), seconds=1.0)
    told = capsys.readouterr().out
    assert f"console   {here}\n" in told
    assert "listens" not in told
    (tmp_path / "pacsteward.toml").write_text('[web]\npublic_url = "https://pacs.example"\n')
    _greet(Place.found(tmp_path), None, tuple(Kind), seconds=1.0)
    told = capsys.readouterr().out
    assert "console   https://pacs.example/\n" in told
    assert "DICOMweb  https://pacs.example/dicom-web\n" in told
    assert f"listens   {here} " in told


def test_an_address_of_ipv6_is_told_in_brackets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else nobody can tell where the address ends and the port begins. None is all of them."""
    _greet(Place.found(tmp_path, overrides={"host": "::1"}), None, tuple(Kind), seconds=1.0)
    told = capsys.readouterr().out
    assert "http://[::1]:8080/" in told
    assert "at [::1]:11112" in told
    _greet(Place.found(tmp_path, overrides={"host": ""}), None, tuple(Kind), seconds=1.0)
    told = capsys.readouterr().out
    assert "http://localhost:8080/" in told
    assert "beware    it listens beyond this machine" in told


def test_peer_is_made_strict_again_by_the_negation_of_its_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    first_steps(Place.found(data))

    def levels_of_ct1(*words: str) -> bool:
        with pytest.raises(SystemExit, match="0"):
            main(["peers", *words, "--data", str(data), "--json"])
        with opened_house(Place.found(data)) as house:
            return house.peers.need("CT1").is_lenient_in_levels

    assert not levels_of_ct1("add", "CT1", "10.1.2.3", "104")
    assert levels_of_ct1("change", "CT1", "--lenient-in-levels")
    assert levels_of_ct1("change", "CT1", "--port", "105")
    assert not levels_of_ct1("change", "CT1", "--no-lenient-in-levels")


def test_check_of_an_archive_that_nobody_keeps_ends_with_9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first_steps(Place.found(tmp_path / "data"))
    with pytest.raises(SystemExit, match="9"):
        main(["monitoring", "check", "--data", str(tmp_path / "data"), "--json"])
    findings = {one["name"]: one["status"] for one in json.loads(capsys.readouterr().out)}
    assert findings["is_archive_open"] == "critical"


LISTS = ("verify", "conflicts", "set-aside", "doubtful")
CHANGES = ("reject", "restore", "delete")


def _asked(data: Path, *words: str) -> None:
    main(["archive", *words, "--data", str(data)])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an archive in which one image is stored, and that nobody keeps."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    _store_one(data)
    return data


def _store_one(data: Path) -> None:
    place = Place.found(data)
    first_steps(place)
    with (
        closing(open_place_database(place)) as database,
        sent.running(data, database) as keeping,
    ):
        keeping.store(sent.data_set("1.2.3"), "1.2.3")
        keeping.wait()


@pytest.mark.parametrize("words", [*((one,) for one in LISTS), *((one, "1.2") for one in CHANGES)])
def test_missing_index_is_told_and_no_empty_one_is_made(
    data: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero instances and no damage is what an archive says in which all is well."""
    for path in data.glob("index.db*"):
        path.unlink()
    for _ in range(2):
        with pytest.raises(SystemExit, match="9"):
            _asked(data, *words)
        said = capsys.readouterr()
        assert said.out == ""
        assert f"index of the archive in {data} is missing" in said.err
        assert "pacsteward archive rebuild" in said.err
        assert not (data / "index.db").exists()


@pytest.mark.parametrize("words", [*((one,) for one in LISTS), *((one, "1.2") for one in CHANGES)])
def test_empty_index_beside_images_is_told(
    data: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.glob("index.db*"):
        path.unlink()
    first_steps(Place.found(data))
    with pytest.raises(SystemExit, match="9"):
        _asked(data, *words)
    assert "The index does not know of the images" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(one,) for one in LISTS])
def test_half_made_index_is_told(
    data: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "run" / "rebuilding").write_text("1\n0\nend\n", encoding="ascii")
    with pytest.raises(SystemExit, match="5"):
        _asked(data, *words)
    assert "was interrupted" in capsys.readouterr().err


def test_missing_index_is_made_anew_by_a_rebuild(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.glob("index.db*"):
        path.unlink()
    with pytest.raises(SystemExit, match="0"):
        _asked(data, "rebuild")
    assert "1 instances" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        _asked(data, "verify", "--json")
    assert json.loads(capsys.readouterr().out)["instances"] == 1


def test_missing_index_is_told_where_no_segment_of_the_log_has_a_sound_head(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.glob("index.db*"):
        path.unlink()
    (segment,) = (data / "landing").glob("0*.segment")
    whole = segment.read_bytes()
    segment.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(SystemExit, match="9"):
        _asked(data, "verify")
    assert f"index of the archive in {data} is missing" in capsys.readouterr().err
    assert not (data / "index.db").exists()


SERVES = (("serve",), ("serve", "--only", "keeper"))


def _refused(data: Path, words: Sequence[str], code: int) -> None:
    """Start to serve where that cannot succeed, whatever is found out first."""
    lock = FolderLock(data)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            with pytest.raises(SystemExit, match=f"^{code}$"):
                main([*words, "--data", str(data), "--http-port", port, "--dimse-port", port])
    finally:
        lock.release()


def _made(data: Path) -> set[Path]:
    """List what is in the folder, but for the locks of those who look into it."""
    return {
        path
        for path in data.rglob("*")
        if path.parent.name != "run" and not path.name.startswith("index.db-")
    }


@pytest.mark.parametrize("words", SERVES)
@pytest.mark.parametrize("is_left", ["nothing", "an empty file"])
def test_nobody_serves_over_a_lost_index(
    data: Path, words: tuple[str, ...], is_left: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A new one would be taken for the old one: nobody in it, and its password in the journal."""
    for path in data.glob("index.db*"):
        path.unlink()
    if is_left != "nothing":
        (data / "index.db").touch()
    before = _made(data)
    for _ in range(2):
        _refused(data, words, 9)
        said = capfd.readouterr()
        assert said.out == ""
        assert "index" in said.err
        assert "`pacsteward archive rebuild`" in said.err
    assert _made(data) == before


@pytest.mark.parametrize("words", SERVES)
@pytest.mark.parametrize("has_tables", [False, True])
def test_nobody_serves_over_a_lost_index_on_postgresql(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: str,
    words: tuple[str, ...],
    has_tables: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACSTEWARD_DATABASE_URL", new_database(postgres_server))
    data = tmp_path / "data"
    _store_one(data)
    refuse_lost_index(Place.found(data))
    monkeypatch.setenv("PACSTEWARD_DATABASE_URL", new_database(postgres_server))
    if has_tables:
        with closing(open_place_database(Place.found(data))) as database:
            migrate(database, data)
    _refused(data, words, 9)
    assert "The index does not know of the images" in capfd.readouterr().err
    with pytest.raises(Broken, match="does not know"), opened_house(Place.found(data)):
        pass


def test_what_is_stored_is_seen_by_any_trace_of_it(data: Path) -> None:
    for path in data.glob("index.db*"):
        path.unlink()
    shutil.rmtree(data / "landing")
    refuse_lost_index(Place.found(data))
    big = data / "objects" / "3f" / f"3f{'0' * 30}.dcm"
    big.parent.mkdir(exist_ok=True)
    big.touch()
    with pytest.raises(Broken, match="is missing"):
        refuse_lost_index(Place.found(data))
    big.unlink()
    ledger = Ledger(data / "ledger")
    ledger.open()
    refuse_lost_index(Place.found(data))
    ledger.append(
        landed_sequence=1,
        at=SystemClock().now(),
        kind="deleted",
        actor="ada",
        sop_instance_uids=["1.2.3"],
    )
    ledger.close()
    with pytest.raises(Broken, match="is missing"):
        refuse_lost_index(Place.found(data))


def test_new_folder_and_an_interrupted_first_start_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place.found(tmp_path / "data")
    refuse_lost_index(place)
    place.data.mkdir()
    refuse_lost_index(place)
    (place.data / "index.db").touch()
    refuse_lost_index(place)
    assert first_steps(place)
    refuse_lost_index(place)
    with opened_house(place) as house, sent.running(place.data, house.database):
        pass
    for path in place.data.glob("index.db*"):
        path.unlink()
    refuse_lost_index(place)


def test_crash_right_after_the_first_image_had_landed_keeps_nobody_from_serving(
    data: Path,
) -> None:
    with closing(open_place_database(Place.found(data))) as database:
        with database.write() as connection:
            connection.execute(delete(LANDING_POSITION))
        refuse_lost_index(Place.found(data))


def test_rebuilt_archive_is_served_though_it_knows_nobody(data: Path) -> None:
    for path in data.glob("index.db*"):
        path.unlink()
    with pytest.raises(SystemExit, match="0"):
        _asked(data, "rebuild")
    refuse_lost_index(Place.found(data))


@pytest.mark.parametrize("verb", [["reject"], ["restore"], ["delete"], ["delete", "--dry-run"]])
def test_study_that_is_not_here_is_neither_hidden_nor_shown_nor_removed(
    verb: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was mistyped; "0 instances" would be taken for done."""
    monkeypatch.chdir(tmp_path)
    first_steps(Place.found(tmp_path / "data"))
    with pytest.raises(SystemExit, match="4"):
        main(["archive", *verb, "1.2.3", "1.2.4", "--data", str(tmp_path / "data")])
    assert "Not in the archive: 1.2.3, 1.2.4." in capsys.readouterr().err
