"""Nothing can be reached without a right, and every right is one that is listed."""

from __future__ import annotations

import pytest

from pacsteward import features
from pacsteward.feature import Feature, find_rooms
from pacsteward.security import PERMISSIONS, ROLES, SERVICES

PUBLIC: set[tuple[str, str]] = set()
"""Routes of rooms that anybody may ask for: method and path. At most eight, each with a reason."""


@pytest.fixture(scope="module")
def all_rooms() -> list[Feature]:
    """Give what every room declares."""
    return find_rooms(features)


@pytest.fixture(scope="module")
def asked_for(all_rooms: list[Feature]) -> set[str]:
    """Give every permission that a door asks for."""
    return {
        door.permission
        for room in all_rooms
        for door in (*room.dimse, *room.routes, *room.api, *room.pages)
        if door.permission is not None
    }


def test_permissions_that_doors_ask_for_are_listed(asked_for: set[str]) -> None:
    assert asked_for - set(PERMISSIONS) == set()


def test_permissions_that_are_listed_are_asked_for(asked_for: set[str]) -> None:
    """A right that nobody checks misleads whoever gives it."""
    # What one route gives in two forms asks for the second right itself.
    inside = {"studies.download"}
    assert set(PERMISSIONS) - asked_for == inside


def test_roles_and_services_grant_what_is_listed() -> None:
    granted = set().union(*ROLES.values(), *SERVICES.values())
    assert granted - {"*"} - set(PERMISSIONS) == set()


def test_public_routes_are_those_on_the_written_list(all_rooms: list[Feature]) -> None:
    public = {
        (route.method, route.path)
        for room in all_rooms
        for route in room.routes
        if route.permission is None
    }
    assert public == PUBLIC
    assert len(PUBLIC) <= 8


def test_every_other_door_names_its_permission(all_rooms: list[Feature]) -> None:
    unlocked = [
        door
        for room in all_rooms
        for door in (*room.dimse, *room.api, *room.pages)
        if not door.permission
    ]
    assert unlocked == []


def test_permissions_are_explained_in_a_sentence() -> None:
    assert [name for name, prose in PERMISSIONS.items() if not prose.endswith(".")] == []
