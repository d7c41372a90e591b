"""Random secrets that the house makes for itself and keeps in files nobody else can read.

The key that seals the audit book is one: made on first use, kept in ``DIR/secrets``, never in the
database, so that a copy of the database does not give it away.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from pacsteward.base.errors import Broken, Unavailable

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class Secrets:
    """The secrets of one data folder.

    Parameters
    ----------
    folder
        Where they are; made, for the owner alone, when the first one is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get_or_create(self, name: str, size: int = 32) -> bytes:
        """Return the secret called `name`; `size` random bytes when it is new.

        Processes that ask for a new one at the same time are given the same. It is synced before
        it is returned: what is sealed with it must not outlive it.

        Raises
        ------
        Broken
            The file is there and cannot be right: empty, or readable by others.
        Unavailable
            The folder cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a secret.")
        path = self._folder / name
        try:
            if not path.exists():
                self._create(path, size)
            return self._read(path)
        except OSError as error:
            raise Unavailable(
                f"The secret {name} could not be read or made.",
                why=f"{error.strerror or type(error).__name__}: {path}.",
                remedy="See that the data folder belongs to the account the archive runs under.",
            ) from error

    def _create(self, path: Path, size: int) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder that was there before, or a loose umask of whoever made it.
        self._folder.chmod(0o700)
        draft = self._folder / f".{path.name}.{secrets.token_hex(8)}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(size))
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, leaves the one that was first.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read()
        if mode & 0o077:
            raise Broken(
                f"The secret {path.name} may be read by others.",
                why=f"{path} has the mode {mode & 0o777:04o}, 0600 is expected.",
                remedy=f"Find out who read it, then: chmod 600 {path}",
            )
        if not secret:
            raise Broken(
                f"The secret {path.name} is empty.",
                why=f"{path} has no bytes.",
                remedy="Bring it back from a backup of the data folder.",
            )
        return secret
