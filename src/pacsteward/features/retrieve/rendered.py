"""WADO-RS: pictures for the eye, and what stands in their place: videos and documents.

Which object and frame is drawn, and the drawing, are in `pictures`.

References
----------
PS3.18 10.4.1.1.3 (rendered), 10.4.1.1.4 (thumbnails), 8.3.5.1 (their parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from pacsteward.archive import Instance
from pacsteward.dicom.media import PDF_MEDIA_TYPE
from pacsteward.dicom.render_request import RenderRequest, Viewport
from pacsteward.dicom.uids import transfer_syntax
from pacsteward.dicom.web.answers import (
    NO_STORE,
    Request,
    Response,
    answer_range,
    ranges_of,
    warning,
)
from pacsteward.dicom.web.negotiation import JPEG, PNG, MediaType, Offer, choose
from pacsteward.feature import House
from pacsteward.features.retrieve import payloads
from pacsteward.features.retrieve.decoding import bulk_data_of
from pacsteward.features.retrieve.pictures import Subject, middle_frame, picture, representative
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.target import Target, frame_list, record

DATA_HEADERS: Final = {
    "cache-control": NO_STORE,
    "vary": "Accept",
    "x-content-type-options": "nosniff",
}

Form = Literal["rendered", "thumbnail"]


def render(form: Form) -> Callable[[House, Request], Response]:
    """Make the handler of rendered pictures, or of thumbnails."""

    def handle(house: House, request: Request) -> Response:
        target = Target.of(request)
        subject = _subject(house, request, target, form)
        ranges = ranges_of(request)
        if form == "rendered" and target.instance:
            other = _other_than_picture(house, request, subject.instance, ranges)
            if other is not None:
                record(house, request, target)
                return other
        media_type = choose(ranges, (Offer(JPEG), Offer(PNG))).media_type
        asked = _render_request(request, subject, media_type, form)
        settings = house.settings.of(RetrieveSettings)
        drawn = picture(house.archive, settings, subject, asked)
        record(house, request, target)
        headers = {"cache-control": NO_STORE, "vary": "Accept", **warning(*asked.warnings)}
        return Response(drawn, media_type=media_type, headers=headers)

    return handle


def _subject(house: House, request: Request, target: Target, form: Form) -> Subject:
    if "frame" in request.path_params:
        (frame,) = frame_list(request.path_params["frame"])[:1]
        return Subject(target.one(house.archive), frame)
    if target.instance:
        instance = target.one(house.archive)
        return middle_frame(instance) if form == "thumbnail" else Subject(instance)
    return representative(target.instances(house))


THUMBNAIL: Final = Viewport(128, 128)


def _render_request(
    request: Request, subject: Subject, media_type: str, form: Form
) -> RenderRequest:
    query = dict(request.query_params)
    if form == "thumbnail" and not query.get("viewport"):
        query["viewport"] = f"{THUMBNAIL.width},{THUMBNAIL.height}"
    return RenderRequest.from_query(query, frame=subject.frame, media_type=media_type)


def _other_than_picture(
    house: House, request: Request, instance: Instance, ranges: Sequence[MediaType]
) -> Response | None:
    """Answer with the video or the document that an instance holds (C44, F062)."""
    syntax = transfer_syntax(instance.transfer_syntax_uid)
    if syntax.is_video and instance.has_pixel_data:
        choose(ranges, (Offer(syntax.frame_media_type),))
        size, read = payloads.video_stream(house.archive, instance)
        return answer_range(
            request,
            read,
            size,
            media_type=syntax.frame_media_type,
            headers=DATA_HEADERS,
        )
    if not instance.sop_class_uid.startswith(_ENCAPSULATED):
        return None
    found = bulk_data_of(house.archive, instance, _ENCAPSULATED_DOCUMENT)
    if found.media_type != PDF_MEDIA_TYPE:
        return None
    choose(ranges, (Offer(PDF_MEDIA_TYPE),))
    return answer_range(
        request,
        payloads.bulk_data_reader(house.archive, instance, found),
        found.length,
        media_type=PDF_MEDIA_TYPE,
        headers=DATA_HEADERS,
    )


_ENCAPSULATED: Final = "1.2.840.10008.5.1.4.1.1.104."
_ENCAPSULATED_DOCUMENT: Final = "00420011"
