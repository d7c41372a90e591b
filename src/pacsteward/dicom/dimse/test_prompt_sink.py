"""Sinks that need no task to wait for their answer: their peers hear what any peer hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pacsteward.base.errors import Exhausted
from pacsteward.dicom.dimse import Answer, AssociationClosed
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.pdu import Abort, ReleaseReply, ReleaseRequest
from pacsteward.dicom.dimse.test_support import (
    CONTEXTS,
    House,
    RawPeer,
    Shelf,
    ShelfSink,
    ask,
    echo_command,
    house,
    on_both_loops,
    store_command,
    until,
)

Tell = Callable[[Answer], None]


class PromptShelf(Shelf):
    """Keeps what it is given when it is told to, and answers at once or later."""

    def __init__(self, *, answers_at_once: bool = True) -> None:
        super().__init__()
        self.answers_at_once = answers_at_once
        self.waiting: list[Callable[[], None]] = []

    def receive(self, request):
        return PromptSink(self, request)

    def answer_all(self) -> None:
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            answer()


class PromptSink(ShelfSink):
    async def finish(self):
        raise AssertionError("It was answered by the other way.")

    def finish_soon(self, tell: Tell) -> bool:
        uid = self.request.affected_sop_instance_uid

        def answer() -> None:
            self.shelf.objects[uid] = b"".join(self.fragments)
            self.fragments.clear()
            tell(Answer(self.shelf.status))

        self.shelf.waiting.append(answer)
        if self.shelf.answers_at_once:
            asyncio.get_running_loop().call_soon(self.shelf.answer_all)
        return True


def statuses(answers) -> list[int]:
    return [command[dimse.STATUS] for command, _ in answers]


@on_both_loops
async def test_each_object_has_its_answer_without_a_task():
    shelf = PromptShelf()
    async with house(shelf.service()) as home:
        peers = [await RawPeer.associate(home.port, CONTEXTS) for _ in range(3)]
        for number in range(20):
            for place, peer in enumerate(peers):
                uid = f"1.2.{place}.{number}"
                command = store_command(uid, message_id=number + 1)
                ((answer, _),) = await ask(peer, 1, command, b"ab" * number)
                assert answer[dimse.STATUS] == 0
                assert answer[dimse.MESSAGE_ID_BEING_RESPONDED_TO] == number + 1
                assert answer[dimse.AFFECTED_SOP_INSTANCE_UID] == uid
                assert shelf.objects[uid] == b"ab" * number
        assert statuses(await ask(peers[0], 5, echo_command())) == [0]
        peers[0].say(ReleaseRequest())
        assert isinstance(await peers[0].hear(), ReleaseReply)


@on_both_loops
async def test_what_is_nothing_for_the_short_way_is_finished_as_any_object():
    shelf = Shelf()

    class Declines(ShelfSink):
        def finish_soon(self, _tell):
            return False

    class Fails(ShelfSink):
        def finish_soon(self, _tell):
            raise RuntimeError

        async def finish(self):
            raise Exhausted("No room.")

    kinds = {"1.2.1": Declines, "1.2.2": Fails}

    def receive(request):
        return kinds[request.affected_sop_instance_uid](shelf, request)

    async with house(shelf.service(receive=receive)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        assert statuses(await ask(peer, 1, store_command("1.2.1"), b"whole ")) == [0]
        assert shelf.objects == {"1.2.1": b"whole "}
        assert statuses(await ask(peer, 1, store_command("1.2.2"), b"whole ")) == [0xA700]
        assert statuses(await ask(peer, 5, echo_command())) == [0]


@on_both_loops
async def test_what_follows_an_object_waits_for_its_answer():
    shelf = PromptShelf(answers_at_once=False)
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.say_message(1, store_command("1.2.1", message_id=1), b"one ")
        peer.say_message(5, echo_command(2))
        peer.say_message(1, store_command("1.2.3", message_id=3), b"three ")
        await until(lambda: bool(shelf.waiting))
        shelf.answer_all()
        await until(lambda: bool(shelf.waiting))
        shelf.answer_all()
        answers = [await peer.hear_message() for _ in range(3)]
        assert [one[dimse.MESSAGE_ID_BEING_RESPONDED_TO] for one, _ in answers] == [1, 2, 3]
        assert shelf.objects == {"1.2.1": b"one ", "1.2.3": b"three "}


@on_both_loops
async def test_a_peer_that_takes_no_answers_gets_no_more_of_them():
    shelf = PromptShelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        link = next(iter(home.server._guests)).link
        # What asyncio says when the buffer of the connection is full.
        link.pause_writing()
        assert statuses(await ask(peer, 1, store_command("1.2.1"), b"one ")) == [0]
        peer.say_message(1, store_command("1.2.2"), b"two ")
        await until(lambda: link._reader.is_held)
        assert "1.2.2" not in shelf.objects
        link.resume_writing()
        answer, _ = await peer.hear_message()
        assert (answer[dimse.STATUS], shelf.objects["1.2.2"]) == (0, b"two ")


async def gone(home: House, peer: RawPeer, shelf: PromptShelf) -> None:
    """Lose a peer whose object has come whole and has no answer yet."""
    peer.say_message(1, store_command("1.2.9"), b"whole ")
    await until(lambda: bool(shelf.waiting))
    peer.say(Abort(0))
    await until(lambda: bool(home.told(AssociationClosed)))


@on_both_loops
async def test_c96_an_object_is_kept_although_its_peer_has_gone():
    shelf = PromptShelf(answers_at_once=False)
    async with house(shelf.service(), grace_s=30.0) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        await gone(home, peer, shelf)
        stopping = asyncio.create_task(home.server.stop(30.0))
        await until(lambda: bool(home.server._ending))
        assert not stopping.done()
        shelf.answer_all()
        await stopping
        assert shelf.objects == {"1.2.9": b"whole "}
        assert shelf.abandoned == []


@on_both_loops
async def test_an_answer_that_never_comes_holds_nobody_up_for_ever():
    shelf = PromptShelf(answers_at_once=False)
    async with house(shelf.service()) as home:
        lost = await RawPeer.associate(home.port, CONTEXTS)
        await gone(home, lost, shelf)
        waits = await RawPeer.associate(home.port, CONTEXTS)
        waits.say_message(1, store_command("1.2.8"), b"whole ")
        await until(lambda: len(shelf.waiting) == 2)
        async with asyncio.timeout(60):
            await home.server.stop(0.2)
        shelf.answer_all()
        assert isinstance(await waits.hear(), Abort)
