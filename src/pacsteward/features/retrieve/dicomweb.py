"""WADO-RS: studies, series, instances, their metadata, frames, bulk data and pictures.

Enters: a path that names objects, and what the client accepts. Leaves: a stream. Only translation
happens here; which transfer syntax leaves is decided in `representations`, bytes are made in
`payloads`, pictures in `pictures`.

References
----------
PS3.18 10.4 (Retrieve transaction), 8.7 (media types), 8.5 (statuses).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2s
from itertools import chain
from typing import Final

from pacsteward.archive import Archive, Instance, PromptArchive
from pacsteward.base.errors import WouldWait
from pacsteward.dicom.media import PDF_MEDIA_TYPE, PNG_MEDIA_TYPE
from pacsteward.dicom.transcode import FrameCoder
from pacsteward.dicom.uids import transfer_syntax
from pacsteward.dicom.web.answers import (
    NO_STORE,
    PRIVATE_CACHE,
    Request,
    Response,
    accept_of,
    answer_range,
    array_answer,
    etag_header,
    is_unchanged,
    list_form,
    not_modified,
    ranges_of,
    service_url,
)
from pacsteward.dicom.web.multipart import Writer
from pacsteward.dicom.web.negotiation import (
    JPEG,
    OCTET_STREAM,
    ZIP,
    MediaType,
    Offer,
    choose,
)
from pacsteward.dicom.web.streaming import PartsAnswer, PiecesAnswer, StreamedAnswer
from pacsteward.feature import House, Route
from pacsteward.features.retrieve import payloads
from pacsteward.features.retrieve.decoding import (
    bulk_data_of,
    check_frames_are_apart,
    coder_at_once,
    frame_coder,
    frames_of,
)
from pacsteward.features.retrieve.rendered import DATA_HEADERS, FORMS, render, render_at_once
from pacsteward.features.retrieve.representations import (
    Plan,
    choose_frame,
    choose_object,
    fitting,
    frame_offers,
    object_offers,
    part_content_type,
    plan,
)
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.target import Target, frame_list, record, recorded_target

STUDY: Final = "/dicom-web/studies/{study}"
SERIES: Final = STUDY + "/series/{series}"
INSTANCE: Final = SERIES + "/instances/{instance}"

# --- whole objects ------------------------------------------------------------------------------


def retrieve(house: House, request: Request) -> Response:
    """Answer GET of a study, series or instance."""
    target = Target.of(request)
    ranges = ranges_of(request)
    offers = object_offers(is_single=bool(target.instance), is_study=not target.series)
    offer = choose(ranges, offers)
    if offer.media_type == ZIP:
        return _zip(house, request, target)
    chosen = _plan(target.instances(house), ranges, offer)
    record(house, request, target)
    coder = frame_coder(house.settings.of(RetrieveSettings))
    if target.instance and payloads.is_small(chosen.planned):
        # Streaming changes threads several times, which costs more than the object.
        return _small_object(house.archive, chosen, offer, coder)
    if not offer.is_multipart:
        (only,) = chosen.planned
        return StreamedAnswer(
            payloads.part10_file(house.archive, only, coder),
            media_type=part_content_type(offer.media_type, only.transfer_syntax_uid),
            headers=_OBJECT_HEADERS,
            size_bytes=payloads.size_of_file(only.instance) if only.is_as_stored else None,
        )
    writer = Writer(offer.media_type)
    return PartsAnswer(
        (
            payloads.ObjectsPart(house.archive, together, writer, coder)
            for together in payloads.parted(chosen.planned)
        ),
        writer.end,
        media_type=writer.content_type,
        # 206 here says that some objects could not be given in what the client accepts.
        status_code=200 if chosen.is_complete else 206,
        headers=_OBJECT_HEADERS,
        size_bytes=payloads.size_of_parts(chosen.planned, writer),
    )


def retrieve_at_once(house: House, request: Request) -> PiecesAnswer:
    """Answer GET of an instance on the event loop, or raise `WouldWait`."""
    target = recorded_target(house, request)
    archive = house.archive.prompt
    offer, planned = choose_object(accept_of(request), target.one(archive))
    if not payloads.is_small((planned,)):
        raise WouldWait
    label = part_content_type(offer.media_type, planned.transfer_syntax_uid)
    if not offer.is_multipart:
        return PiecesAnswer(
            [payloads.object_at_once(archive, planned.instance, b"", b"")],
            media_type=label,
            headers=_OBJECT_HEADERS,
        )
    writer = Writer(offer.media_type)
    before, after = writer.head({"Content-Type": label}), writer.gap + writer.end
    return PiecesAnswer(
        [payloads.object_at_once(archive, planned.instance, before, after)],
        media_type=writer.content_type,
        headers=_OBJECT_HEADERS,
    )


def _plan(instances: Sequence[Instance], ranges: Sequence[MediaType], offer: Offer) -> Plan:
    return plan(instances, fitting(ranges, offer))


def _small_object(archive: Archive, chosen: Plan, offer: Offer, coder: FrameCoder) -> PiecesAnswer:
    if not offer.is_multipart:
        (only,) = chosen.planned
        pieces = list(payloads.part10_file(archive, only, coder))
        media_type = part_content_type(offer.media_type, only.transfer_syntax_uid)
        return PiecesAnswer(pieces, media_type=media_type, headers=_OBJECT_HEADERS)
    writer = Writer(offer.media_type)
    pieces = list(payloads.object_parts(archive, chosen.planned, writer, coder))
    return PiecesAnswer(pieces, media_type=writer.content_type, headers=_OBJECT_HEADERS)


_OBJECT_HEADERS: Final = {"cache-control": NO_STORE, "vary": "Accept"}


def _zip(house: House, request: Request, target: Target) -> Response:
    request.state.actor.need("studies.download")
    instances = target.instances(house)
    record(house, request, target)
    return StreamedAnswer(
        payloads.zip_file(house.archive, instances),
        media_type=ZIP,
        headers={
            "cache-control": NO_STORE,
            "content-disposition": f'attachment; filename="{target.study}.zip"',
        },
    )


# --- metadata -----------------------------------------------------------------------------------


def metadata(house: House, request: Request) -> Response:
    """Answer GET of metadata; 304 while the client's copy is still true."""
    target = Target.of(request)
    form = list_form(request)
    uids = (target.study, target.series or None, target.instance or None)
    url = service_url(request)
    if request.headers.get("if-none-match"):
        etag = _etag(house.archive.etag(*uids), url, form)
        if is_unchanged(request, etag):
            record(house, request, target)
            return not_modified(etag)
    version, pieces = house.archive.metadata(*uids, base_url=url)
    record(house, request, target)
    return array_answer(
        request,
        form,
        pieces,
        headers={"etag": etag_header(_etag(version, url, form)), "cache-control": PRIVATE_CACHE},
    )


