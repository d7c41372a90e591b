"""Free TCP ports for servers that tests start.

A server that is started takes a second or two until it listens. Meanwhile nobody else may be given
its port, neither another worker of the test run nor a client that calls somebody: so it is none of
those, above 32767, that the system gives to whoever asks for any.
"""

import secrets
import socket

LOWEST, HIGHEST = 20_000, 32_767


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST + 1)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
