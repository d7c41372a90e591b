"""What the health page and monitoring ask about the machine and the work behind the scenes."""

from __future__ import annotations

from functools import partial

from pacsteward.archive import ArchiveSettings
from pacsteward.base.checks import Check, Finding
from pacsteward.base.events import Subscriber, cursors
from pacsteward.feature import House, HouseCheck
from pacsteward.features.monitoring.attention import page_of

GIB = 1024**3


def is_disk_roomy(house: House) -> Finding:
    """Compare the room that is left with the reserve and the warning share."""
    space = house.archive.space()
    used = 1 - space.free_bytes / space.total_bytes
    words = f"{_room(space.free_bytes)} of {_room(space.total_bytes)} are free."
    if space.is_full:
        return Finding(
            "critical",
            words,
            f"The reserve of {_room(space.reserve_bytes)} is reached: new objects are "
            "refused with A700, and their senders try again.",
        )
    if used >= house.settings.of(ArchiveSettings).warn_share:
        return Finding("warning", words, f"{used:.0%} of the disk are used.")
    return Finding("ok", words)


def _room(size_bytes: int) -> str:
    """Write a size as disks are spoken of; a small one not as "0.0 GiB"."""
    if size_bytes < GIB:
        return f"{size_bytes / 1024**2:.0f} MiB"
    return f"{size_bytes / GIB:.1f} GiB"


def is_archive_open(house: House) -> Finding:
    """Find whether somebody takes instances in."""
    if house.archive.is_open():
        return Finding("ok", "The archive takes instances in.")
    return Finding(
        "critical", "Nobody takes instances in.", "The keeper process does not run, or hangs."
    )


def do_processes_run(house: House) -> Finding:
    """Find processes that no longer say what they count."""
    silent = house.snapshots.silent(tuple(_WITHOUT))
    if not silent:
        return Finding("ok", "The processes beside this one run.")
    if house.archive.space().is_full:
        return Finding(
            "unknown",
            "Whether the other processes run was not found out.",
            "On a full disk they cannot write down that they do.",
            "Free space, or add some.",
        )
    if house.snapshots.silent(("keeper",)) and house.archive.is_open():
        return Finding(
            "unknown",
            "Whether the other processes run was not found out.",
            "Not even the keeper, which does run, could write down that it does.",
            "Look whether the disk of the data folder can be written, and let the archive do so.",
        )
    return Finding(
        "critical",
        " ".join(_WITHOUT[name] for name in silent),
        f"No sign of life comes from {' and '.join(silent)}.",
    )


_WITHOUT = {
    "doors": "No modality or workstation is let in by DIMSE.",
    "jobs": "No job is done.",
}
"""What does not happen while a process does not run."""


def are_conflicts_settled(house: House) -> Finding:
    """Find objects that came under a UID that was taken."""
    open_ones = house.archive.waiting().conflicts
    if not open_ones:
        return Finding("ok", "No object came under a UID that another one has.")
    return Finding(
        "warning",
        f"{open_ones} {'object' if open_ones == 1 else 'objects'} came under a UID that "
        "other content has; both are kept.",
        "A device reuses UIDs, or sent a changed object without giving it a new one.",
        link=page_of("conflict"),
    )


def are_patients_known(house: House) -> Finding:
    """Find studies that came without a patient ID, or with one that DICOM does not allow."""
    studies = house.archive.waiting().doubtful_patients
    newest = next(iter(house.archive.doubtful_patients(limit=1)), None)
    if newest is None:
        return Finding("ok", "Every study says whose it is.")
    return Finding(
        "warning",
        f"{studies} {'study does' if studies == 1 else 'studies do'} not say for "
        f"certain whose they are, the latest is {newest.study_instance_uid}.",
        f"Its patient ID is {newest.identity_doubt}.",
        link=page_of("doubtful"),
    )


def is_everything_indexed(house: House) -> Finding:
    """Find acknowledged objects that could not be indexed."""
    aside = house.archive.waiting().set_aside
    if not aside:
        return Finding("ok", "Everything that was acknowledged can be found.")
    return Finding(
        "critical",
        f"{aside} acknowledged {'object is' if aside == 1 else 'objects are'} kept but "
        "could not be indexed.",
        link=page_of("set-aside"),
    )


