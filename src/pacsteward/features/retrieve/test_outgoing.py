"""Promises of outgoing.py and move.py: how an object travels, and how a study is parted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from pacsteward.archive import Archive, Instance, Location
from pacsteward.base.errors import Broken, PacstewardError, Unavailable, Unsupported, WouldWait
from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import PresentationContext
from pacsteward.features.retrieve.move import CONTEXTS_MAX, _loads, _pairs
from pacsteward.features.retrieve.outgoing import (
    Outgoing,
    Source,
    choose_context,
    chunks,
    load,
    read_ahead,
)
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.together import TOGETHER_BYTES

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
MPEG = "1.2.840.10008.1.2.4.102"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def instance(
    number: int = 1, syntax: str = EXPLICIT, sop_class: str = CT, size_bytes: int = 8
) -> Instance:
    return Instance(
        instance_key=number,
        sop_instance_uid=f"1.2.3.{number}",
        sop_class_uid=sop_class,
        series_instance_uid="1.2.2",
        study_instance_uid="1.2.1",
        transfer_syntax_uid=syntax,
        instance_number=str(number),
        number_of_frames="",
        rows="2",
        columns="2",
        modality="CT",
        patient_id="P",
        issuer_of_patient_id="",
        has_pixel_data=True,
        size_bytes=size_bytes,
        checksum=0,
        location=Location("landing", "1", 1, 0, size_bytes),
        file_meta=b"",
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        series_version=1,
    )


def contexts(*syntaxes: str, sop_class: str = CT) -> list[PresentationContext]:
    return [
        PresentationContext(2 * number + 1, Uid(sop_class), Uid(syntax), as_scu=True, as_scp=True)
        for number, syntax in enumerate(syntaxes)
    ]


# --- which context -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "taken", "prefers", "chosen"),
    [
        (JPEG_LS, [IMPLICIT, EXPLICIT, JPEG_LS], [], JPEG_LS),
        (JPEG_LS, [IMPLICIT, EXPLICIT], [], EXPLICIT),
        (JPEG_LS, [JPEG_2000, BIG, IMPLICIT], [], IMPLICIT),
        (EXPLICIT, [JPEG_2000, IMPLICIT], [], IMPLICIT),
        (EXPLICIT, [JPEG_2000], [], JPEG_2000),
        (EXPLICIT, [EXPLICIT, JPEG_LS], [JPEG_LS], JPEG_LS),
        (EXPLICIT, [EXPLICIT, JPEG_LS], [JPEG_2000, JPEG_LS], JPEG_LS),
        (EXPLICIT, [EXPLICIT, JPEG_LS], [JPEG_2000], EXPLICIT),
        (MPEG, [EXPLICIT, MPEG], [EXPLICIT], MPEG),
    ],
)
def test_the_best_way_is_what_the_receiver_prefers_then_as_stored_then_uncompressed(
    stored: str, taken: list[str], prefers: list[str], chosen: str
) -> None:
    found = choose_context(instance(syntax=stored), contexts(*taken), prefers)
    assert found.transfer_syntax == chosen


def test_c91_what_cannot_be_converted_says_so() -> None:
    with pytest.raises(Unsupported) as refused:
        choose_context(instance(syntax=MPEG), contexts(EXPLICIT))
    assert MPEG in refused.value.why
    assert EXPLICIT in refused.value.why


def test_c86_a_class_without_a_context_says_so() -> None:
    with pytest.raises(Unsupported) as refused:
        choose_context(instance(), contexts(EXPLICIT, sop_class=MR))
    assert CT in refused.value.why


def test_each_class_and_syntax_has_a_context_of_its_own_however_often_it_is_asked_for() -> None:
    implicit = PresentationContext(9, Uid(MR), Uid(IMPLICIT), as_scu=True, as_scp=True)
    given = replace(source(Vault()), contexts=[*contexts(EXPLICIT, IMPLICIT), implicit])
    for _ in range(2):
        objects = instance(1), instance(2, syntax=IMPLICIT), instance(3, sop_class=MR)
        assert [given.context_for(one).context_id for one in objects] == [1, 3, 9]
        with pytest.raises(Unsupported):
            given.context_for(instance(4, syntax=MPEG))
    assert replace(given, contexts=contexts(IMPLICIT)).context_for(instance()).context_id == 1
    only_implicit = replace(given, contexts=[implicit])
    with pytest.raises(Unsupported):
        only_implicit.context_for(instance())


# --- its bytes -----------------------------------------------------------------------------------


class Stored:
    """The bytes of one instance, or what is wrong with them."""

    def __init__(self, one: Instance, failure: Exception | None) -> None:
        self.instance = one
        self.failure = failure
        self.transfer_syntax_uid = one.transfer_syntax_uid
        self.size = one.size_bytes
        self.was_checked = False

    def data_set(self) -> bytes:
        self.check()
        return self.read(0, self.size)

    def check(self) -> None:
        self.was_checked = True
        if self.failure is not None:
            raise self.failure

    def read(self, offset: int, length: int) -> bytes:
        return bytes(min(length, self.size - offset))


class Prompt:
    """The part of a `Vault` that never waits: it has in memory what `in_memory` says."""

    def __init__(self, in_memory: frozenset[int], failures: dict[int, Exception]) -> None:
        self.in_memory = in_memory
        self.failures = failures
        self.opened: list[list[int]] = []

    def wholes(self, some: Sequence[Instance]) -> list[memoryview]:
        keys = [one.instance_key for one in some]
        if not self.in_memory.issuperset(keys) or not self.failures.keys().isdisjoint(keys):
            raise WouldWait
        self.opened.append(keys)
        return [memoryview(bytes(one.size_bytes)) for one in some]


class Vault:
    """An archive of nothing but sizes, which notes what was opened."""

    def __init__(
        self, failures: dict[int, Exception] | None = None, in_memory: Iterable[int] = ()
    ) -> None:
        self.opened: list[int] = []
        self.prompt = Prompt(frozenset(in_memory), failures or {})
        self.failures = failures or {}
        self.last: Stored | None = None
        self._lock = threading.Lock()

    @contextmanager
    def open(self, one: Instance) -> Iterator[Stored]:
        with self._lock:
            self.opened.append(one.instance_key)
        self.last = Stored(one, self.failures.get(one.instance_key))
        yield self.last

    def scratch_folder(self) -> None:
        """Name none: what is converted here is small and stays in memory."""


def source(vault: Vault, *, whole_bytes: int = 1024**2, read_ahead: int = 3) -> Source:
    settings = RetrieveSettings(whole_bytes=whole_bytes, read_ahead=read_ahead)
    return Source(cast(Archive, vault), settings, contexts(EXPLICIT))


async def collected(
    given: Source, instances: list[Instance]
) -> list[tuple[int, Outgoing | PacstewardError]]:
    return [(one.instance_key, ready) async for one, ready in read_ahead(given, instances)]


def test_small_objects_are_read_whole_and_large_ones_are_left_on_the_disk_checked() -> None:
    vault = Vault()
    small = load(source(vault), instance(size_bytes=1024))
    assert small.data == bytes(1024)
    large = instance(size_bytes=3 * 1024**2)
    assert load(source(vault), large).data is None
    assert vault.last is not None
    assert vault.last.was_checked


def test_a_large_object_comes_in_pieces_and_whole() -> None:
    vault = Vault()
    given = Outgoing(instance(size_bytes=2 * 1024**2 + 5), 1, None)

    async def run() -> list[int]:
        return [len(piece) async for piece in chunks(cast(Archive, vault), given)]

    assert asyncio.run(run()) == [1024**2, 1024**2, 5]


@pytest.mark.parametrize("in_memory", [(), (1, 2, 5), range(1, 7)])
def test_objects_come_in_order_and_one_that_fails_does_not_stop_the_others(
    in_memory: Iterable[int],
) -> None:
    failures = {2: Unavailable("Disk."), 4: ZeroDivisionError("a fault of ours")}
    vault = Vault(failures, in_memory)
    ready = asyncio.run(collected(source(vault), [instance(n) for n in range(1, 7)]))
    assert [key for key, _ in ready] == [1, 2, 3, 4, 5, 6]
    assert [type(one) for _, one in ready] == [
        Outgoing, Unavailable, Outgoing, Broken, Outgoing, Outgoing,
    ]  # fmt: skip


def test_no_more_is_read_ahead_than_the_settings_allow() -> None:
    vault = Vault()

    async def run() -> int:
        given = source(vault, read_ahead=2)
        async with aclosing(read_ahead(given, [instance(n) for n in range(1, 50)])) as ready:
            await anext(ready)
            await asyncio.sleep(0.05)
            return len(vault.opened)

    assert asyncio.run(run()) <= 3


def test_what_is_in_memory_is_not_handed_to_a_thread_unless_it_is_large_or_converted() -> None:
    objects = [
        *(instance(1), instance(2), instance(3, size_bytes=2 * 1024**2)),
        *(instance(4, syntax=IMPLICIT), instance(5, sop_class=MR)),
    ]
    vault = Vault(in_memory=(1, 3, 4, 5))
    ready = dict(asyncio.run(collected(source(vault), objects)))
    assert vault.prompt.opened == [[1]]
    assert sorted(vault.opened) == [2, 3, 4]
    assert [ready[key] for key in (1, 2)] == [
        Outgoing(one, 1, memoryview(bytes(8))) for one in objects[:2]
    ]
    assert isinstance(ready[5], Unsupported)


def test_the_next_objects_are_read_when_the_one_before_is_on_its_way() -> None:
    vault = Vault(in_memory=range(1, 50))
    objects = [instance(number) for number in range(1, 50)]

    async def run() -> list[int]:
        done: list[int] = []
        async with aclosing(read_ahead(source(vault, read_ahead=3), objects)) as ready:
            async for one, outgoing in ready:
                assert outgoing == Outgoing(one, 1, memoryview(bytes(8)))
                read = [key for keys in vault.prompt.opened for key in keys]
                assert read == list(range(1, len(read) + 1))
                assert one.instance_key <= len(read) <= one.instance_key + 3
                done.append(one.instance_key)
                await asyncio.sleep(0)
                # On its way is this one; the next one waits in memory.
                assert sum(map(len, vault.prompt.opened)) > min(one.instance_key, 48)
        return done

    assert asyncio.run(run()) == [one.instance_key for one in objects]
    assert not vault.opened
    assert [len(keys) for keys in vault.prompt.opened[:4]] == [3, 2, 2, 2]


def test_only_small_objects_that_lie_together_are_read_together() -> None:
    elsewhere = Location("landing", "2", 1, 0, 8)
    objects = [
        *(instance(1), replace(instance(2), location=elsewhere), instance(3)),
        *(instance(number, size_bytes=TOGETHER_BYTES // 2) for number in (4, 5, 6)),
    ]
    vault = Vault(in_memory=range(1, 7))
    assert len(asyncio.run(collected(source(vault, whole_bytes=1 << 24), objects))) == 6
    assert vault.prompt.opened == [[1], [2], [3, 4], [5, 6]]


def test_a_conversion_that_nobody_waits_for_stops() -> None:
    given = replace(source(Vault()), contexts=contexts(IMPLICIT), is_cancelled=lambda: True)
    with pytest.raises(Unavailable):
        load(given, instance(size_bytes=1024))


# --- how a study is parted -----------------------------------------------------------------------


def classes(count: int) -> list[Any]:
    return [instance(number, sop_class=f"1.2.9.{number}") for number in range(count)]


def test_c90_no_part_needs_more_than_128_contexts() -> None:
    everything = classes(300)
    parts = _loads(everything, 1)
    assert [one for part in parts for one in part] == everything
    for part in parts:
        assert len({pair for one in part for pair in _pairs(one, ())}) <= CONTEXTS_MAX


def test_f015_workers_have_equal_parts() -> None:
    parts = _loads([instance(number) for number in range(10)], 3)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert _loads([instance()], 4) == [[instance()]]


def test_a_context_is_proposed_for_each_way_an_object_can_travel() -> None:
    assert [syntax for _, syntax in _pairs(instance(syntax=JPEG_LS), [JPEG_2000])] == [
        JPEG_2000, JPEG_LS, EXPLICIT, IMPLICIT,
    ]  # fmt: skip
    assert [syntax for _, syntax in _pairs(instance(syntax=MPEG), [JPEG_2000])] == [MPEG]
