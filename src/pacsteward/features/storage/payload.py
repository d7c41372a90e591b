"""One part of a STOW-RS request while it arrives.

Where the keeper shares memory with this process it lies there, and is handed over without a copy;
it goes to a `Spool` when it is large, or when that memory is full.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pacsteward.archive import Parcel, Shelf
from pacsteward.dicom.web.bodies import IN_MEMORY_BYTES, Spool


class Payload:
    """The bytes of one part; `close` frees them.

    Parameters
    ----------
    shelf
        Shared memory for the parts of this request; None where there is none.
    folder
        Gives that of the `Spool`, which few need.
    max_bytes
        Of the `Spool`.
    """

    def __init__(self, shelf: Shelf | None, folder: Callable[[], Path], *, max_bytes: int) -> None:
        self.parcel = Parcel(shelf) if shelf is not None else None
        self._folder = folder
        self._max_bytes = max_bytes
        self._spool = None if self.parcel is not None else self._new_spool()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, which must stay unchanged unless they lie on the shelf.

        Raises
        ------
        TooLarge
            It is longer than it may be.
        """
        view = memoryview(data)
        if self.parcel is None:
            assert self._spool is not None
            self._spool.write(_lasting(view))
            return
        taken = 0
        if self.parcel.size + len(view) <= IN_MEMORY_BYTES:
            taken = self.parcel.write(view)
        if taken < len(view):
            self._move_to_spool(self.parcel).write(_lasting(view[taken:]))

    @property
    def size(self) -> int:
        """How many bytes there are."""
        if self.parcel is not None:
            return self.parcel.size
        return 0 if self._spool is None else self._spool.size

    def value(self) -> memoryview:
        """Return the whole; valid until `close`."""
        if self.parcel is not None:
            return memoryview(b"".join(self.parcel.views()))
        assert self._spool is not None
        return self._spool.value()

    def close(self) -> None:
        """Free everything."""
        if self._spool is not None:
            self._spool.close()
        if self.parcel is not None:
            self.parcel.release()
            self.parcel = None

    def _new_spool(self) -> Spool:
        return Spool(self._folder(), max_bytes=self._max_bytes)

    def _move_to_spool(self, parcel: Parcel) -> Spool:
        # As copies: the memory is lent to somebody else at once.
        self.parcel = None
        try:
            self._spool = self._new_spool()
            for view in parcel.views():
                self._spool.write(bytes(view))
        finally:
            parcel.release()
        return self._spool


def _lasting(view: memoryview) -> memoryview:
    """Return bytes that stay; those that lie on the shelf will be written over."""
    return view if view.readonly else memoryview(bytes(view))
