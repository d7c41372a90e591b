"""What the storage room gives to the house."""

from __future__ import annotations

from pacsteward.feature import Feature
from pacsteward.features.storage import dicomweb, dimse
from pacsteward.features.storage.settings import StorageSettings

FEATURE = Feature(
    name="storage",
    title="Storage",
    summary="Takes images by C-STORE and STOW-RS; what is acknowledged is safe.",
    dimse=(dimse.STORAGE,),
    routes=dicomweb.ROUTES,
    settings=(StorageSettings,),
)
