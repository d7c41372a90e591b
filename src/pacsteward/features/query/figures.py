"""Numbers of studies that overviews show, each with the list behind it."""

from __future__ import annotations

from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query, parse_criterion
from pacsteward.dicom.tags import STUDY_DATE
from pacsteward.feature import Figure, House


def studies(house: House) -> int:
    """Count the studies that readers can see."""
    return house.archive.count(Query(Level.STUDY))


def studies_of_today(house: House) -> int:
    """Count the studies that were made today."""
    today = house.clock.now().astimezone().date()
    criterion = parse_criterion(STUDY_DATE, "DA", f"{today:%Y%m%d}")
    return house.archive.count(Query(Level.STUDY, {STUDY_DATE: criterion}))


FIGURES = (
    Figure("studies", "Studies", studies, "/studies"),
    Figure("studies_of_today", "Studies of today", studies_of_today, "/studies?days=today"),
)