def _etag(version: str, url: str, form: Offer) -> str:
    # The metadata hold absolute URLs, so two names of one server are two representations, and so
    # are JSON and XML (RFC 9110 8.8.3.3).
    which = f"{url} {form.media_type}"
    return f"{version}.{blake2s(which.encode(), digest_size=4).hexdigest()}"


# --- frames -------------------------------------------------------------------------------------


def frames(house: House, request: Request) -> Response:
    """Answer GET of frames, in the order asked for (C51)."""
    target = Target.of(request)
    answer = _frames(house, request, target, frame_list(request.path_params["frames"]))
    record(house, request, target)
    return answer


def frame_at_once(house: House, request: Request) -> PiecesAnswer:
    """Answer GET of one frame on the event loop, or raise `WouldWait`."""
    target = recorded_target(house, request)
    numbers = frame_list(request.path_params["frames"])
    if len(numbers) > 1:
        raise WouldWait
    return _frame(house.archive.prompt, request, target, numbers[0], coder_at_once)


def _frames(house: House, request: Request, target: Target, numbers: Sequence[int]) -> Response:
    coder = frame_coder(house.settings.of(RetrieveSettings))
    if len(numbers) == 1:
        return _frame(house.archive, request, target, numbers[0], coder)
    return _several_frames(house.archive, request, target, numbers, coder)


def _frame(
    archive: Archive | PromptArchive,
    request: Request,
    target: Target,
    number: int,
    coder: FrameCoder,
) -> PiecesAnswer:
    instance = target.one(archive)
    check_frames_are_apart(instance)
    table = (
        frames_of(archive, instance) if isinstance(archive, Archive) else archive.frames(instance)
    )
    offer = choose_frame(accept_of(request), table)
    (content,) = payloads.frames(archive, instance, table, [number], offer, coder)
    label = part_content_type(offer.media_type, content.transfer_syntax_uid)
    if not offer.is_multipart:
        return PiecesAnswer([content.data], media_type=label, headers=_OBJECT_HEADERS)
    writer = Writer(offer.media_type)
    pieces = [writer.head({"Content-Type": label}), content.data, writer.gap + writer.end]
    return PiecesAnswer(pieces, media_type=writer.content_type, headers=_OBJECT_HEADERS)