def are_facts_told(house: House) -> Finding:
    """Find listeners that fail at a fact, so that what follows it waits."""
    listeners = [
        Subscriber(one.name, one.facts, partial(one.handler, house))
        for room in house.rooms
        for one in room.listens
    ]
    stuck = [one for one in cursors(house.database, listeners) if one.attempts]
    if not stuck:
        return Finding("ok", "What happened was told to everybody who listens.")
    worst = max(stuck, key=lambda one: one.behind)
    return Finding(
        "warning",
        f"{', '.join(one.subscriber for one in stuck)} cannot handle a fact; {worst.behind} wait.",
        f"It was tried {worst.attempts} times: {worst.last_error}",
    )


def do_jobs_succeed(house: House) -> Finding:
    """Find jobs that were given up."""
    failed = [one for one in house.jobs.kinds() if one.failed]
    if not failed:
        return Finding("ok", "No job was given up.")
    words = ", ".join(f"{one.failed} of {one.kind}" for one in failed)
    return Finding(
        "warning",
        f"Jobs were given up after their last attempt: {words}.",
        link="/jobs?state=failed",
    )


def is_work_started(house: House) -> Finding:
    """Find kinds of work that are paused: nothing of them is done, and nothing fails."""
    paused = [one for one in house.jobs.kinds() if one.is_paused]
    if not paused:
        return Finding("ok", "No kind of work is paused.")
    words = ", ".join(f"{one.kind} ({one.waiting} wait)" for one in paused)
    return Finding("warning", f"No jobs are started of {words}.", "It is paused.", link="/jobs")


CHECKS = (
    HouseCheck(
        Check("is_disk_roomy", "Is there room on the disk?", "Free space, or add some."),
        is_disk_roomy,
    ),
    HouseCheck(
        Check(
            "is_archive_open",
            "Does the archive take instances in?",
            "Start the archive anew: `systemctl restart pacsteward` where it is a service.",
        ),
        is_archive_open,
    ),
    HouseCheck(
        Check(
            "do_processes_run",
            "Do all processes run?",
            "The log says why it does not: `logs/pacsteward.log` in the data folder. Start the "
            "archive anew: `systemctl restart pacsteward` where it is a service. It is told of a "
            "process that is left out on purpose (`serve --only`), too.",
        ),
        do_processes_run,
    ),
    HouseCheck(
        Check(
            "are_conflicts_settled",
            "Is each UID borne by one object?",
            "Compare both on the page Attention, or list them by `pacsteward archive conflicts`; "
            "have the vendor of the sending device give new UIDs.",
        ),
        are_conflicts_settled,
    ),
    HouseCheck(
        Check(
            "are_patients_known",
            "Does every study say whose it is?",
            "The page Attention and `pacsteward archive doubtful` name them; have the sending "
            "device corrected.",
        ),
        are_patients_known,
    ),
    HouseCheck(
        Check(
            "is_everything_indexed",
            "Can everything that was acknowledged be found?",
            "The page Attention and `pacsteward archive set-aside` name them; report it. The bytes "
            "are safe.",
        ),
        is_everything_indexed,
    ),
    HouseCheck(
        Check(
            "are_facts_told",
            "Is everybody told what happened?",
            "It is tried again by itself; remove the cause, which the log has with its place.",
        ),
        are_facts_told,
    ),
    HouseCheck(
        Check(
            "do_jobs_succeed",
            "Does the work behind the scenes succeed?",
            "The page Jobs and `pacsteward jobs list --state failed` say why; remove the cause and "
            "have them tried again.",
        ),
        do_jobs_succeed,
    ),
    HouseCheck(
        Check(
            "is_work_started",
            "Is the work behind the scenes started?",
            "When the reason for the pause is gone, resume it on the page Jobs or by `pacsteward "
            "jobs resume KIND`.",
        ),
        is_work_started,
    ),
)
