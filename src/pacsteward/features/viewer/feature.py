"""What the viewer room gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.viewer import routes

FEATURE = Feature(
    name="viewer",
    title="Viewer",
    summary="Shows images in the browser, with OHIF, without anything to install.",
    pages=routes.PAGES,
)
