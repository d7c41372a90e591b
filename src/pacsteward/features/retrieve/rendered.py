"""WADO-RS: pictures for the eye, and what stands in their place: videos and documents.

Which object and frame is drawn, and the drawing, are in `pictures`.

References
----------
PS3.18 10.4.1.1.3 (rendered), 10.4.1.1.4 (thumbnails), 8.3.5.1 (their parameters).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from pacsteward.archive import Archive, Instance, PromptArchive
from pacsteward.base.errors import Unsupported, WouldWait
from pacsteward.dicom.media import PDF_MEDIA_TYPE
from pacsteward.dicom.render_request import RenderRequest, Viewport
from pacsteward.dicom.uids import transfer_syntax
from pacsteward.dicom.web.answers import (
    NO_STORE,
    Request,
    Response,
    accept_of,
    answer_range,
    ranges_of,
    warning,
)
from pacsteward.dicom.web.negotiation import Offer, choose
from pacsteward.dicom.web.streaming import PiecesAnswer
from pacsteward.feature import House
from pacsteward.features.retrieve import payloads
from pacsteward.features.retrieve.decoding import bulk_data_of
from pacsteward.features.retrieve.pictures import (
    Subject,
    middle_frame,
    picture,
    picture_at_once,
    representative,
)
from pacsteward.features.retrieve.representations import choose_picture
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.target import Target, frame_list, record, recorded_target

DATA_HEADERS: Final = {
    "cache-control": NO_STORE,
    "vary": "Accept",
    "x-content-type-options": "nosniff",
}

Form = Literal["rendered", "thumbnail"]
FORMS: Final[tuple[Form, ...]] = ("rendered", "thumbnail")


def render(form: Form) -> Callable[[House, Request], Response]:
    """Make the handler of rendered pictures, or of thumbnails."""

    def handle(house: House, request: Request) -> Response:
        target = Target.of(request)
        if target.instance:
            subject = _subject(house.archive, request, target, form)
        else:
            subject = representative(target.instances(house))
        if form == "rendered" and target.instance:
            other = _other_than_picture(house, request, subject.instance)
            if other is not None:
                record(house, request, target)
                return other
        asked = _render_request(request, subject, form)
        settings = house.settings.of(RetrieveSettings)
        drawn = picture(house.archive, settings, subject, asked)
        record(house, request, target)
        return _answer(drawn, asked)

    return handle


def render_at_once(form: Form) -> Callable[[House, Request], PiecesAnswer]:
    """Make what answers for an instance, or a frame, on the event loop, or raises `WouldWait`.

    Drawing a CT slice is not long work: it takes as long as answering three frames.
    """

    def handle(house: House, request: Request) -> PiecesAnswer:
        target = recorded_target(house, request)
        archive = house.archive.prompt
        subject = _subject(archive, request, target, form)
        if _may_be_no_picture(subject.instance):
            raise WouldWait
        asked = _render_request(request, subject, form)
        settings = house.settings.of(RetrieveSettings)
        return _answer(picture_at_once(archive, settings, subject, asked), asked)

    return handle


def _answer(drawn: bytes, asked: RenderRequest) -> PiecesAnswer:
    headers = {"cache-control": NO_STORE, "vary": "Accept", **warning(*asked.warnings)}
    return PiecesAnswer([drawn], media_type=asked.media_type, headers=headers)


def _subject(
    archive: Archive | PromptArchive, request: Request, target: Target, form: Form
) -> Subject:
    """Return what stands for an instance, or the frame of it that the path names."""
    instance = target.one(archive)
    if "frame" in request.path_params:
        return Subject(instance, _one_frame(request.path_params["frame"]))
    return middle_frame(instance) if form == "thumbnail" else Subject(instance)


def _one_frame(text: str) -> int:
    first, *others = frame_list(text)
    if others:
        raise Unsupported(
            f"The frames {text} were not drawn.",
            why="An answer holds one picture, and a picture shows one frame.",
            remedy="Ask for one frame after the other.",
        )
    return first


THUMBNAIL: Final = Viewport(128, 128)


def _render_request(request: Request, subject: Subject, form: Form) -> RenderRequest:
    media_type = choose_picture(accept_of(request)).media_type
    query = dict(request.query_params)
    if form == "thumbnail" and not query.get("viewport"):
        query["viewport"] = f"{THUMBNAIL.width},{THUMBNAIL.height}"
    return RenderRequest.from_query(query, frame=subject.frame, media_type=media_type)


def _may_be_no_picture(instance: Instance) -> bool:
    return transfer_syntax(instance.transfer_syntax_uid).is_video or (
        instance.sop_class_uid.startswith(_ENCAPSULATED)
    )


def _other_than_picture(house: House, request: Request, instance: Instance) -> Response | None:
    """Answer with the video or the document that an instance holds (C44, F062)."""
    ranges = ranges_of(request)
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
