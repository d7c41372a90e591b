"""What the monitoring room gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.monitoring import attention_pages, checks, cli, figures, pages, routes

FEATURE = Feature(
    name="monitoring",
    title="Health",
    summary="Whether the house is well, and figures for those who watch it.",
    routes=routes.ROUTES + attention_pages.ROUTES,
    api=routes.API,
    pages=pages.PAGES + attention_pages.PAGES,
    commands=cli.COMMANDS,
    checks=checks.CHECKS,
    figures=figures.FIGURES,
)
