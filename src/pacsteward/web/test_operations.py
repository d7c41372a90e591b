"""The JSON API is made when it is first asked, and once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from pacsteward.security import AuditBook
from pacsteward.web.guard import Guard
from pacsteward.web.operations import ApiOperation, Interface

TOGETHER = 8


async def greet() -> str:
    return "hello"


def test_first_requests_that_come_together_find_one_api(audit: AuditBook) -> None:
    interface = Interface(
        [ApiOperation("GET", "/greeting", greet, "self", "Greet.")],
        Guard(audit),
        version="1",
        state={},
    )
    barrier = Barrier(TOGETHER)

    def ask(_number: int) -> int:
        barrier.wait()
        return id(interface._made())

    with ThreadPoolExecutor(TOGETHER) as threads:
        assert len(set(threads.map(ask, range(TOGETHER)))) == 1
