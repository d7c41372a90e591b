"""Identifiers that must not be mixed up, and how new ones are made."""

from __future__ import annotations

import secrets
from typing import NewType

Uid = NewType("Uid", str)
"""A DICOM unique identifier, PS3.5 chapter 9; checked where it comes in."""

AeTitle = NewType("AeTitle", str)
"""An application entity title without its padding, PS3.5 6.2: 1 to 16 characters."""


def new_secret(size_bytes: int = 24) -> str:
    """Return a random, URL-safe text for passwords and tokens."""
    return secrets.token_urlsafe(size_bytes)
