"""What everybody of a day shares: the world, its chance, and what there is to choose from."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tests.simulation.hospital import Examination, examinations
from tests.simulation.model import Content
from tests.simulation.world import DAY, World


@dataclass(slots=True)
class Scene:
    """The examinations of a world's day."""

    world: World
    chance: Random = field(init=False)
    examinations: list[Examination] = field(init=False)

    def __post_init__(self) -> None:
        self.chance = self.world.chance
        self.examinations = examinations(self.world.seed, DAY)

    def begun(self) -> list[Examination]:
        """Return those that have begun by now."""
        passed = self.world.clock.monotonic() / 3600 * 1.6
        return self.examinations[: 2 + int(passed)]

    def any(self) -> tuple[Examination, Content]:
        """Choose an object."""
        examination = self.chance.choice(self.begun())
        return examination, self.chance.choice(examination.contents)

    def any_sent(self) -> tuple[Examination, Content] | None:
        """Choose one that was acknowledged once; it may have been deleted since."""
        sent = [
            (one, content)
            for one in self.begun()
            for content in one.contents
            if content not in one.unsent
        ]
        return self.chance.choice(sent) if sent else None

    def any_study(self) -> str | None:
        """Choose a study of which something is stored."""
        studies = sorted(self.world.beliefs.picture.studies())
        return self.chance.choice(studies) if studies else None

    def label(self, study: str) -> str:
        """Return what people call a study."""
        return next(one.label for one in self.examinations if one.order.study_instance_uid == study)
