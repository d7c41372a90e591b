"""What doctor and monitoring ask about the machine itself."""

from __future__ import annotations

from pacsteward.archive import ArchiveSettings
from pacsteward.base.checks import Check, Finding
from pacsteward.feature import House, HouseCheck

GIB = 1024**3


def is_disk_roomy(house: House) -> Finding:
    """Compare the room that is left with the reserve and the warning share."""
    space = house.archive.space()
    used = 1 - space.free_bytes / space.total_bytes
    words = f"{space.free_bytes / GIB:.1f} GiB of {space.total_bytes / GIB:.1f} GiB are free."
    if space.is_full:
        return Finding(
            "critical",
            words,
            f"The reserve of {space.reserve_bytes / GIB:.1f} GiB is reached: new objects are "
            "refused with A700, and their senders try again.",
        )
    if used >= house.settings.of(ArchiveSettings).warn_share:
        return Finding("warning", words, f"{used:.0%} of the disk are used.")
    return Finding("ok", words)


def is_archive_open(house: House) -> Finding:
    """Find whether somebody takes instances in."""
    if house.archive.is_open():
        return Finding("ok", "The archive takes instances in.")
    return Finding("critical", "Nobody takes instances in.", "The doors process is not running.")


def are_conflicts_settled(house: House) -> Finding:
    """Find objects that came under a UID that was taken."""
    open_ones = house.archive.conflicts()
    if not open_ones:
        return Finding("ok", "No object came under a UID that another one has.")
    return Finding(
        "warning",
        f"{len(open_ones)} objects came under a UID that other content has; both are kept.",
        "A device reuses UIDs, or sent a changed object without giving it a new one.",
    )


def is_everything_indexed(house: House) -> Finding:
    """Find acknowledged objects that could not be indexed."""
    aside = house.archive.set_aside()
    if not aside:
        return Finding("ok", "Everything that was acknowledged can be found.")
    return Finding(
        "critical", f"{len(aside)} acknowledged objects are kept but could not be indexed."
    )


CHECKS = (
    HouseCheck(
        Check("is_disk_roomy", "Is there room on the disk?", "Free space, or add some."),
        is_disk_roomy,
    ),
    HouseCheck(
        Check("is_archive_open", "Does the archive take instances in?", "Start it anew."),
        is_archive_open,
    ),
    HouseCheck(
        Check(
            "are_conflicts_settled",
            "Is each UID borne by one object?",
            "Find the sending device by its AE title and have its vendor give new UIDs.",
        ),
        are_conflicts_settled,
    ),
    HouseCheck(
        Check(
            "is_everything_indexed",
            "Can everything that was acknowledged be found?",
            "Report it with the log; the bytes are safe.",
        ),
        is_everything_indexed,
    ),
)
