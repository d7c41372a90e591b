"""Which instances a C-MOVE or C-GET identifier names.

References
----------
PS3.4 C.4.2.1.4.1 and C.4.3.1.3.1 — Query/Retrieve Level, the unique key of the level as one value
or a list, and one value for each level above.
"""

from __future__ import annotations

from pacsteward.archive import Selection
from pacsteward.base.errors import Invalid
from pacsteward.dicom.attributes import Level, keyword_of, vr_of
from pacsteward.dicom.identifier import Identifier
from pacsteward.dicom.information_models import UNIQUE_KEYS, Model
from pacsteward.dicom.uids import check_uid


def selection_from(identifier: Identifier, model: Model) -> Selection:
    """Read what `identifier` names.

    Unique keys of higher levels may be missing: a UID alone names its object, and many
    workstations send no more. What they do give must fit.

    Raises
    ------
    Invalid
        No or a wrong level, or no unique key of that level; "everything" cannot be retrieved. A
        UID that is none: to answer that nothing of that name is here would hide the mistake.
    """
    level = model.level(identifier.level)
    values = {
        upper: _values(identifier, UNIQUE_KEYS[upper])
        for upper in Level
        if upper in (level, *model.above(level))
    }
    if not values[level]:
        keyword = keyword_of(UNIQUE_KEYS[level])
        raise Invalid(
            f"{keyword} is missing in a retrieve at {level} level.",
            why="It says which objects are wanted.",
            remedy=f"Send one {keyword}, or a list of them.",
        )
    return Selection(
        patient_ids=values.get(Level.PATIENT, ()),
        study_instance_uids=values.get(Level.STUDY, ()),
        series_instance_uids=values.get(Level.SERIES, ()),
        sop_instance_uids=values.get(Level.IMAGE, ()),
    )


def _values(identifier: Identifier, tag: int) -> tuple[str, ...]:
    key = identifier.keys.get(tag, "")
    if not isinstance(key, str):
        return ()
    values = tuple(part.strip() for part in key.split("\\") if part.strip() not in ("", "*"))
    if vr_of(tag) == "UI":
        for value in values:
            check_uid(value, keyword_of(tag))
    return values
