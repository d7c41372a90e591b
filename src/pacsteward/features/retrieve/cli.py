"""``pacsteward retrieve …``: send studies to peers and fetch studies from them."""

from __future__ import annotations

from typing import Literal

from pacsteward.feature import Command, House
from pacsteward.features.retrieve.elsewhere import Moved, fetch_study, send_study
from pacsteward.security import at_command_line


def send(house: House, study_instance_uid: str, destination: str) -> Moved:
    """Send a study to a registered peer, now.

    Parameters
    ----------
    study_instance_uid
        The study.
    destination
        AE title of the peer.
    """
    return send_study(house, study_instance_uid, destination, by=at_command_line())


def fetch(
    house: House, study_instance_uid: str, source: str, *, how: Literal["move", "get"] = "move"
) -> Moved:
    """Have a registered peer send a study to us, now.

    Parameters
    ----------
    study_instance_uid
        The study.
    source
        AE title of the peer.
    how
        "move" needs us to be registered at the peer; "get" needs no way back.
    """
    return fetch_study(house, study_instance_uid, source, how, by=at_command_line())


COMMANDS = (Command("send", send), Command("fetch", fetch))
