"""What the query room can be told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pacsteward.base.settings import Section


class QuerySettings(Section):
    """How far a query may go."""

    section: ClassVar[str] = "query"

    max_matches: int = Field(
        20_000,
        description="C-FIND answers after which a query ends with A700, so that one careless "
        "question cannot keep the archive busy. 0 is no limit. Answers.",
        ge=0,
    )
    max_results: int = Field(
        1_000,
        description="Results that one QIDO-RS answer holds at most; the rest is announced in a "
        "Warning header and reached by offset. Results.",
        ge=101,
    )
    is_lenient_in_levels: bool = Field(
        False,
        description="Whether every caller may leave out the unique keys of higher levels without "
        "negotiating relational queries. The same can be allowed to single peers. Yes or no.",
    )
