"""A day: who does what, one act after the other, as chance will have it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacsteward.base.errors import PacstewardError
from tests.simulation import survey
from tests.simulation.hospital import all_sent
from tests.simulation.modalities import Modalities
from tests.simulation.people import Administrator, Radiologist
from tests.simulation.process import Hangs
from tests.simulation.scene import Scene
from tests.simulation.story import Story
from tests.simulation.world import Broken, Refusal, World

STEPS: Final = 130


@dataclass(frozen=True, slots=True)
class Result:
    """How a day went.

    Parameters
    ----------
    broken
        What must always be true and was not; empty when all was well.
    """

    seed: int
    broken: str
    lines: tuple[str, ...]
    acts: int = 0
    ends: int = 0


class Day:
    """The people of a world and what they do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self._scene = Scene(world)
        self._modalities = Modalities(self._scene)
        self._radiologist = Radiologist(self._scene)
        self._administrator = Administrator(self._scene)
        self._trouble_ends_at = 0.0

    def run(self) -> None:
        """Have the day pass, hour by hour, and its evening."""
        self._world.begin()
        for step in range(STEPS):
            self._world.clock.advance(self._chance.choice((5, 20, 60, 300, 600)))
            self._pass_trouble()
            self._choose()()
            if step % 25 == 24:
                self._world.check("now and then")
        self._evening()

    def _choose(self) -> Callable[[], None]:
        acts: Sequence[tuple[float, Callable[[], None]]] = (
            (26, self._modalities.send_what_waits),
            (7, self._modalities.send_again),
            (3, self._modalities.send_in_implicit_vr),
            (5, self._modalities.reuse_a_uid),
            (3, self._modalities.be_cut_off),
            (2, self._modalities.lie),
            (2, self._modalities.give_up),
            (5, self._modalities.be_slow),
            (8, self._radiologist.look),
            (4, self._radiologist.open_a_study),
            (5, self._administrator.reject),
            (4, self._administrator.restore),
            (5, self._administrator.delete),
            (1.5, self._administrator.verify),
            (1, self._index_is_made_anew),
            (1.5, self._administrator.seal),
            (2, self._house_reopens),
            (8, self._house_goes_on),
            (6, self._indexer_catches_up),
            (5, self._porter_tidies),
            (2, self._clock_jumps),
            (2, self._trouble_comes),
        )
        (act,) = self._chance.choices([act for _, act in acts], [weight for weight, _ in acts])
        return act

    # --- the house --------------------------------------------------------------------------

    def _house_reopens(self) -> None:
        if not self._world.process.database.is_away:
            self._modalities.let_slow_go()
            self._world.reopen()

    def _index_is_made_anew(self) -> None:
        if not self._world.process.database.is_away:
            self._modalities.let_slow_go()
            self._world.rebuild()

    def _house_goes_on(self) -> None:
        if not self._world.settle():
            return
        said = self._world.attempt(
            "the house", "tells facts and runs jobs", self._world.afterwards.go_on
        )
        if isinstance(said, Refusal):
            self._world.outside.disturbed()
            self._world.must_have_reason(said)

    def _indexer_catches_up(self) -> None:
        self._world.settle()

    def _porter_tidies(self) -> None:
        if not self._world.settle():
            return
        spares = self._world.process.keeper._spares

        def tidy() -> None:
            spares._is_busy = lambda: False
            try:
                spares._reclaim_all()
                if spares._is_short():
                    spares._prepare()
            except (OSError, PacstewardError):
                # As its own thread does: it is for comfort only.
                return

        self._world.attempt("the porter", "uses segments anew", tidy)

    def _clock_jumps(self) -> None:
        seconds = self._chance.choice((-3600, -600, -1, 1, 600, 3600))
        self._world.clock.jump(seconds)
        self._world.tell("the clock", f"jumps by {seconds} s")

    # --- trouble that lasts ------------------------------------------------------------------

    def _trouble_comes(self) -> None:
        world = self._world
        self._trouble_ends_at = world.clock.monotonic() + self._chance.choice((60, 600, 1800))
        kind = self._chance.choice(("away", "away", "full", "answer"))
        if kind == "away":
            world.process.database.is_away = True
            world.tell("the database", "does not answer any more")
        elif kind == "full":
            world.process.free_bytes = 0
            world.tell("the disk", "has reached its reserve")
        else:
            world.process.database.loses_answers = 1
            world.tell("the database", "will not confirm its next commit")

    def _pass_trouble(self) -> None:
        process = self._world.process
        is_over = self._world.clock.monotonic() >= self._trouble_ends_at
        if is_over and process.database.is_away:
            process.database.is_away = False
            self._world.tell("the database", "is back")
        if is_over and not process.free_bytes:
            process.free_bytes = 1 << 40
            self._world.tell("the disk", "has room again")

    # --- the evening -------------------------------------------------------------------------

    def _evening(self) -> None:
        """Have everything come to its end, and look at all of it once more."""
        world = self._world
        world.is_calm = True
        self._trouble_ends_at = 0.0
        world.process.database.loses_answers = 0
        self._pass_trouble()
        self._modalities.let_slow_go()
        world.tell("the world", "is calm from now on")
        while not all_sent(self._scene.examinations):
            for examination in self._scene.examinations:
                for content in list(examination.unsent):
                    if not self._modalities.send(examination, content):
                        raise Broken(f"{content.label} was refused without a reason.")
        world.check("in the evening")
        world.reopen()
        for _ in range(8):
            world.clock.advance(600)
            self._house_goes_on()
        self._everything_followed()
        world.verify()
        world.rebuild()
        world.verify()

    def _everything_followed(self) -> None:
        world = self._world
        database = world.process.database
        if waiting := survey.unfinished(database):
            raise Broken(f"Something never ends: {waiting[:5]}")
        if behind := world.afterwards.behind():
            raise Broken(f"Facts were not told: {behind}")
        versions = [
            (fact["study_instance_uid"], fact["version"])
            for fact in survey.facts(database, "study_completed")
        ]
        if len(set(versions)) != len(versions):
            raise Broken("A study was announced as complete twice in the same version.")
        outside = world.outside
        for key, count in world.beliefs.picture.announced.items():
            told = outside.told[key]
            if not count <= told <= count + outside.disturbances:
                raise Broken(f"{key} was announced {count} times and told {told} times.")
        for study in world.beliefs.picture.studies():
            for uid, content in world.beliefs.picture.shown(study).items():
                if outside.peer.get((study, uid)) != content.digest:
                    raise Broken(f"The slow peer has not got {content.label}.")


def live(
    seed: int,
    folder: Path,
    template: Path,
    *,
    database_url: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Result:
    """Live the day of a seed.

    Parameters
    ----------
    folder
        Empty.
    template
        An embedded database with all tables.
    database_url
        PostgreSQL with all tables, to be used instead.
    say
        Given each line of the story.
    """
    story = Story(say)
    world = World(seed, folder, database_url, template, story)
    broken = ""
    try:
        Day(world).run()
    except (Broken, Hangs) as error:
        broken = str(error)
    except Exception:  # noqa: BLE001 — whatever it is, the story ends with it, and is told
        broken = f"Nobody expected this:\n{traceback.format_exc()}"
    try:
        world.leave()
    except Hangs as error:
        broken = broken or str(error)
    return Result(seed, broken, tuple(story.lines), len(story.lines), sum(world.ends.values()))
