"""How much waits in memory for clients who do not read it.

A search may have an answer of ten megabytes, and a client may ask for it over and over and read
nothing. Each of these answers is kept until its connection is cut, half a minute later, and so many
come together in that time that a process takes gigabytes. They are counted here, and while they are
many the connections (`protocol.py`) have less patience with those who read nothing.
"""

from __future__ import annotations

from typing import Final

MUCH_BYTES: Final = 64 * 1024 * 1024
"""Of a process. Clients that read leave a few megabytes waiting, and those for moments.

Viewers that load studies hold two or three each, so a network that fails for all of them at once
makes it much from some twenty to thirty viewers of a process on. They cannot be told from those who
read nothing on purpose; but only as many are cut as are too many, who then ask again. More patience
for all would mean so much more memory for whoever asks a hundred times.
"""

AHEAD_BYTES: Final = 2 * 1024 * 1024
"""What an answer that is not over holds besides what waits on the connection: it is read ahead of
its client by some pieces (`dicom/web/streaming.py`). Counted while that one takes nothing."""


class Unread:
    """What waits in a process; for its event loop alone."""

    def __init__(self) -> None:
        self.size_bytes = 0

    @property
    def is_much(self) -> bool:
        """Whether those who read nothing must make room."""
        return self.size_bytes > MUCH_BYTES


class Waiting:
    """What waits for one client."""

    def __init__(self, unread: Unread) -> None:
        self._unread = unread
        self._size_bytes = 0

    def now(self, size_bytes: int) -> None:
        """Take note that it is so much by now."""
        self._unread.size_bytes += size_bytes - self._size_bytes
        self._size_bytes = size_bytes


UNREAD: Final = Unread()
"""Of this process."""
