"""What the retrieve room gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.retrieve import cli, dicomweb, dimse, jobs, listen, routes, wado_uri
from pacsteward.features.retrieve.settings import RetrieveSettings

FEATURE = Feature(
    name="retrieve",
    title="Retrieve",
    summary="Gives images out by C-MOVE, C-GET, WADO-RS and WADO-URI; sends and fetches studies.",
    dimse=(dimse.MOVE, dimse.GET),
    routes=(*dicomweb.ROUTES, *wado_uri.ROUTES),
    api=routes.API,
    listens=listen.LISTENS,
    jobs=(jobs.SEND_STUDY, jobs.FETCH_STUDY),
    commands=cli.COMMANDS,
    settings=(RetrieveSettings,),
)
