r"""The computed columns of studies and series: how many, how large, which kinds.

While instances arrive, the counters grow by what a batch adds (`add_to_counters`). After a
rejection, a restoration or a deletion they are counted anew (`recount`). Both say the same; a test
compares them. Rejected instances do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, bindparam, func, select, update

from pacsteward.archive.tables import INSTANCE, SERIES, STUDY

SeriesKey = tuple[int, str]
"""Key of the study, and Series Instance UID: devices have reused one in another study."""

T = TypeVar("T")

_IN_MAX: Final = 500

_ADD_TO_SERIES: Final = (
    update(SERIES)
    .where(SERIES.c.series_key == bindparam("key"))
    .values(
        number_of_series_related_instances=SERIES.c.number_of_series_related_instances
        + bindparam("instances"),
        size_bytes=SERIES.c.size_bytes + bindparam("bytes"),
        version=SERIES.c.version + 1,
        updated_at=bindparam("now"),
    )
)
_ADD_TO_STUDY: Final = (
    update(STUDY)
    .where(STUDY.c.study_key == bindparam("key"))
    .values(
        number_of_study_related_instances=STUDY.c.number_of_study_related_instances
        + bindparam("instances"),
        number_of_study_related_series=STUDY.c.number_of_study_related_series + bindparam("series"),
        size_bytes=STUDY.c.size_bytes + bindparam("bytes"),
        modalities_in_study=bindparam("modalities"),
        sop_classes_in_study=bindparam("sop_classes"),
        version=STUDY.c.version + 1,
        updated_at=bindparam("now"),
    )
)


@dataclass(slots=True)
class _Growth:
    study_uid: str
    instances: int = 0
    size_bytes: int = 0
    series: set[SeriesKey] = field(default_factory=set)
    sop_classes: set[str] = field(default_factory=set)


def add_to_counters(
    connection: Connection,
    added: Iterable[tuple[str, SeriesKey, str, int]],
    studies: Mapping[str, Mapping[str, Any]],
    series: Mapping[SeriesKey, Mapping[str, Any]],
    now: datetime,
) -> None:
    """Count instances that were added, and raise the versions of their studies and series.

    Parameters
    ----------
    added
        Study Instance UID, series, SOP Class UID and size in bytes of each instance.
    studies, series
        Their rows as they were before.
    """
    of_study: dict[str, _Growth] = {}
    of_series: dict[SeriesKey, _Growth] = {}
    for study_uid, identity, sop_class_uid, size_bytes in added:
        growth = of_series.get(identity)
        if growth is None:
            growth = of_series[identity] = _Growth(study_uid)
        growth.instances += 1
        growth.size_bytes += size_bytes
        growth.sop_classes.add(sop_class_uid)
    for identity, growth in of_series.items():
        whole = of_study.setdefault(growth.study_uid, _Growth(growth.study_uid))
        whole.instances += growth.instances
        whole.size_bytes += growth.size_bytes
        whole.series.add(identity)
        whole.sop_classes |= growth.sop_classes
    connection.execute(
        _ADD_TO_SERIES,
        [
            {
                "key": series[identity]["series_key"],
                "instances": growth.instances,
                "bytes": growth.size_bytes,
                "now": now,
            }
            for identity, growth in of_series.items()
        ],
    )
    connection.execute(
        _ADD_TO_STUDY,
        [_study_growth(studies[uid], growth, series, now) for uid, growth in of_study.items()],
    )


def _study_growth(
    study: Mapping[str, Any],
    growth: _Growth,
    series: Mapping[SeriesKey, Mapping[str, Any]],
    now: datetime,
) -> dict[str, Any]:
    modalities = {series[identity]["modality"] for identity in growth.series}
    return {
        "key": study["study_key"],
        "instances": growth.instances,
        # A series of which nothing was shown becomes one that counts.
        "series": sum(
            series[identity]["number_of_series_related_instances"] == 0
            for identity in growth.series
        ),
        "bytes": growth.size_bytes,
        "modalities": joined_set(split_set(study["modalities_in_study"]) | modalities),
        "sop_classes": joined_set(split_set(study["sop_classes_in_study"]) | growth.sop_classes),
        "now": now,
    }


_SHOWN: Final = (INSTANCE.c.series_key == SERIES.c.series_key) & (INSTANCE.c.rejected_for == "")
_RECOUNT_SERIES: Final = (
    update(SERIES)
    .where(SERIES.c.study_key.in_(bindparam("keys", expanding=True)))
    .values(
        number_of_series_related_instances=select(func.count())
        .select_from(INSTANCE)
        .where(_SHOWN)
        .correlate(SERIES)
        .scalar_subquery(),
        size_bytes=select(func.coalesce(func.sum(INSTANCE.c.size_bytes), 0))
        .where(_SHOWN)
        .correlate(SERIES)
        .scalar_subquery(),
        version=SERIES.c.version + 1,
        updated_at=bindparam("now"),
    )
)
_SHOWN_SERIES: Final = select(
    SERIES.c.study_key,
    SERIES.c.modality,
    SERIES.c.number_of_series_related_instances,
    SERIES.c.size_bytes,
).where(
    SERIES.c.study_key.in_(bindparam("keys", expanding=True)),
    SERIES.c.number_of_series_related_instances > 0,
)
_SHOWN_CLASSES: Final = (
    select(SERIES.c.study_key, INSTANCE.c.sop_class_uid)
    .distinct()
    .join(INSTANCE, INSTANCE.c.series_key == SERIES.c.series_key)
    .where(
        SERIES.c.study_key.in_(bindparam("keys", expanding=True)),
        INSTANCE.c.rejected_for == "",
    )
)
_SET_STUDY: Final = (
    update(STUDY)
    .where(STUDY.c.study_key == bindparam("key"))
    .values(
        number_of_study_related_instances=bindparam("instances"),
        number_of_study_related_series=bindparam("series"),
        size_bytes=bindparam("bytes"),
        modalities_in_study=bindparam("modalities"),
        sop_classes_in_study=bindparam("sop_classes"),
        version=STUDY.c.version + 1,
        updated_at=bindparam("now"),
    )
)


def recount(connection: Connection, study_keys: Sequence[int], now: datetime) -> None:
    """Count studies and their series anew, and raise their versions."""
    for keys in chunks(study_keys):
        connection.execute(_RECOUNT_SERIES, {"keys": keys, "now": now})
        counted: dict[int, dict[str, Any]] = {
            key: {
                "key": key,
                "instances": 0,
                "series": 0,
                "bytes": 0,
                "modalities": set(),
                "sop_classes": set(),
                "now": now,
            }
            for key in keys
        }
        for key, modality, instances, size_bytes in connection.execute(
            _SHOWN_SERIES, {"keys": keys}
        ):
            study = counted[key]
            study["instances"] += instances
            study["series"] += 1
            study["bytes"] += size_bytes
            study["modalities"].add(modality)
        for key, sop_class_uid in connection.execute(_SHOWN_CLASSES, {"keys": keys}):
            counted[key]["sop_classes"].add(sop_class_uid)
        for study in counted.values():
            study["modalities"] = joined_set(study["modalities"])
            study["sop_classes"] = joined_set(study["sop_classes"])
        connection.execute(_SET_STUDY, list(counted.values()))


def split_set(text: str) -> set[str]:
    """Take the text of a computed column apart."""
    return {part for part in text.split("\\") if part}


def joined_set(values: Iterable[str]) -> str:
    r"""Return values as a computed column keeps them: ``\CT\SR\``, or "" without any."""
    known = sorted(value for value in values if value)
    return "\\" + "\\".join(known) + "\\" if known else ""


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Cut a list into pieces that fit one IN."""
    remaining = iter(values)
    while chunk := list(islice(remaining, _IN_MAX)):
        yield chunk
