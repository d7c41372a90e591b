"""The way into a thread: the caller's context, and no return before the function's."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from pacsteward.web.threads import in_thread


def test_a_function_runs_in_a_thread_with_the_context_of_its_caller() -> None:
    word = contextvars.ContextVar("word", default="")

    async def call() -> tuple[str, int]:
        word.set("of the caller")
        return await in_thread(lambda: (word.get(), threading.get_ident()))

    said, thread = asyncio.run(call())
    assert said == "of the caller"
    assert thread != threading.get_ident()


def test_one_that_is_cancelled_waits_for_its_function() -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(30)
        ended.set()

    async def call() -> None:
        task = asyncio.create_task(in_thread(work))
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(call())
