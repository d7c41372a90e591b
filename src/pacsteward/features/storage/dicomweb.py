"""STOW-RS: instances come in the parts of a request and are safe before it is answered.

Enters: ``multipart/related; type="application/dicom"``, or one instance as ``application/dicom``.
Parts that are whole go to the archive while the next ones arrive, a few at a time (`intake.py`).
Or ``type="application/dicom+json"``: metadata, with their bulk data apart (`apart.py`). Leaves: the
Store Instances Response as DICOM JSON.

References
----------
PS3.18 10.5 (Store transaction). Metadata as XML are not taken; they are answered 415.
"""

from __future__ import annotations

from pacsteward.base.errors import Invalid
from pacsteward.dicom.uids import check_uid
from pacsteward.dicom.web.answers import (
    Request,
    Response,
    service_url,
    single_answer,
    single_form,
    warning,
)
from pacsteward.dicom.web.errors import UnsupportedMediaType
from pacsteward.dicom.web.negotiation import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    MediaType,
    parse_media_type,
)
from pacsteward.feature import House, Route
from pacsteward.features.storage.apart import store_apart
from pacsteward.features.storage.intake import Intake
from pacsteward.features.storage.stow import http_status, remarks, response_data_set


async def store(house: House, request: Request) -> Response:
    """Answer POST /dicom-web/studies and /dicom-web/studies/{study}."""
    form = single_form(request)
    study = request.path_params.get("study", "")
    if study:
        check_uid(study, "StudyInstanceUID")
    content_type = parse_media_type(request.headers.get("content-type", ""))
    _check_type(content_type)
    _check_encoding(request.headers.get("content-encoding", ""))
    if content_type.part == DICOM_JSON:
        verdicts = await store_apart(house, request, content_type, study)
    else:
        verdicts = await Intake(house, request, study).run(content_type)
    if not verdicts:
        raise Invalid(
            "The request holds no instance.",
            why="It has no part of type application/dicom.",
            remedy='Send multipart/related; type="application/dicom" with a part for each.',
        )
    return single_answer(
        request,
        form,
        response_data_set(verdicts, service_url(request)),
        status_code=http_status(verdicts),
        headers=warning(*remarks(verdicts)),
    )


def _check_type(content_type: MediaType) -> None:
    # Some senders leave the type parameter out, although RFC 2387 requires it.
    if content_type.part in (DICOM, DICOM_JSON, "*/*"):
        return
    if content_type.part == DICOM_XML:
        raise UnsupportedMediaType(
            "The request was not taken.",
            why="Metadata are taken as JSON, not as XML.",
            remedy='Send multipart/related; type="application/dicom+json", or whole instances.',
        )
    raise UnsupportedMediaType(
        "The request was not taken.",
        why="Its Content-Type is none that carries DICOM instances.",
        remedy='Send multipart/related; type="application/dicom", or application/dicom.',
    )


def _check_encoding(encoding: str) -> None:
    if encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType(
            "The request was not taken.",
            why="Its body is compressed as a whole (Content-Encoding).",
            remedy="Send it as it is; transfer syntaxes compress the objects themselves.",
        )


ROUTES = (
    Route("POST", "/dicom-web/studies", store, "studies.store"),
    Route("POST", "/dicom-web/studies/{study}", store, "studies.store"),
)
