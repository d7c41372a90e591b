"""What the query room gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.query import dicomweb, dimse, pages
from pacsteward.features.query.settings import QuerySettings

FEATURE = Feature(
    name="query",
    title="Studies",
    summary="Finds patients, studies, series and instances by C-FIND, QIDO-RS and in the console.",
    dimse=(dimse.FIND,),
    routes=dicomweb.ROUTES,
    pages=pages.PAGES,
    settings=(QuerySettings,),
)
