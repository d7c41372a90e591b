"""What the room of jobs gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.jobs import cli, pages, routes

FEATURE = Feature(
    name="jobs",
    title="Jobs",
    summary="The work behind the scenes: what waits, what runs, and what was given up.",
    api=routes.ROUTES,
    pages=pages.PAGES,
    commands=cli.COMMANDS,
)
