"""Objects by C-STORE, over several associations at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bench.dimse_client import C_STORE, EXPLICIT_LITTLE, Association, uid
from bench.load import FAILED, Load, run
from bench.objects import Encoded


def send(port: int, called: str, batch: Sequence[Encoded], associations: int) -> Load:
    """Send objects over so many associations at once, a process each."""
    shares = [batch[start::associations] for start in range(associations)]
    return run([partial(store_client, port, called, share) for share in shares if share])


def store_client(port: int, called: str, share: Sequence[Encoded]) -> Iterator[int]:
    """Send one object after the other over one association."""
    classes = sorted({one.sop_class_uid for one in share})
    context_of = {name: 1 + 2 * index for index, name in enumerate(classes)}
    contexts = {number: (name, (EXPLICIT_LITTLE,)) for name, number in context_of.items()}
    association = Association(port, called, contexts)
    messages = [
        association.encode(
            context_of[one.sop_class_uid],
            {
                0x0002: uid(one.sop_class_uid),
                0x0100: C_STORE,
                0x0110: number % 65_535 + 1,
                0x0700: 0,
                0x1000: uid(one.sop_instance_uid),
            },
            one.data_set,
        )
        for number, one in enumerate(share)
    ]
    yield 0
    for message, one in zip(messages, share, strict=True):
        association.send(message)
        yield len(one.data_set) if association.message().status == 0 else FAILED
    association.release()
