"""Peers and unknown callers from the command line."""

from __future__ import annotations

import pytest

from pacsteward.base.errors import Invalid, NotFound, Unavailable
from pacsteward.feature import House
from pacsteward.features.peers import checks, cli
from pacsteward.security import Peer, decide


def test_added_peer_is_in_the_list(house: House) -> None:
    made = cli.add(house, "CT1", "10.1.2.3", 104, services=("store,echo",), issuer="HOSP")
    assert made.services == ("echo", "store")
    assert cli.list_peers(house)[0].ae_title == "CT1"
    assert house.peers.need("CT1").default_issuer_of_patient_id == "HOSP"
    assert "command line" in house.audit.entries()[0].what


@pytest.mark.parametrize(
    ("written", "services"),
    [
        (("all",), {"echo", "store", "find", "get", "move"}),
        (("none",), set()),
        (("store", "echo"), {"echo", "store"}),
        (("store, find",), {"store", "find"}),
        (("Store find",), {"store", "find"}),
    ],
)
def test_services_are_read_however_they_are_written(
    house: House, written: tuple[str, ...], services: set[str]
) -> None:
    cli.add(house, "CT1", "10.1.2.3", 104, services=written)
    assert house.peers.need("CT1").services == services


def test_service_that_does_not_exist_is_refused(house: House) -> None:
    with pytest.raises(Invalid):
        cli.add(house, "CT1", "10.1.2.3", 104, services=("print",))


def test_change_keeps_what_is_not_named(house: House) -> None:
    cli.add(house, "CT1", "10.1.2.3", 104, services=("store",), description="CT")
    cli.change(house, "CT1", port=11112, accepts_from="any")
    peer = house.peers.need("CT1")
    assert peer == Peer("CT1", "10.1.2.3", 11112, frozenset({"store"}), "CT", accepts_from="")
    cli.change(house, "CT1", services=("none",), lenient_in_roles=True)
    assert house.peers.need("CT1").services == frozenset()
    assert house.peers.need("CT1").is_lenient_in_roles


def test_removed_peer_is_gone(house: House) -> None:
    cli.add(house, "CT1", "10.1.2.3", 104)
    cli.remove(house, "CT1")
    assert cli.list_peers(house) == []
    with pytest.raises(NotFound):
        cli.remove(house, "CT1")


def test_failed_echo_is_an_error_with_a_remedy(house: House) -> None:
    cli.add(house, "CT1", "127.0.0.1", 1)
    with pytest.raises(Unavailable) as failed:
        cli.echo(house, "CT1")
    assert failed.value.remedy


def test_unknown_caller_is_listed_and_admitted(house: House) -> None:
    decide(house.peers, calling_ae_title="US1", address="10.0.0.7", admit_unknown="never")
    assert cli.list_unknown(house)[0].calls == 1
    made = cli.admit(house, "US1", port=11112, services=("store",))
    assert (made.host, made.services) == ("10.0.0.7", ("store",))
    assert cli.list_unknown(house) == []


def test_checks_find_strangers_silent_and_loose_peers(house: House) -> None:
    assert [one.ask(house).status for one in checks.CHECKS] == ["ok", "ok", "ok"]
    decide(house.peers, calling_ae_title="US1", address="10.0.0.7", admit_unknown="never")
    house.peers.add(Peer("CT1", "10.1.2.3", 104, accepts_from=""))
    house.peers.note_echo("CT1", succeeded=False, words="No.")
    findings = [one.ask(house) for one in checks.CHECKS]
    assert [finding.status for finding in findings] == ["warning"] * 3
    assert "US1" in findings[0].what
    assert "CT1" in findings[1].what
