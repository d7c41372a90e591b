"""Which objects are read and sent together: small ones that lie in one container.

A lease on the container, a buffer and a call to the kernel then serve several of them.
"""

from __future__ import annotations

from typing import Final

from pacsteward.archive import Instance

TOGETHER_BYTES: Final = 5 << 18
"""Two CT slices. Twice as much does not fit into the processor's cache, and is slower."""


def lie_together(one: Instance, other: Instance) -> bool:
    """Say whether one lease serves both."""
    here, there = one.location, other.location
    return (
        here.container == there.container
        and here.container_kind == there.container_kind
        and here.generation == there.generation
    )
