"""Peers: which are registered, who is let in from where, and who knocked in vain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pacsteward.base.clock import ManualClock
from pacsteward.base.errors import Conflict, Invalid, NotFound, Unavailable
from pacsteward.security import (
    Admission,
    AuditBook,
    Peer,
    PeerBook,
    Refusal,
    check_peer,
    decide,
)
from pacsteward.security.peers import UNKNOWN_CALLERS_MAX

CT1 = Peer("CT1", "10.1.2.3", 104, frozenset({"echo", "store"}))


def test_peer_is_kept_as_registered(peers: PeerBook) -> None:
    full = replace(
        CT1,
        description="CT, emergency",
        default_issuer_of_patient_id="HOSPITAL-A",
        accepts_from="10.1.2.0/24",
        is_lenient_in_roles=True,
        is_lenient_in_levels=True,
        prefers_transfer_syntaxes=("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"),
        max_parallel=4,
    )
    peers.add(full)
    assert peers.get("CT1") == full
    assert peers.get(" CT1 ") == full
    assert peers.get("ct1") is None
    assert peers.all() == [full]


def test_peer_is_changed_and_removed(peers: PeerBook, audit: AuditBook) -> None:
    peers.add(CT1)
    peers.change(replace(CT1, port=11112))
    assert peers.need("CT1").port == 11112
    peers.remove("CT1")
    assert peers.get("CT1") is None
    assert [entry.action for entry in audit.entries()] == ["D", "U", "C"]
    assert "port 104 became 11112" in audit.entries()[1].what


def test_a_title_is_registered_once(peers: PeerBook) -> None:
    peers.add(CT1)
    with pytest.raises(Conflict):
        peers.add(CT1)


def test_what_is_not_there_cannot_be_changed(peers: PeerBook) -> None:
    for act in (lambda: peers.change(CT1), lambda: peers.remove("CT1"), lambda: peers.need("CT1")):
        with pytest.raises(NotFound):
            act()


@pytest.mark.parametrize("title", ["", "    ", "X" * 17, "A\\B", "A\nB", "Ä", "A\x00", "A\u202e"])
def test_ae_titles_keep_to_the_standard(title: str) -> None:
    """PS3.5 6.2."""
    with pytest.raises(Invalid):
        check_peer(replace(CT1, ae_title=title))


@pytest.mark.parametrize("title", ["A", "X" * 16, "ct 1", "CT-1_x.y", "[%]", "'; --"])
def test_ae_titles_may_hold_all_else(title: str) -> None:
    assert check_peer(replace(CT1, ae_title=f"  {title} ")).ae_title == title


@pytest.mark.parametrize(
    "change",
    [
        {"host": ""},
        {"host": "a b"},
        {"host": "-x"},
        {"host": "x" * 300},
        {"host": "http://x"},
        {"port": 0},
        {"port": 65536},
        {"port": -1},
        {"services": frozenset({"delete"})},
        {"accepts_from": "10.0.0.0/99"},
        {"accepts_from": "everywhere"},
        {"max_parallel": -1},
        {"max_parallel": 1000},
        {"prefers_transfer_syntaxes": ("JPEG",)},
        {"default_issuer_of_patient_id": "A\\B"},
    ],
)
def test_what_cannot_be_right_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        check_peer(replace(CT1, **change))


@pytest.mark.parametrize("host", ["10.1.2.3", "ct1", "ct1.radiology.example", "fe80::1", "[::1]"])
def test_hosts_are_addresses_or_names(host: str) -> None:
    assert check_peer(replace(CT1, host=host)).host == host.strip("[]")


# Who may call: S1, S5


def ask(peers: PeerBook, title: str, address: str, admit: str = "loopback") -> Admission | Refusal:
    return decide(peers, calling_ae_title=title, address=address, admit_unknown=admit)  # type: ignore[arg-type]


def test_registered_peer_gets_its_services(peers: PeerBook) -> None:
    peers.add(CT1)
    answer = ask(peers, "CT1             ", "10.1.2.3")
    assert isinstance(answer, Admission)
    assert answer.is_registered
    assert answer.permissions == {"dimse.echo", "studies.store"}
    assert peers.states()["CT1"].last_seen_address == "10.1.2.3"


def test_r5_callers_are_let_in_while_the_database_takes_nothing(
    peers: PeerBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: whoever may read what is stored can."""
    peers.add(CT1)

    def refuse(*_args: object, **_more: object) -> object:
        raise Unavailable("The database did not answer.", why="database or disk is full")

    monkeypatch.setattr(peers._database, "write", refuse)
    assert ask(peers, "CT1", "10.1.2.3").is_registered
    assert isinstance(ask(peers, "CT9", "127.0.0.1"), Admission)
    assert isinstance(ask(peers, "CT9", "10.9.9.9"), Refusal)


def test_title_alone_is_no_proof(peers: PeerBook) -> None:
    """S5: a known AE title from another address is a stranger's."""
    peers.add(CT1)
    assert isinstance(ask(peers, "CT1", "10.1.2.4"), Refusal)
    caller = peers.unknown_callers()[0]
    assert (caller.ae_title, caller.address) == ("CT1", "10.1.2.4")
    assert "another address" in caller.why


