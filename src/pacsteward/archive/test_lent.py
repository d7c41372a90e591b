"""Memory that is lent: to one at a time, and the same again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pacsteward.archive.lent import KEPT, KEPT_BYTES, LentMemory


def address(view: memoryview) -> int:
    return id(view.obj)


def test_memory_is_lent_anew_when_nobody_looks_into_it_any_more() -> None:
    memory = LentMemory()
    first = memory.lend(1000)
    assert len(first) == 1000
    part = first[10:20]
    part[:] = b"0123456789"
    at = address(first)
    del first
    second = memory.lend(3000)
    second[:] = bytes(3000)
    assert bytes(part) == b"0123456789"
    assert address(second) != at
    del part, second
    assert address(memory.lend(500)) in {address(memory.lend(2000)), at}
    assert len(memory.lend(2500)) == 2500


def test_whoever_comes_when_all_is_lent_gets_memory_of_his_own() -> None:
    memory = LentMemory()
    held = [memory.lend(10) for _ in range(KEPT + 3)]
    assert len({address(one) for one in held}) == KEPT + 3
    kept = {address(one) for one in held[:KEPT]}
    held.clear()
    again = [memory.lend(10) for _ in range(KEPT)]
    assert {address(one) for one in again} == kept


def test_what_is_very_large_is_not_kept() -> None:
    memory = LentMemory()
    memory.lend(KEPT_BYTES + 1)
    assert sum(len(one.obj) for one in [memory.lend(1) for _ in range(KEPT)]) <= KEPT


def test_threads_never_share_memory() -> None:
    memory = LentMemory()

    def work(number: int) -> bool:
        views = []
        for _ in range(2000):
            view = memory.lend(64)
            view[:] = bytes([number]) * 64
            # Several at a time, so that there is now and then none to be had.
            views = [*views[-2:], view]
            if any(bytes(one) != bytes([number]) * 64 for one in views):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
