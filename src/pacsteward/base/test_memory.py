"""What is found in memory is what would be found in a copy of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pacsteward.base.memory import found_in

_LETTERS = st.text("ab\r", max_size=40).map(str.encode)


@given(_LETTERS, st.text("ab\r", min_size=1, max_size=4).map(str.encode), st.data())
def test_the_first_place_is_found_from_any_start(
    data: bytes, wanted: bytes, more: st.DataObject
) -> None:
    start = more.draw(st.integers(0, len(data)))
    # What stands around it does not belong to it.
    around = bytearray(wanted + data + wanted)
    memory = memoryview(around)[len(wanted) : len(wanted) + len(data)]
    assert found_in(memory, wanted, start) == data.find(wanted, start)
    assert found_in(memory.toreadonly(), wanted, start) == data.find(wanted, start)
    assert found_in(data, wanted, start) == data.find(wanted, start)