@pytest.mark.parametrize(
    ("accepts_from", "address", "is_let_in"),
    [
        ("host", "10.1.2.3", True),
        ("host", "::ffff:10.1.2.3", True),
        ("host", "10.1.2.4", False),
        ("10.1.2.0/24", "10.1.2.99", True),
        ("10.1.2.0/24", "10.1.3.1", False),
        ("10.9.9.9", "10.9.9.9", True),
        ("10.9.9.9", "10.1.2.3", False),
        ("fe80::/10", "fe80::7", True),
        ("fe80::/10", "10.1.2.3", False),
        ("", "203.0.113.7", True),
        ("any", "203.0.113.7", True),
    ],
)
def test_peer_may_call_from_where_it_is_bound_to(
    peers: PeerBook, accepts_from: str, address: str, is_let_in: bool
) -> None:
    peers.add(replace(CT1, accepts_from=accepts_from))
    assert isinstance(ask(peers, "CT1", address), Admission) is is_let_in


def test_host_name_is_looked_up_at_each_call(
    peers: PeerBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = "10.7.7.1"

    def look_up(*_args: object, **_named: object) -> list[object]:
        return [(2, 1, 6, "", (where, 0))]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    peers.add(replace(CT1, host="ct1.example"))
    assert isinstance(ask(peers, "CT1", "10.7.7.1"), Admission)
    where = "10.7.7.2"
    assert isinstance(ask(peers, "CT1", "10.7.7.1"), Refusal)


def test_name_that_nobody_knows_lets_nobody_in(
    peers: PeerBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_args: object, **_named: object) -> list[object]:
        raise OSError("no such name")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    peers.add(replace(CT1, host="gone.example"))
    assert isinstance(ask(peers, "CT1", "10.7.7.1"), Refusal)


def test_stranger_is_let_in_from_this_machine_only(peers: PeerBook) -> None:
    """S1; and what a stranger may do is what a test bench needs."""
    answer = ask(peers, "BENCH", "127.0.0.1")
    assert isinstance(answer, Admission)
    assert not answer.is_registered
    assert answer.permissions == {
        "dimse.echo",
        "studies.store",
        "studies.find",
        "studies.read",
        "studies.move",
    }
    assert isinstance(ask(peers, "BENCH", "::1"), Admission)
    assert isinstance(ask(peers, "BENCH", "10.0.0.1"), Refusal)
    assert isinstance(ask(peers, "BENCH", "127.0.0.1", "never"), Refusal)
    assert isinstance(ask(peers, "BENCH", "10.0.0.1", "always"), Admission)


def test_restricted_peer_stays_restricted_on_this_machine(peers: PeerBook) -> None:
    peers.add(replace(CT1, host="127.0.0.1", services=frozenset({"echo"})))
    answer = ask(peers, "CT1", "127.0.0.1")
    assert isinstance(answer, Admission)
    assert answer.permissions == {"dimse.echo"}


def test_unknown_caller_is_one_row_however_often_it_calls(
    peers: PeerBook, clock: ManualClock
) -> None:
    first = clock.now()
    for _ in range(3):
        decide(
            peers,
            calling_ae_title="US1",
            address="10.0.0.1",
            admit_unknown="never",
            called_ae_title="PACS",
            proposed=["CT Image Storage"],
            implementation="VENDOR_1",
        )
        clock.advance(60)
    ask(peers, "US1", "10.0.0.2", "never")
    latest, earlier = peers.unknown_callers()
    assert (latest.address, latest.calls) == ("10.0.0.2", 1)
    assert (earlier.calls, earlier.first_seen_at) == (3, first)
    assert earlier.proposed == ("CT Image Storage",)
    assert not earlier.was_admitted


def test_titles_from_the_network_are_written_out(peers: PeerBook) -> None:
    """S11: no line break, no change of direction survives."""
    ask(peers, "A\r\nB\x00\u202e", "10.0.0.1", "never")
    assert peers.unknown_callers()[0].ae_title.isprintable()


def test_a_scan_cannot_fill_the_database(peers: PeerBook, clock: ManualClock) -> None:
    for number in range(UNKNOWN_CALLERS_MAX + 20):
        clock.advance(1)
        peers.note_unknown(f"T{number}", "10.0.0.1")
    callers = peers.unknown_callers()
    assert len(callers) == UNKNOWN_CALLERS_MAX
    assert callers[0].ae_title == f"T{UNKNOWN_CALLERS_MAX + 19}"


def test_admitting_registers_the_caller_where_it_called_from(peers: PeerBook) -> None:
    ask(peers, "US1", "10.0.0.1", "never")
    peer = peers.admit_unknown("US1")
    assert (peer.host, peer.accepts_from) == ("10.0.0.1", "10.0.0.1")
    assert peer.services == {"echo", "store"}
    assert peers.unknown_callers() == []
    assert isinstance(ask(peers, "US1", "10.0.0.1", "never"), Admission)


def test_admitting_a_known_title_lets_it_call_from_the_new_address(peers: PeerBook) -> None:
    peers.add(CT1)
    ask(peers, "CT1", "10.1.9.9", "never")
    peer = peers.admit_unknown("CT1")
    assert peer == replace(CT1, accepts_from="10.1.9.9")
    assert isinstance(ask(peers, "CT1", "10.1.9.9", "never"), Admission)


def test_only_who_has_called_can_be_admitted(peers: PeerBook) -> None:
    with pytest.raises(NotFound):
        peers.admit_unknown("US1")
