"""What the room of access gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.access import checks, cli, jobs, pages, routes

FEATURE = Feature(
    name="access",
    title="Access",
    summary="Who may enter: people, roles, tokens; and the audit book of what they did.",
    api=routes.ROUTES,
    pages=pages.PAGES,
    jobs=(jobs.SEAL_AUDIT_BOOK,),
    commands=cli.COMMANDS,
    checks=checks.CHECKS,
)
