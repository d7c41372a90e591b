"""What to do when the system lets nobody listen on an address and port."""

from __future__ import annotations

import errno
import socket


def remedy_of(error: OSError, otherwise: str) -> str:
    """Return what whoever set up `host` and port can do about it.

    Parameters
    ----------
    error
        Of ``bind`` or of the look-up of a name.
    otherwise
        What to do in all other cases; mostly another program has the port.
    """
    # The errors of a look-up have numbers of their own, which may equal those of others.
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "Correct the setting host, or --host: it has to be an address of this machine."
    if error.errno == errno.EACCES:
        return (
            "Choose a port from 1024 on, or give the service the right to lower ones, as "
            "docs/administer/service.md says."
        )
    return otherwise
