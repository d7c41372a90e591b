"""WADO-URI: one object or one picture by query parameters, for software from before WADO-RS.

Enters: ``/wado?requestType=WADO&studyUID=…&seriesUID=…&objectUID=…``. Leaves: the object as a
Part 10 file, or a picture of it.

References
----------
PS3.18 9 (URI service), 9.4.1 (retrieve instance, its parameters), 9.5 (retrieve rendered).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pacsteward.archive import Instance
from pacsteward.base.errors import Invalid, NotFound, Unsupported
from pacsteward.dicom.render_request import RenderRequest
from pacsteward.dicom.uids import check_uid, transfer_syntax
from pacsteward.dicom.web.answers import NO_STORE, Request, Response
from pacsteward.dicom.web.errors import NotAcceptable
from pacsteward.dicom.web.negotiation import DICOM, JPEG, PNG, MediaType, accepted
from pacsteward.dicom.web.streaming import StreamedAnswer
from pacsteward.feature import House, Route
from pacsteward.features.retrieve import payloads
from pacsteward.features.retrieve.decoding import frame_coder
from pacsteward.features.retrieve.pictures import Subject, picture
from pacsteward.features.retrieve.representations import plan
from pacsteward.features.retrieve.settings import RetrieveSettings

_UIDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "studyUID": "StudyInstanceUID",
        "seriesUID": "SeriesInstanceUID",
        "objectUID": "SOPInstanceUID",
    }
)
_WHOLE: Final = "0,0,1,1"


def retrieve(house: House, request: Request) -> Response:
    """Answer GET /wado."""
    query = dict(request.query_params)
    if query.get("requestType") != "WADO":
        raise Invalid(
            "The request was not understood.",
            why="Its parameter requestType is not WADO (PS3.18 9.1.2.1).",
            remedy="Add requestType=WADO.",
        )
    if query.get("anonymize", "no") != "no":
        raise Unsupported(
            "The object was not given.",
            why="It was asked for without the patient's identity (anonymize), and that is not "
            "made here.",
            remedy="Retrieve it without anonymize, and take the identity out of it elsewhere.",
        )
    study, series, sop = (_uid(query, name) for name in _UIDS)
    instance = house.archive.instance(study, series, sop)
    house.audit.record_access(request.state.actor, (study,))
    media_type = _content_type(query, instance)
    if media_type == DICOM:
        return _object(house, query, instance)
    return _picture(house, query, instance, media_type)


def _uid(query: Mapping[str, str], name: str) -> str:
    return check_uid(query.get(name, "").strip(), _UIDS[name])


def _content_type(query: Mapping[str, str], instance: Instance) -> str:
    """Choose from ``contentType``; pictures are JPEG and everything else DICOM without it.

    Videos are not drawn, so of them there is the object alone.
    """
    ranges = accepted(query.get("contentType"))
    is_video = transfer_syntax(instance.transfer_syntax_uid).is_video
    pictures: tuple[str, ...] = (JPEG, PNG) if instance.has_pixel_data and not is_video else ()
    for one in ranges:
        for offered in (*pictures, DICOM):
            if one.name in (offered, "*/*") or (one.name == "image/*" and offered != DICOM):
                return offered
    raise NotAcceptable(
        "The object cannot be given as that content type.",
        why="Only DICOM, and JPEG and PNG of objects with pixel data, are offered.",
        remedy=f"Ask for contentType={DICOM}.",
    )


def _object(house: House, query: Mapping[str, str], instance: Instance) -> Response:
    wanted = query.get("transferSyntax", "")
    if wanted:
        check_uid(wanted, "transferSyntax")
    ranges = [MediaType(DICOM, {"transfer-syntax": wanted} if wanted else {})]
    (planned,) = plan([instance], ranges).planned
    coder = frame_coder(house.settings.of(RetrieveSettings))
    return StreamedAnswer(
        payloads.part10_file(house.archive, planned, coder),
        media_type=DICOM,
        headers={
            "cache-control": NO_STORE,
            "content-disposition": f'attachment; filename="{instance.sop_instance_uid}.dcm"',
        },
        size_bytes=payloads.size_of_file(instance) if planned.is_as_stored else None,
    )


def _picture(
    house: House, query: Mapping[str, str], instance: Instance, media_type: str
) -> Response:
    asked = RenderRequest.from_query(
        _rendering(query, instance), frame=_frame(query), media_type=media_type
    )
    settings = house.settings.of(RetrieveSettings)
    drawn = picture(house.archive, settings, Subject(instance, asked.frame), asked)
    return Response(drawn, media_type=media_type, headers={"cache-control": NO_STORE})


def _frame(query: Mapping[str, str]) -> int:
    text = query.get("frameNumber", "1")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10):
        raise Invalid(
            "The parameter frameNumber was not understood.",
            why="It must be a whole number from 1 on (PS3.18 9.4.1.2.4).",
            remedy="Write it as, for instance, 3.",
        )
    if int(text) < 1:
        raise NotFound("There is no frame 0.", why="Frames are counted from 1.")
    return int(text)


def _rendering(query: Mapping[str, str], instance: Instance) -> dict[str, str]:
    """Write rows, columns, region and window as the parameters of WADO-RS have them."""
    rendering: dict[str, str] = {}
    if "windowCenter" in query or "windowWidth" in query:
        rendering["window"] = f"{query.get('windowCenter', '')},{query.get('windowWidth', '')}"
    if "imageQuality" in query:
        rendering["quality"] = query["imageQuality"]
    if viewport := _viewport(query, instance):
        rendering["viewport"] = viewport
    return rendering


def _viewport(query: Mapping[str, str], instance: Instance) -> str:
    region = query.get("region", _WHOLE)
    rows, columns = _whole(instance.rows), _whole(instance.columns)
    height = query.get("rows") or query.get("columns") or str(rows)
    width = query.get("columns") or query.get("rows") or str(columns)
    if region == _WHOLE:
        asked = "rows" in query or "columns" in query
        return f"{width},{height}" if asked else ""
    left, top, right, bottom = _region(region)
    x, y = left * columns, top * rows
    return f"{width},{height},{x},{y},{right * columns - x},{bottom * rows - y}"


def _region(text: str) -> tuple[float, float, float, float]:
    """Read ``left,top,right,bottom`` in shares of the image, PS3.18 9.5.1.2.4."""
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError as error:
        raise _bad_region() from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise _bad_region()
    return left, top, right, bottom


def _bad_region() -> Invalid:
    return Invalid(
        "The parameter region was not understood.",
        why="It must be four shares from 0 to 1: left,top,right,bottom (PS3.18 9.5.1.2.4).",
        remedy="Write it as, for instance, 0.25,0.25,0.75,0.75.",
    )


def _whole(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 1


ROUTES = (Route("GET", "/wado", retrieve, "studies.read"),)
