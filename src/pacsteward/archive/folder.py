"""The data folder: who may write to it, and in which format it is.

``DIR/format.json`` says the format of the whole folder and the name of its landing log (its
*node*) among those that may share a database. A folder that a later version wrote is refused.
``DIR/run/lock`` is locked by the keeper, so a second one is refused; the lock goes with its
process. Foreign files in the folder are never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pacsteward.archive import disk
from pacsteward.archive.segment import newer_format
from pacsteward.base.clock import Clock
from pacsteward.base.errors import Broken, Conflict

VERSION: Final = 1

_FORMAT: Final = "format.json"
_REBUILDING: Final = "rebuilding"
_END_OF_MARK: Final = "end"


class FolderLock:
    """The keeper's lock on a data folder.

    Raises
    ------
    Conflict
        Another process holds it.
    """

    def __init__(self, data_folder: Path) -> None:
        run_folder = data_folder / "run"
        run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = disk.open_file(run_folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise Conflict(
                f"The data folder {data_folder} is in use.",
                why=f"Process {holder or 'unknown'} keeps it.",
                remedy="Stop that one first, or use another data folder.",
            ) from None
        # For whoever is refused; the lock holds without it, and a full disk must not keep the
        # archive from starting and being read.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process in."""
        os.close(self._descriptor)


def open_folder(data_folder: Path, clock: Clock) -> str:
    """Check the folder's format, and return the name of its node.

    Raises
    ------
    Unsupported
        A later version wrote it.
    Broken
        ``format.json`` is damaged.
    """
    path = data_folder / _FORMAT
    if not path.exists():
        _write_format(data_folder, clock)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version, node = int(found["format"]), str(found["node"])
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(
            f"{path} cannot be read.",
            why=f"{type(error).__name__}: it should name a format and a node.",
            remedy="Restore it from the backup.",
        ) from error
    if version > VERSION:
        raise newer_format("format", version, VERSION)
    return node


@dataclass(frozen=True, slots=True)
class BeforeRebuild:
    """What an index knew that cannot be read from the stored bytes.

    Parameters
    ----------
    sequence
        How far it had come in the landing log.
    ledger_sequence
        How far it had come in the ledger.
    incomplete_studies
        Study Instance UIDs of those that were not announced as complete yet.
    """

    sequence: int
    ledger_sequence: int = 0
    incomplete_studies: tuple[str, ...] = ()


def known_before(data_folder: Path, before: BeforeRebuild) -> BeforeRebuild:
    """Return what the old index knew: what it says now, or said before an interrupted attempt."""
    path = data_folder / "run" / _REBUILDING
    if path.exists() and (found := _read_mark(path)) is not None:
        return replace(
            found,
            sequence=max(found.sequence, before.sequence),
            ledger_sequence=max(found.ledger_sequence, before.ledger_sequence),
        )
    return before


def mark_half_made_index(data_folder: Path, before: BeforeRebuild) -> None:
    """Say durably that the index is being made anew and is not whole.

    The mark of an interrupted attempt stays as it is: what it says was found before anything was
    thrown away.
    """
    path = data_folder / "run" / _REBUILDING
    if path.exists() and _read_mark(path) is not None:
        return
    numbers = f"{before.sequence}\n{before.ledger_sequence}"
    lines = [numbers, *before.incomplete_studies, _END_OF_MARK]
    descriptor = disk.open_file(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        disk.write_all(descriptor, ["".join(f"{line}\n" for line in lines).encode()], 0)
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
    disk.sync_folder(path.parent)


def _read_mark(path: Path) -> BeforeRebuild | None:
    """Return what a mark says; None for one that is not whole, before which nothing was changed."""
    first, *rest = path.read_text(encoding="ascii", errors="replace").split("\n")
    if not first.isdigit():
        return None
    if _END_OF_MARK not in rest:
        # Of a version that noted the sequence only.
        return BeforeRebuild(int(first)) if rest == [""] else None
    second, *studies = rest[: rest.index(_END_OF_MARK)]
    return BeforeRebuild(int(first), int(second), tuple(studies))


def unmark_half_made_index(data_folder: Path) -> None:
    """Say that the index is whole again."""
    path = data_folder / "run" / _REBUILDING
    path.unlink(missing_ok=True)
    disk.sync_folder(path.parent)


def refuse_half_made_index(data_folder: Path) -> None:
    """Return if the index is whole.

    Raises
    ------
    Conflict
        A rebuild was interrupted. To go on from there would announce as new what is old.
    """
    if (data_folder / "run" / _REBUILDING).exists():
        raise Conflict(
            "The archive cannot be opened.",
            why="The index was being made anew, and that was interrupted.",
            remedy="Run `pacsteward archive rebuild` again.",
        )


def _write_format(data_folder: Path, clock: Clock) -> None:
    text = json.dumps(
        {
            "format": VERSION,
            "node": secrets.token_hex(8),
            "created_at": clock.now().isoformat(),
            "written_by": "pacsteward",
        },
        indent=1,
    )
    temporary = data_folder / f".{_FORMAT}.new"
    descriptor = disk.open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        disk.write_all(descriptor, [text.encode()], 0)
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
    disk.rename(temporary, data_folder / _FORMAT)
    disk.sync_folder(data_folder)
    # The folder is new as a rule, and its own name is in the one above, which need not be ours.
    with contextlib.suppress(PermissionError):
        disk.sync_folder(data_folder.resolve().parent)
