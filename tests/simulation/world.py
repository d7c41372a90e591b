"""The world of one seed: its clock, its chance, its trouble, and the archive that lives in it.

`World.attempt` is the one way in which anything is asked of the archive: trouble may be armed for
it, the process may end in it, and what the archive answers is compared with what it should have
answered. After a process has ended the next one begins over what it left behind, and is looked at
before the day goes on.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest import mock

from pacsteward.archive import ArchiveSettings
from pacsteward.base.clock import ManualClock
from pacsteward.base.errors import Conflict, Exhausted, PacstewardError, Unavailable
from tests.simulation import survey
from tests.simulation.afterwards import Afterwards, Outside
from tests.simulation.model import Beliefs, Change
from tests.simulation.process import Hangs, Process
from tests.simulation.story import Story
from tests.simulation.trouble import ENDS, Deed, Died, Trouble

T = TypeVar("T")

DAY: Final = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)
SEAL_KEY: Final = b"simulated seal key, thirty-two b"
_KIB: Final = 1024
_DEEDS: Final[Sequence[Deed]] = (
    "the power fails",
    "the power fails",
    "the process is killed",
    "the disk fails",
    "the disk fails",
    "the disk is full",
)


class Broken(AssertionError):
    """Something that must always be true is not."""


@dataclass(slots=True)
class Refusal:
    """The archive said no.

    Parameters
    ----------
    trouble
        What was armed when it did.
    is_unconfirmed
        Whether a commit was kept that nobody was told of.
    """

    error: PacstewardError
    trouble: Trouble | None
    is_unconfirmed: bool = False


@dataclass(slots=True)
class CutShort:
    """The process ended before there was an answer."""


def settings_of(chance: random.Random) -> ArchiveSettings:
    """Return settings under which a little data fills several segments."""
    usual = ArchiveSettings(reserve_bytes=0, study_quiet_s=120.0, watermark_wait_s=20.0)
    return usual.model_copy(
        update={
            "acknowledge": chance.choice(("landed", "landed", "landed", "indexed")),
            "segment_bytes": chance.choice((96, 160, 256)) * _KIB,
            "big_object_bytes": chance.choice((24, 64, 1024)) * _KIB,
            "prepared_segments": chance.choice((0, 0, 2)),
        }
    )


@dataclass(slots=True)
class World:
    """See the top of the file.

    Parameters
    ----------
    folder
        Empty; everything of this world is below it.
    database_url
        PostgreSQL with all tables; None takes a copy of `template`.
    template
        An embedded database with all tables.
    """

    seed: int
    folder: Path
    database_url: str | None
    template: Path
    story: Story
    clock: ManualClock = field(default_factory=lambda: ManualClock(DAY))
    beliefs: Beliefs = field(default_factory=Beliefs)
    outside: Outside = field(default_factory=Outside)
    chance: random.Random = field(init=False)
    is_calm: bool = False
    """Whether nothing goes wrong any more."""
    ends: Counter[str] = field(default_factory=Counter)
    """How often the process ended, by how."""
    etags: dict[str, str] = field(default_factory=dict)
    process: Process = field(init=False)
    afterwards: Afterwards = field(init=False)
    last_trouble: Trouble | None = None
    """What was armed for the last attempt."""
    _settings: ArchiveSettings = field(init=False)
    _troubles: float = 0.0
    """Share of acts that trouble is armed for; some worlds are worse than others."""
    _lives: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(f"simulation/{self.seed}")
        self._settings = settings_of(self.chance)
        self._troubles = self.chance.choice((0.04, 0.08, 0.2))

    # --- living -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the archive for the first time."""
        first = self.folder / "life-0"
        first.mkdir()
        if self.database_url is None:
            shutil.copyfile(self.template, first / "index.db")
        self.tell(
            "the house",
            f"opens: Success waits for {self._settings.acknowledge}, segments of "
            f"{self._settings.segment_bytes // _KIB} KiB, big objects over "
            f"{self._settings.big_object_bytes // _KIB} KiB, "
            f"{'PostgreSQL' if self.database_url else 'SQLite'}",
        )
        self._live_in(first)
        self._open()

    def _live_in(self, folder: Path, *, has_lost_power: bool = False) -> None:
        self._lives += 1
        earlier = self.process if self._lives > 1 and not has_lost_power else None
        self.process = Process(folder, self.database_url, self.clock, self._settings, self._lives)
        if earlier is not None:
            self.process.unsynced.inherit(earlier.unsynced)
            self.process.database.inherit(earlier.database)
        self.afterwards = Afterwards(self)

    def _open(self) -> None:
        """Open the archive, however often it takes, and look whether all is there."""
        while True:
            said = self.attempt("the house", "opens the archive", lambda: self.process.start())
            if isinstance(said, CutShort):
                return
            if said is None:
                break
            if isinstance(said.error, Conflict):
                self.tell("the house", "has a half-made index", str(said.error.what))
                self._close()
                self._rebuild()
                return
            self._close()
            self._live_in(self.process.folder)
        self.beliefs.may_have_come_to_light()
        self.check("after it was opened")

    def _close(self) -> None:
        self.process.close()

    def leave(self) -> None:
        """End whatever still lives, and remove what it left."""
        self.process.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def reopen(self) -> None:
        """Close the archive as it should be, and open it again."""
        if isinstance(self.attempt("the house", "closes the archive", self._stop), CutShort):
            return
        self._close()
        self._live_in(self.process.folder)
        self._open()

    def _stop(self) -> None:
        self.process.stop()

    def rebuild(self) -> None:
        """Close the archive, make the index anew, compare it with the old one, and open it."""
        self.settle()
        before = survey.index(self.process.database)
        self.process.act(self.process.stop)
        self._close()
        self._live_in(self.process.folder)
        self._rebuild(before)

    def _rebuild(self, before: dict[str, list[Any]] | None = None) -> None:
        while True:
            said = self.attempt(
                "administrator", "has the index made anew", lambda: self.process.archive.rebuild()
            )
            if isinstance(said, CutShort):
                return
            if not isinstance(said, Refusal):
                break
        if before is not None and self.beliefs.is_certain:
            after = survey.index(self.process.database)
            for table in before:
                if before[table] != after[table]:
                    lost = [row for row in before[table] if row not in after[table]]
                    new = [row for row in after[table] if row not in before[table]]
                    raise Broken(f"A rebuild changed {table}: {lost[:2]} became {new[:2]}")
        self._close()
        self._live_in(self.process.folder)
        self._open()

    # --- asking -----------------------------------------------------------------------------

    def attempt(
        self,
        who: str,
        what: str,
        deed: Callable[[], T],
        *,
        changes: Sequence[Change] = (),
        may_last: bool = False,
        words: Callable[[T], str] = lambda value: "" if value is None else str(value),
    ) -> T | Refusal | CutShort:
        """Have something done, in whatever trouble comes.

        Parameters
        ----------
        changes
            What has happened, or not, if there is no answer.
        may_last
            Whether the disk may fail for good until this is over.
        words
            Say what was answered.
        """
        self.last_trouble = trouble = self._trouble(may_last=may_last)
        process = self.process
        lost = process.database.answers_lost
        try:
            with process.fate.armed(trouble):
                value = process.act(deed)
        except Died:
            assert trouble is not None
            self.tell(who, what, f"no answer: {trouble.deed} ({trouble.struck_at})")
            self.beliefs.may_have_happened(changes)
            self._go_on_after(trouble.deed)
            return CutShort()
        except PacstewardError as error:
            self.tell(who, what, f"refused: {_reason(error, trouble)}")
            return Refusal(error, trouble, process.database.answers_lost > lost)
        self.tell(who, what, words(value))
        return value

    def must_have_reason(self, refusal: Refusal) -> None:
        """Complain of a refusal that no trouble explains."""
        is_struck = refusal.trouble is not None and refusal.trouble.struck_at
        is_unheard = refusal.is_unconfirmed
        has_reason = (
            is_struck or is_unheard or self.process.database.is_away or not self.process.free_bytes
        )
        if not has_reason or not isinstance(refusal.error, Unavailable | Exhausted):
            raise Broken(f"The archive refused without a reason: {refusal.error!r}")

    def _trouble(self, *, may_last: bool) -> Trouble | None:
        if self.is_calm or self.chance.random() > self._troubles:
            return None
        deed = self.chance.choice(_DEEDS)
        may_last = may_last and deed not in ENDS and self.process.is_lagging
        lasts = may_last and self.chance.random() < 0.3
        return Trouble(deed, self.chance.choice((1, 1, 2, 2, 3, 4, 5, 7, 11)), lasts)

    def _go_on_after(self, deed: Deed) -> None:
        self.ends[deed] += 1
        target = self.folder / f"life-{self._lives}"
        self.process.leave_behind(target, self.chance)
        self.outside.disturbed()
        self._live_in(target, has_lost_power=deed == "the power fails")
        self._open()

    def tell(self, who: str, what: str, answer: str = "") -> None:
        """Add a line to the story."""
        self.story.tell(self.clock.now(), who, what, answer)

    # --- looking ----------------------------------------------------------------------------

    def settle(self) -> bool:
        """Let the index catch up; false when the process ended over it."""
        if self.process.database.is_away:
            return False
        said = self.attempt("the indexer", "catches up", self.process.catch_up)
        return not isinstance(said, CutShort | Refusal)

    def check(self, when: str) -> None:
        """Compare all that is there with what should be there."""
        process = self.process
        if process.database.is_away:
            return
        process.act(process.catch_up)
        found = process.act(lambda: survey.look(process.archive, process.database))
        if not self.beliefs.keep(found.fits):
            words = "\n  ".join(found.differences(self.beliefs.picture)[:12])
            raise Broken(
                f"What is there {when} is not what should be there, by the likeliest of "
                f"{len(self.beliefs.pictures)} pictures:\n  {words}"
            )
        chain = process.act(lambda: process.audit.verify(seal_key=SEAL_KEY))
        if not chain.is_whole:
            raise Broken(f"The chain of the audit book is broken {when}: {chain.faults}")
        self.tell(
            "the checker", f"looks {when}", f"{len(found.kept)} instances, all as they should be"
        )

    def verify(self) -> None:
        """Have every stored byte compared with its checksum."""
        process = self.process
        report = process.act(process.archive.verify)
        self.tell("administrator", "verifies", f"{report.instances} copies")
        if report.damages:
            raise Broken(f"The archive finds itself damaged: {report.damages[:3]}")


def _reason(error: PacstewardError, trouble: Trouble | None) -> str:
    words = f"{error.kind}"
    if trouble is not None and trouble.struck_at:
        words += f" ({trouble.deed}, {trouble.struck_at})"
    return words


@contextmanager
def quiet_surroundings() -> Iterator[None]:
    """Keep what simulated trouble says out of the log of the real process."""

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not isinstance(arguments.exc_value, Died):
            threading.__excepthook__(arguments)

    logging.disable(logging.CRITICAL)
    try:
        with mock.patch.object(threading, "excepthook", hook):
            yield
    finally:
        logging.disable(logging.NOTSET)


__all__ = ["Broken", "CutShort", "Hangs", "Refusal", "World", "quiet_surroundings"]
