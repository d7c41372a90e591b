"""What the room of connections gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.peers import checks, cli, dimse, figures, pages, routes

FEATURE = Feature(
    name="peers",
    title="Connections",
    summary="The machines that we speak with: who may call, who answers, who is unknown.",
    dimse=(dimse.ECHO,),
    api=routes.ROUTES,
    pages=pages.PAGES,
    commands=cli.COMMANDS,
    checks=checks.CHECKS,
    figures=figures.FIGURES,
)
