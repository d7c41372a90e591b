"""Memory of arriving bytes: copied once, used again, never under a reader's eyes."""

from __future__ import annotations

import weakref

from pacsteward.dicom.dimse.receive_buffer import ChunkPool, OwnChunk, ReceiveBuffer, is_held

SIZE = 1000


def receive(buffer: ReceiveBuffer, data: bytes, wanted: int = 1) -> memoryview:
    room = buffer.room(wanted)
    assert len(room) >= wanted
    room[: len(data)] = data
    begin = buffer.end
    buffer.end += len(data)
    return buffer.view[begin : buffer.end]


def test_a_chunk_with_a_reader_is_held():
    chunk = OwnChunk(SIZE)
    view = memoryview(chunk.memory).cast("B")
    part = view[2:4]
    assert is_held(chunk)
    view.release()
    assert is_held(chunk)
    part.release()
    assert not is_held(chunk)


def test_one_chunk_serves_a_large_object_when_the_sink_consumes_at_once():
    pool = ChunkPool(SIZE)
    buffer = ReceiveBuffer(pool, 0)
    seen = set()
    for _ in range(50):
        fragment = receive(buffer, b"a" * 400, wanted=400)
        seen.add(id(fragment.obj))
        buffer.start = buffer.end
        del fragment
    assert len(seen) == 1


def test_fragments_stay_unchanged_as_long_as_the_sink_holds_them():
    pool = ChunkPool(SIZE)
    buffer = ReceiveBuffer(pool, 0)
    held = []
    for number in range(50):
        held.append(receive(buffer, bytes([number]) * 400, wanted=400))
        buffer.start = buffer.end
    assert [bytes(fragment) for fragment in held] == [bytes([n]) * 400 for n in range(50)]


def test_chunks_come_back_when_the_slices_are_gone():
    pool = ChunkPool(SIZE)
    buffer = ReceiveBuffer(pool, 0)
    fragment = receive(buffer, b"a" * 10)
    first = id(fragment.obj)
    buffer.start = buffer.end
    buffer.rewind()
    other = pool.take()
    assert id(other.memory) != first
    del fragment
    assert id(pool.take().memory) == first


def test_an_idle_association_holds_no_chunk():
    pool = ChunkPool(SIZE)
    buffer = ReceiveBuffer(pool, 64)
    receive(buffer, b"opening")
    buffer.start = buffer.end
    buffer.rewind()
    assert len(buffer.view) == 0
    assert len(buffer.room(1)) == SIZE


def test_what_was_not_taken_yet_moves_along():
    pool = ChunkPool(SIZE)
    buffer = ReceiveBuffer(pool, 0)
    receive(buffer, b"a" * 990 + b"0123456789")
    buffer.start += 990
    room = buffer.room(20)
    assert bytes(buffer.view[buffer.start : buffer.end]) == b"0123456789"
    assert len(room) == SIZE - 10


class Shared(OwnChunk):
    """A chunk that another process looks into, too."""

    is_retired = False
    is_empty = False

    def empty(self) -> None:
        self.is_empty = True


def test_shared_memory_is_lent_first_and_never_again_once_it_is_retired():
    given = [Shared(SIZE), Shared(SIZE)]
    left = list(given)
    pool = ChunkPool(SIZE, lambda: left.pop() if left else None)
    taken = [pool.take() for _ in range(3)]
    assert [type(chunk) for chunk in taken] == [Shared, Shared, OwnChunk]
    for chunk in taken:
        pool.give(chunk)
    given[0].is_retired = True
    assert pool.take() is given[1]
    assert type(pool.take()) is OwnChunk


def test_memory_of_our_own_is_used_only_while_there_is_no_other():
    given = []
    pool = ChunkPool(SIZE, lambda: given.pop() if given else None)
    alone = pool.take()
    assert type(alone) is OwnChunk
    pool.give(alone)
    given.append(Shared(SIZE))
    assert type(pool.take()) is Shared


def test_shared_memory_that_is_held_is_remembered_however_much_there_is():
    pool = ChunkPool(SIZE, lambda: Shared(SIZE))
    taken = [pool.take() for _ in range(40)]
    views = [memoryview(chunk.memory) for chunk in taken]
    for chunk in taken:
        pool.give(chunk)
    views.clear()
    assert {id(pool.take()) for _ in range(40)} == set(map(id, taken))


def test_after_a_rush_only_a_few_chunks_keep_their_memory():
    pool = ChunkPool(SIZE, lambda: Shared(SIZE))
    taken = [pool.take() for _ in range(40)]
    for chunk in taken:
        pool.give(chunk)
    warm = [chunk for chunk in taken if not chunk.is_empty]
    assert 0 < len(warm) < 20
    # Those are lent first, and stay warm.
    for _ in range(100):
        chunk = pool.take()
        assert chunk in warm
        pool.give(chunk)
        assert not chunk.is_empty
    assert {id(pool.take()) for _ in range(40)} == set(map(id, taken))


def test_chunks_of_an_association_that_is_over_do_not_wait_for_it():
    pool = ChunkPool(1024)
    buffer = ReceiveBuffer(pool, 0)
    buffer.room(100)
    gone = weakref.ref(pool)
    del pool
    buffer.discard()
    assert gone() is None
