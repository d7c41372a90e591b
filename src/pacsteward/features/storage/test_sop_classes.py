"""Which SOP classes are taken."""

from __future__ import annotations

import pytest

from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.sop_classes import is_accepted

CT = "1.2.840.10008.5.1.4.1.1.2"
PRIVATE = "1.3.12.2.1107.5.9.1"
PRINTER = "1.2.840.10008.5.1.1.16"


@pytest.mark.parametrize("takes_private", [False, True])
def test_an_object_without_a_sop_class_is_of_none_that_is_taken(takes_private: bool) -> None:
    """An empty name begins like none of the standard's, as a private one does."""
    settings = StorageSettings(accept_private_sop_classes=takes_private)
    assert is_accepted(settings, CT)
    assert is_accepted(settings, PRIVATE) is takes_private
    assert not is_accepted(settings, PRINTER)
    assert not is_accepted(settings, "")
    settings = StorageSettings(accept_private_sop_classes=takes_private, accept_sop_classes=("",))
    assert not is_accepted(settings, "")
