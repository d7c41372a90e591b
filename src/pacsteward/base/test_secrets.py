"""Secrets are made once, are the same for everybody, and can be read by nobody else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pacsteward.base.errors import Broken, Unavailable
from pacsteward.base.secrets import Secrets


def test_secret_is_made_once_and_kept_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    secret = Secrets(folder).get_or_create("audit_seal", 48)
    assert len(secret) == 48
    assert Secrets(folder).get_or_create("audit_seal") == secret
    assert Secrets(folder).get_or_create("form_token") != secret
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_everybody_who_asks_at_once_is_given_the_same(tmp_path: Path) -> None:
    given: list[bytes] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        given.append(Secrets(tmp_path).get_or_create("form_token"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 8
    assert len(set(given)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["form_token"]


def test_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Secrets(tmp_path).get_or_create("audit_seal")
    (tmp_path / "audit_seal").chmod(0o644)
    with pytest.raises(Broken, match="0644"):
        Secrets(tmp_path).get_or_create("audit_seal")


def test_empty_secret_is_refused_and_not_made_anew(tmp_path: Path) -> None:
    """A new one would silently break every seal made with the old one."""
    (tmp_path / "audit_seal").touch(mode=0o600)
    with pytest.raises(Broken):
        Secrets(tmp_path).get_or_create("audit_seal")


@pytest.mark.parametrize("name", ["../key", "", "a/b", ".hidden", "A", "x" * 65])
def test_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        Secrets(tmp_path).get_or_create(name)


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="audit_seal"):
        Secrets(tmp_path / "file" / "secrets").get_or_create("audit_seal")
    assert os.listdir(tmp_path) == ["file"]
