"""An archive is found by its folder and its settings file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsteward.app import Place, first_steps
from pacsteward.base.errors import Invalid
from pacsteward.cli import main


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
