"""Settings of the security floor."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pacsteward.base.settings import Section

AdmitUnknown = Literal["loopback", "never", "always"]


class SecuritySettings(Section):
    """How long people stay signed in, and what their passwords must be."""

    section: ClassVar[str] = "security"

    session_idle_s: int = Field(
        30 * 60,
        ge=60,
        description="A session that is not used for this long ends. Seconds.",
    )
    session_length_s: int = Field(
        12 * 3600,
        ge=60,
        description="A session ends this long after sign-in, used or not. Seconds.",
    )
    password_length_min: int = Field(
        12, ge=8, le=128, description="Shortest password that may be chosen. Characters."
    )
    password_checks_max: int = Field(
        2,
        ge=1,
        le=16,
        description="Passwords checked at the same time, one in each web process at least; each "
        "takes 64 MiB of memory. Passwords.",
    )


class AdmissionSettings(Section):
    """Whom the DICOM door lets in."""

    section: ClassVar[str] = "dicom"

    admit_unknown: AdmitUnknown = Field(
        "loopback",
        description=(
            "Whether AE titles that are not registered may call: `loopback` from this machine "
            "only, `never`, or `always` (a test bench, not a hospital). A word."
        ),
    )
