"""OHIF below ``/viewer/``: the page, its bundles, and what it is told about this house.

Enters: a path. Leaves: a file with the policy that it needs. The images themselves come through
DICOMweb, with the same session.
"""

from __future__ import annotations

from pacsteward.dicom.web.answers import Request, Response, etag_header, is_unchanged, takes_gzip
from pacsteward.dicom.web.streaming import StreamedAnswer
from pacsteward.feature import House, Page
from pacsteward.features.viewer import files


def show(_house: House, request: Request) -> Response:
    """Answer GET of anything below /viewer/."""
    file = files.find(request.path_params.get("path", ""), takes_gzip=takes_gzip(request))
    headers = {**file.headers, "etag": etag_header(file.etag)}
    if is_unchanged(request, file.etag):
        return Response(status_code=304, headers=headers)
    return StreamedAnswer(
        file.pieces(), media_type=file.media_type, headers=headers, size_bytes=file.size_bytes
    )


PAGES = (Page("/viewer/{path:path}", show, "studies.read", "Viewer"),)
