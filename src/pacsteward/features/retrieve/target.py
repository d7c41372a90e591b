"""What a request of WADO-RS names: a study, a series, an instance, frames of it.

References
----------
PS3.18 10.1.2 (the paths), 10.4.1.1.6 (lists of frames).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pacsteward.archive import Archive, Instance, PromptArchive, Selection
from pacsteward.base.errors import Invalid, NotFound, WouldWait
from pacsteward.dicom.uids import check_uid
from pacsteward.dicom.web.answers import Request
from pacsteward.feature import House

_FRAMES_MAX: Final = 10_000

_KEYWORDS: Final = (
    ("study", "StudyInstanceUID"),
    ("series", "SeriesInstanceUID"),
    ("instance", "SOPInstanceUID"),
)
"""The fields of a `Target` in their order, and what they are."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the path names."""

    study: str
    series: str = ""
    instance: str = ""

    @classmethod
    def of(cls, request: Request) -> Target:
        """Read the UIDs of the path.

        Raises
        ------
        Invalid
            One of them is no UID.
        """
        parameters = request.path_params
        return cls(
            *[
                check_uid(parameters[name], keyword) if name in parameters else ""
                for name, keyword in _KEYWORDS
            ]
        )

    def instances(self, house: House) -> list[Instance]:
        """List what the path names, in viewing order.

        Raises
        ------
        NotFound
            There is nothing of the kind.
        """
        if self.instance:
            return [self.one(house.archive)]
        found = house.archive.instances(
            Selection(
                study_instance_uids=(self.study,),
                series_instance_uids=(self.series,) if self.series else (),
            )
        )
        if not found:
            raise NotFound(
                f"There is no {'series' if self.series else 'study'} "
                f"{self.series or self.study} here.",
                remedy="Look for it by a query; it may have been rejected or deleted.",
            )
        return found

    def one(self, archive: Archive | PromptArchive) -> Instance:
        """Return the one instance that the path names."""
        return archive.instance(self.study, self.series, self.instance)


def record(house: House, request: Request, target: Target) -> None:
    """Write into the audit book who saw what."""
    house.audit.record_access(request.state.actor, (target.study,))


def recorded_target(house: House, request: Request) -> Target:
    """Return what the path names, for an answer that cannot wait for the audit book."""
    target = Target.of(request)
    if not house.audit.has_recorded_access(request.state.actor, (target.study,)):
        raise WouldWait
    return target


def frame_list(text: str) -> list[int]:
    """Return the numbers of a list of frames, from 1 on.

    Raises
    ------
    Invalid
        It is no list, or a very long one.
    """
    numbers = text.split(",")
    if len(numbers) <= _FRAMES_MAX and all(
        number.isascii() and number.isdigit() and len(number) < 10 and int(number) > 0
        for number in numbers
    ):
        return [int(number) for number in numbers]
    raise Invalid(
        "The list of frames was not understood.",
        why="It must be numbers from 1 on, separated by commas (PS3.18 10.4.1.1.6).",
        remedy="Write it as, for instance, frames/1,2,3.",
    )
