"""``pacsteward query …``: ask another archive for its studies."""

from __future__ import annotations

from pacsteward.feature import Command, House
from pacsteward.features.query.elsewhere import Asked, FoundStudy, find_elsewhere
from pacsteward.security import at_command_line


def elsewhere(
    house: House,
    peer: str,
    *,
    patient_name: str = "",
    patient_id: str = "",
    accession_number: str = "",
    study_date: str = "",
) -> list[FoundStudy]:
    """Ask a registered peer which studies it has.

    Parameters
    ----------
    peer
        AE title of the peer.
    patient_name
        Beginning of the family name, or a pattern with *.
    patient_id
        Patient ID.
    accession_number
        Accession number.
    study_date
        A day, or a range: 20260101-20260131.
    """
    asked = Asked(patient_name, patient_id, accession_number, study_date)
    return list(find_elsewhere(house, peer, asked, by=at_command_line()).studies)


COMMANDS = (Command("elsewhere", elsewhere),)
