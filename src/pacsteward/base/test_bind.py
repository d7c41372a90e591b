"""What the system says of a place to listen on, and what is made of it; with the real system."""

from __future__ import annotations

import errno
import socket

import pytest

from pacsteward.base.bind import remedy_of


def refusal(host: str, port: int) -> OSError:
    with socket.socket() as one, pytest.raises(OSError, match=r"\w") as caught:
        one.bind((host, port))
    return caught.value


@pytest.mark.parametrize("host", ["192.0.2.254", "nowhere.invalid"])
def test_an_address_of_another_machine_is_told_apart_from_a_port_that_is_taken(host: str) -> None:
    assert "host" in remedy_of(refusal(host, 0), "Stop it.")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert remedy_of(refusal(*taken.getsockname()), "Stop it.") == "Stop it."


def test_a_low_port_is_a_matter_of_rights() -> None:
    # Whoever runs the tests may have the right.
    said = remedy_of(PermissionError(errno.EACCES, "Permission denied"), "Stop it.")
    assert "from 1024 on" in said
    assert "service.md" in said
