"""What a client may ask of a rendered image, read from the query of its URL.

What enters are the query parameters; what leaves is a `RenderRequest`, checked, that the renderer
obeys. Parameters we do not follow are not refused (the standard makes all optional); the request
names them in `RenderRequest.warnings`, and the door puts that into a Warning header.

References
----------
PS3.18 8.3.5.1 (annotation, quality, viewport, window, iccprofile), 8.3.3.1 (accept).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pacsteward.base.errors import Invalid, Unsupported
from pacsteward.dicom.grayscale import VoiFunction, Window
from pacsteward.dicom.media import JPEG_MEDIA_TYPE, PDF_MEDIA_TYPE, RENDERED_MEDIA_TYPES
from pacsteward.dicom.pixels import PIXELS_MAX

QUALITY_DEFAULT: Final = 90


@dataclass(frozen=True, slots=True)
class Viewport:
    """Where the image is shown (PS3.18 8.3.5.1.3).

    Attributes
    ----------
    width, height
        Size of the viewport in pixels; the image is scaled to fit and keeps its proportions.
    x, y
        Upper left corner of the part of the image that is shown, in pixels of the image.
    source_width, source_height
        Size of that part; None for all there is. Negative ones mirror it.
    """

    width: int
    height: int
    x: float = 0.0
    y: float = 0.0
    source_width: float | None = None
    source_height: float | None = None


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One image that is wanted for the eye.

    Attributes
    ----------
    frame
        Frame number, from 1.
    media_type
        One of `RENDERED_MEDIA_TYPES`, or application/pdf for an encapsulated document.
    viewport
        None for the image in its own size.
    window
        In place of the window that the object proposes.
    quality
        1 to 100; of JPEG only.
    warnings
        What was asked and is not followed, each a sentence.
    """

    frame: int = 1
    media_type: str = JPEG_MEDIA_TYPE
    viewport: Viewport | None = None
    window: Window | None = None
    quality: int = QUALITY_DEFAULT
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.media_type not in (*RENDERED_MEDIA_TYPES, PDF_MEDIA_TYPE):
            raise Unsupported(
                f"The image was not rendered as {self.media_type}.",
                why="That media type is not offered.",
                remedy=f"Ask for {' or '.join(RENDERED_MEDIA_TYPES)}.",
            )
        if self.viewport is not None:
            _check_viewport(self.viewport)
        if self.window is not None and not self.window.width > 0:
            raise _not_understood("window", "its width is not above 0")
        if not 1 <= self.quality <= 100:
            raise _not_understood("quality", "it is not between 1 and 100")

    @classmethod
    def from_query(
        cls, query: Mapping[str, str], *, frame: int = 1, media_type: str = JPEG_MEDIA_TYPE
    ) -> RenderRequest:
        """Return the request that the query parameters of a URL make.

        Parameters
        ----------
        query
            Parameter names and values, percent decoding done.
        frame
            From the path.
        media_type
            As negotiated.

        Raises
        ------
        Invalid
            When a parameter is not as PS3.18 8.3.5.1 writes it.
        """
        viewport, window, quality = (query.get(key) for key in ("viewport", "window", "quality"))
        ignored = [key for key in ("annotation", "iccprofile") if query.get(key)]
        return cls(
            frame=frame,
            media_type=media_type,
            viewport=_viewport(viewport) if viewport else None,
            window=_window(window) if window else None,
            quality=_quality(quality) if quality else QUALITY_DEFAULT,
            warnings=tuple(
                f"The parameter {key} is not supported and was ignored." for key in ignored
            ),
        )


def _viewport(text: str) -> Viewport:
    parts = text.split(",")
    if len(parts) not in (2, 6):
        raise _not_understood("viewport", f"it has {len(parts)} numbers, not 2 or 6")
    width, height = (_number("viewport", part) for part in parts[:2])
    if width is None or height is None:
        raise _not_understood("viewport", "its width or height is empty")
    # The last four may be left empty and then mean the whole image (PS3.18 8.3.5.1.3).
    x, y, source_width, source_height = (
        _number("viewport", part) for part in (parts[2:] or ["", "", "", ""])
    )
    return Viewport(int(width), int(height), x or 0.0, y or 0.0, source_width, source_height)


def _window(text: str) -> Window:
    parts = text.split(",")
    if len(parts) not in (2, 3):
        raise _not_understood("window", "it is not center,width or center,width,function")
    center, width = (_number("window", part) for part in parts[:2])
    if center is None or width is None:
        raise _not_understood("window", "its center or width is empty")
    if len(parts) == 2:
        return Window(center, width)
    # The standard writes them linear, linear-exact and sigmoid here (PS3.18 8.3.5.1.4).
    try:
        function = VoiFunction(parts[2].strip().upper().replace("-", "_"))
    except ValueError:
        raise _not_understood("window", "its function is not known") from None
    return Window(center, width, function)


def _quality(text: str) -> int:
    number = _number("quality", text)
    if number is None:
        raise _not_understood("quality", "it is empty")
    return int(number)


def _number(parameter: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        raise _not_understood(parameter, "it has something that is not a number") from None
    if not math.isfinite(number):
        raise _not_understood(parameter, "it has something that is not a finite number")
    return number


def _check_viewport(viewport: Viewport) -> None:
    if viewport.width < 1 or viewport.height < 1:
        raise _not_understood("viewport", "its width or height is below 1")
    if viewport.width * viewport.height > PIXELS_MAX:
        raise Invalid(
            "The image was not rendered.",
            why=f"The viewport has more than {PIXELS_MAX // 1_000_000} million pixels.",
            remedy="Ask for a smaller viewport.",
        )
    if viewport.source_width == 0 or viewport.source_height == 0:
        raise _not_understood("viewport", "the part of the image is empty")


def _not_understood(parameter: str, detail: str) -> Invalid:
    return Invalid(
        f"The parameter {parameter} was not understood.",
        why=f"As it is, {detail}.",
        remedy="See PS3.18 8.3.5.1 for how it is written.",
    )