def _several_frames(
    archive: Archive, request: Request, target: Target, numbers: Sequence[int], coder: FrameCoder
) -> StreamedAnswer:
    instance = target.one(archive)
    check_frames_are_apart(instance)
    table = frames_of(archive, instance)
    offer = choose(ranges_of(request), frame_offers(table, is_single=False))
    writer = Writer(offer.media_type)
    contents = payloads.frames(archive, instance, table, numbers, offer, coder)
    parts = payloads.frame_parts(contents, offer.media_type, writer)
    # What is missing or damaged in the list is found before the answer begins.
    for number in numbers:
        table.spans(number)
    return StreamedAnswer(parts, media_type=writer.content_type, headers=_OBJECT_HEADERS)


# --- bulk data ----------------------------------------------------------------------------------

_HARMLESS: Final = frozenset(
    {OCTET_STREAM, PDF_MEDIA_TYPE, JPEG, PNG_MEDIA_TYPE, "image/gif", "video/mp4", "video/mpeg"}
)
"""Types that a browser shows without running anything that came with them in our origin."""


def bulk_data(house: House, request: Request) -> Response:
    """Answer GET of what a BulkDataURI names, as one payload or as one part (C42, C43).

    Compressed frames are no one value: each is a part of its own (PS3.18 8.7.3.3). They leave as
    frames do, decoded where no transfer syntax is named, and say what they are.
    """
    target = Target.of(request)
    instance = target.one(house.archive)
    if request.path_params["path"].upper() == _PIXEL_DATA:
        count = _compressed_frames(house.archive, instance)
        if count:
            answer = _frames(house, request, target, range(1, count + 1))
            record(house, request, target)
            return answer
    found = bulk_data_of(house.archive, instance, request.path_params["path"])
    media_type = found.media_type if found.media_type in _HARMLESS else OCTET_STREAM
    types = dict.fromkeys((media_type, OCTET_STREAM))
    offers = [Offer(name, is_multipart) for is_multipart in (False, True) for name in types]
    offer = choose(ranges_of(request), offers)
    record(house, request, target)
    read = payloads.bulk_data_reader(house.archive, instance, found)
    if not offer.is_multipart:
        return answer_range(
            request, read, found.length, media_type=offer.media_type, headers=DATA_HEADERS
        )
    writer = Writer(offer.media_type)
    head = writer.head({"Content-Type": offer.media_type, "Content-Location": request.url.path})
    return StreamedAnswer(
        chain((head,), read(0, found.length), (writer.gap, writer.end)),
        media_type=writer.content_type,
        headers=DATA_HEADERS,
        size_bytes=len(head) + found.length + len(writer.gap) + len(writer.end),
    )


def _compressed_frames(archive: Archive, instance: Instance) -> int:
    """Return how many compressed frames an instance has; 0 when its pixel data are one value."""
    syntax = transfer_syntax(instance.transfer_syntax_uid)
    if not syntax.is_encapsulated or syntax.is_video or not instance.has_pixel_data:
        return 0
    return frames_of(archive, instance).number_of_frames


_PIXEL_DATA: Final = "7FE00010"


def _get(
    path: str,
    handler: Callable[[House, Request], Response],
    at_once: Callable[[House, Request], PiecesAnswer] | None = None,
) -> Route:
    return Route("GET", path, handler, "studies.read", at_once)


ROUTES = (
    *(_get(path, retrieve) for path in (STUDY, SERIES)),
    _get(INSTANCE, retrieve, retrieve_at_once),
    *(_get(f"{path}/metadata", metadata) for path in (STUDY, SERIES, INSTANCE)),
    _get(f"{INSTANCE}/frames/{{frames}}", frames, frame_at_once),
    _get(f"{INSTANCE}/bulkdata/{{path:path}}", bulk_data),
    *(_get(f"{path}/{form}", render(form)) for path in (STUDY, SERIES) for form in FORMS),
    *(
        _get(f"{path}/{form}", render(form), render_at_once(form))
        for path in (INSTANCE, f"{INSTANCE}/frames/{{frame}}")
        for form in FORMS
    ),
)
