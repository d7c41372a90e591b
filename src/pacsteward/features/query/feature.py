"""What the query room gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.query import cli, dicomweb, dimse, elsewhere_pages, figures, pages
from pacsteward.features.query.settings import QuerySettings

FEATURE = Feature(
    name="query",
    title="Studies",
    summary="Finds patients, studies, series and instances by C-FIND, QIDO-RS and in the console; "
    "asks other archives.",
    dimse=(dimse.FIND,),
    routes=dicomweb.ROUTES,
    pages=(*pages.PAGES, *elsewhere_pages.PAGES),
    commands=cli.COMMANDS,
    settings=(QuerySettings,),
    figures=figures.FIGURES,
)
