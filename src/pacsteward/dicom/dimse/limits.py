"""How much an association may ask of us: sizes, times and numbers, each with its reason.

The values are arguments everywhere, so that the application sets them from its settings and a test
can make ten seconds a tenth of one. A length field on the wire is compared with these *before*
anything is read or allocated for it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pacsteward.base.errors import Invalid


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one DIMSE door, or of one association that we open.

    Parameters
    ----------
    announced_pdu_size_bytes
        Maximum Length Received that we announce (PS3.8 D.1): the longest P-DATA-TF PDU, without
        its six bytes of header, that a peer should send us.
    received_pdu_size_bytes_max
        The longest PDU that we take nevertheless. Twice what is announced, because some senders
        count the header in; a longer length field is answered with A-ABORT.
    associate_pdu_size_bytes_max
        The longest A-ASSOCIATE-RQ or A-ASSOCIATE-AC. 128 contexts of ten transfer syntaxes each
        need about 40 KiB.
    command_set_size_bytes_max
        The longest command set of one message.
    identifier_size_bytes_max
        The longest data set that is kept in memory: identifiers and DIMSE-N attribute lists.
    instance_size_bytes_max
        The longest data set of a C-STORE, which is never kept in memory by the door.
    artim_s
        Association Request/Reject/Release Timer (PS3.8 9.1.5): from connection to the last byte of
        the request, from our last word to the peer's closing, and the patience with `Admit`.
    data_set_idle_s
        The longest time without a whole PDU in the middle of a message, and without any progress
        of our own sending. Bytes that drip do not count: only whole PDUs do.
    association_idle_s
        The longest time between two messages.
    response_s
        The longest wait for the peer's response to a request of ours.
    associations_max
        Established associations at once; beyond, A-ASSOCIATE-RJ 2/3/2.
    reserved_for_registered
        How many of these only registered peers may take.
    connections_waiting_max
        Connections without an association (not asked yet, refused, ending) at once; beyond, a new
        one is closed at once.
    receive_chunk_size_bytes
        Size of the buffers that an association receives into.
    """

    announced_pdu_size_bytes: int = 131_072
    received_pdu_size_bytes_max: int = 262_144
    associate_pdu_size_bytes_max: int = 131_072
    command_set_size_bytes_max: int = 65_536
    identifier_size_bytes_max: int = 8 * 1024**2
    instance_size_bytes_max: int = 4 * 1024**3
    artim_s: float = 10.0
    data_set_idle_s: float = 30.0
    association_idle_s: float = 600.0
    response_s: float = 120.0
    associations_max: int = 1000
    reserved_for_registered: int = 10
    connections_waiting_max: int = 512
    receive_chunk_size_bytes: int = 2 * 1024**2

    def __post_init__(self) -> None:
        """Refuse values that cannot work together."""
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise Invalid(f"The DIMSE limit {field.name} is negative.", remedy="Give it ≥ 0.")
        if self.announced_pdu_size_bytes > self.received_pdu_size_bytes_max:
            raise Invalid(
                "The announced PDU size is larger than the largest PDU that is received.",
                why=f"{self.announced_pdu_size_bytes} > {self.received_pdu_size_bytes_max} bytes.",
                remedy="Raise received_pdu_size_bytes_max, or announce less.",
            )
        if self.receive_chunk_size_bytes < 2 * (self.received_pdu_size_bytes_max + 6):
            raise Invalid(
                "The receive chunk is too small for the largest PDU.",
                why="A chunk must hold two of them, the rest of one and the whole of the next.",
                remedy="Raise receive_chunk_size_bytes, or lower received_pdu_size_bytes_max.",
            )
        if self.reserved_for_registered > self.associations_max:
            raise Invalid(
                "More association slots are reserved for registered peers than there are.",
                why=f"{self.reserved_for_registered} of {self.associations_max}.",
                remedy="Lower reserved_for_registered, or raise associations_max.",
            )
