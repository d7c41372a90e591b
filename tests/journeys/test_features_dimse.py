"""Functions of the DIMSE door that no other journey tells of: identity, classes, dedupe, patience.

Numbers F001 to F201 are those of the feature list.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from pacsteward.dicom.uids import STORAGE_SOP_CLASSES
from tests.support.ports import free_port
from tests.support.product import Product
from tests.support.samples import small
from tests.support.scu import (
    FIND,
    MOVE,
    associated,
    find,
    get,
    keys,
    move,
    rejection,
    sink,
    steady,
    store,
)

pytestmark = pytest.mark.journey

QUIET_S = 2.0
CAP = 5
PASSWORD = "correct horse battery"
SLOW = 41
"""Number of the study whose destination takes its time."""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    running = Product(
        tmp_path_factory.mktemp("features-dimse") / "archive",
        {
            "PACSTEWARD_ARCHIVE__STUDY_QUIET_S": str(QUIET_S),
            "PACSTEWARD_QUERY__MAX_MATCHES": str(CAP),
        },
    ).start()
    objects = [small(SLOW, 1, number, PatientID="SLOW") for number in range(1, 4)]
    objects += [small(50 + number, PatientID="CAPPED") for number in range(CAP + 2)]
    assert {status.Status for status in store(running, objects)} == {0}
    yield running
    running.stop()


# --- F028: who is at the workstation -------------------------------------------------------------


def identity(kind: int, name: str, passcode: str = "", *, asks: bool = False) -> Any:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.positive_response_requested = asks
    item.primary_field = name.encode()
    if kind == 2:
        item.secondary_field = passcode.encode()
    return item


def call(product: Product, who: Any, *, calling: str = "WORKPLACE") -> Association:
    ae = AE(ae_title=calling)
    for model in (
        Verification,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
        CTImageStorage,
    ):
        ae.add_requested_context(model, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    return ae.associate(
        "127.0.0.1", product.dimse_port, ae_title="PACSTEWARD", ext_neg=[who] if who else []
    )


def may(product: Product, who: Any, *, calling: str = "WORKPLACE") -> dict[str, bool]:
    """Try each service, in an association of its own."""
    nobody = keys("STUDY", PatientID="NOBODY")
    tries: dict[str, Callable[[Association], list[int]]] = {
        "echo": lambda one: [one.send_c_echo().Status],
        "find": lambda one: [status.Status for status, _ in one.send_c_find(nobody, FIND)],
        "store": lambda one: [one.send_c_store(small(40, 1, 1, PatientID="ID")).Status],
        "move": lambda one: [status.Status for status, _ in one.send_c_move(nobody, "WHO", MOVE)],
    }
    permitted = {}
    for name, attempt in tries.items():
        association = call(product, who, calling=calling)
        assert association.is_established
        steady(association)
        permitted[name] = attempt(association)[-1] != 0x0124
        association.release()
    return permitted


EVERYTHING = {"echo": True, "find": True, "store": True, "move": True}
LOOKING = {"echo": True, "find": True, "store": False, "move": False}


@pytest.fixture(scope="module")
def rita(api: httpx.Client) -> str:
    """A radiologist: may search and read, not store nor send."""
    person = {"name": "rita", "password": PASSWORD, "roles": ["radiologist"]}
    assert api.post("/api/v1/people", json=person).status_code < 300
    return "rita"


def test_f028_a_user_with_the_right_password_may_do_what_both_may(
    product: Product, rita: str
) -> None:
    association = call(product, identity(2, rita, PASSWORD, asks=True))
    assert association.is_established
    # An empty response, but a response: it was looked at (PS3.7 D.3.3.7.2).
    assert association.acceptor.user_identity is not None
    assert not association.acceptor.user_identity.server_response
    association.release()
    assert may(product, identity(2, rita, PASSWORD)) == LOOKING


def token(api: httpx.Client, role: str) -> str:
    made = api.post("/api/v1/tokens", json={"name": f"f028-{time.monotonic_ns()}", "roles": [role]})
    return str(made.json()["token"])


def test_f028_a_token_is_a_passcode_too(product: Product, api: httpx.Client) -> None:
    assert may(product, identity(2, "anything", token(api, "radiologist"))) == LOOKING
    assert may(product, identity(2, "x", token(api, "administrator"))) == EVERYTHING


def test_f028_an_identity_opens_nothing_that_the_ae_title_may_not(
    product: Product, api: httpx.Client
) -> None:
    passcode = token(api, "administrator")
    peer = {"ae_title": "FINDER", "host": "127.0.0.1", "port": 104, "services": ["find"]}
    assert api.post("/api/v1/peers", json=peer).status_code < 300
    permitted = may(product, identity(2, "admin", passcode), calling="FINDER")
    assert permitted == {"echo": False, "find": True, "store": False, "move": False}


@pytest.mark.parametrize("passcode", ["wrong", "", "\udcff"])
def test_f028_a_wrong_passcode_is_refused_1_1_1_and_audited(
    product: Product, api: httpx.Client, rita: str, passcode: str
) -> None:
    who = identity(2, rita)
    who.secondary_field = passcode.encode("utf-8", "surrogateescape") or b"\0"
    assert rejection(lambda: call(product, who)) == (1, 1, 1)
    refused = api.get("/api/v1/audit", params={"actor": rita, "failures": True}).json()["entries"]
    assert "WORKPLACE" in refused[0]["what"]
    assert refused[0]["title"] == "Login"


def test_f028_a_disabled_person_is_refused_and_a_success_is_in_the_book(
    product: Product, api: httpx.Client
) -> None:
    person = {"name": "otto", "password": PASSWORD, "roles": ["technologist"]}
    assert api.post("/api/v1/people", json=person).status_code < 300
    permitted = may(product, identity(2, "otto", PASSWORD))
    assert permitted == {"echo": True, "find": True, "store": True, "move": False}
    (entry,) = api.get("/api/v1/audit", params={"actor": "otto"}).json()["entries"][:1]
    assert (entry["title"], entry["outcome"]) == ("Login", 0)
    api.patch("/api/v1/people/otto", json={"is_disabled": True})
    who = identity(2, "otto", PASSWORD)
    assert rejection(lambda: call(product, who)) == (1, 1, 1)


def test_f028_a_name_alone_proves_nothing_and_gets_no_response(product: Product) -> None:
    association = call(product, identity(1, "admin", asks=True))
    assert association.is_established
    assert association.acceptor.user_identity is None
    association.release()
    assert may(product, identity(1, "admin")) == EVERYTHING, (
        "a stranger on this machine, as without a name"
    )


@pytest.mark.parametrize("kind", [3, 4, 5])
def test_f028_other_kinds_are_not_looked_at(product: Product, kind: int) -> None:
    association = call(product, identity(kind, "ticket", asks=True))
    assert association.is_established
    assert association.acceptor.user_identity is None
    association.release()


# --- querying ------------------------------------------------------------------------------------


def test_f005_relational_queries_are_a_matter_of_negotiation(product: Product) -> None:
    wanted = keys("IMAGE", PatientID="SLOW", SOPInstanceUID="")
    assert find(product, wanted)[1].Status == 0xA900
    found, final = find(product, wanted, information=b"\1")
    assert (len(found), final.Status) == (3, 0)
    hierarchical = keys(
        "IMAGE", StudyInstanceUID=f"2.25.99.{SLOW}", SeriesInstanceUID=f"2.25.99.{SLOW}.1",
        SOPInstanceUID="",
    )  # fmt: skip
    assert len(find(product, hierarchical)[0]) == 3


def test_f008_more_than_the_cap_is_said(product: Product) -> None:
    found, final = find(product, keys("STUDY", PatientID="CAPPED", StudyInstanceUID=""))
    assert (len(found), final.Status) == (CAP, 0xA700)
    assert str(CAP) in final.ErrorComment


# --- storing -------------------------------------------------------------------------------------


def accepted(product: Product, classes: Sequence[str]) -> set[str]:
    contexts = [(uid, [ExplicitVRLittleEndian]) for uid in classes]
    with associated(product, contexts) as association:
        return {str(context.abstract_syntax) for context in association.accepted_contexts}


def test_f033_every_storage_class_of_the_standard_is_accepted(product: Product) -> None:
    classes = sorted(STORAGE_SOP_CLASSES)
    assert len(classes) > 150
    for start in range(0, len(classes), 120):
        some = classes[start : start + 120]
        assert accepted(product, some) == set(some)
    # Those of independent lists too: pynetdicom's, and a vendor's own.
    from pynetdicom.presentation import AllStoragePresentationContexts

    listed = [str(one.abstract_syntax) for one in AllStoragePresentationContexts]
    for start in range(0, len(listed), 120):
        assert accepted(product, listed[start : start + 120]) == set(listed[start : start + 120])
    assert accepted(product, ["1.2.840.113619.4.30", "1.2.840.10008.1.20.1"]) == {
        "1.2.840.113619.4.30"
    }


def test_f137_the_same_object_again_takes_no_second_place(
    product: Product, api: httpx.Client
) -> None:
    data = small(42, 1, 1, PatientID="TWICE")
    data.Rows = data.Columns = 512
    data.PixelData = bytes(range(256)) * 2048

    def kept() -> tuple[int, int, int]:
        """Return how many bytes are kept, in how many places, and how many are in doubt."""
        with sqlite3.connect(f"file:{product.data / 'index.db'}?mode=ro", uri=True) as index:
            size, places = index.execute("SELECT sum(length), count(*) FROM location").fetchone()
            (conflicts,) = index.execute("SELECT count(*) FROM conflict").fetchone()
        return size, places, conflicts

    assert store(product, [data])[0].Status == 0
    assert api.get("/dicom-web/studies", params={"PatientID": "TWICE"}).status_code == 200
    before = kept()
    assert [status.Status for status in store(product, [data] * 5)] == [0] * 5
    # The same image, encoded otherwise, is the same image.
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert store(product, [data])[0].Status == 0
    (study,) = api.get("/dicom-web/studies", params={"PatientID": "TWICE"}).json()
    assert study["00201208"]["Value"] == [1]
    assert kept() == before


# --- retrieving ----------------------------------------------------------------------------------


def test_f019_a_registered_peer_may_leave_role_selection_out(
    product: Product, api: httpx.Client
) -> None:
    asked = keys("STUDY", StudyInstanceUID=f"2.25.99.{SLOW}")
    contexts = {CTImageStorage: [ExplicitVRLittleEndian]}
    peer = {"ae_title": "HOROS", "host": "127.0.0.1", "port": 104, "is_lenient_in_roles": True}
    assert api.post("/api/v1/peers", json=peer).status_code < 300
    options: dict[str, Any] = {"has_roles": False, "pretends_roles": True}
    came, statuses = get(product, asked, contexts, calling="HOROS", **options)
    assert (len(came), statuses[-1].Status) == (3, 0)
    came, statuses = get(product, asked, contexts, calling="OTHER", **options)
    assert (came, statuses[-1].Status) == ([], 0xA702)


def test_c87_pending_answers_keep_coming_while_one_object_takes_long(
    product: Product, api: httpx.Client
) -> None:
    def slowly(_event: Any) -> int:
        time.sleep(1.2)
        return 0

    with sink({CTImageStorage: [ExplicitVRLittleEndian]}, slowly) as port:
        peer = {"ae_title": "SINK", "host": "127.0.0.1", "port": port, "max_parallel": 1}
        assert api.post("/api/v1/peers", json=peer).status_code < 300
        statuses = move(product, keys("STUDY", StudyInstanceUID=f"2.25.99.{SLOW}"), "SINK")
    pending = [status for status in statuses if status.Status == 0xFF00]
    # Three objects in over three seconds: one answer each would leave the caller in silence.
    assert len(pending) >= 8
    assert statuses[-1].Status == 0
    assert statuses[-1].NumberOfCompletedSuboperations == 3


# --- echo ----------------------------------------------------------------------------------------


def test_f185_echo_explains_a_closed_port(product: Product, api: httpx.Client) -> None:
    port = free_port()
    product.run("peers", "add", "SHUT", "127.0.0.1", str(port))
    with pytest.raises(AssertionError) as failed:
        product.run("peers", "echo", "SHUT")
    assert f"nothing listens on port {port}" in str(failed.value)
    assert "Start its DICOM program, or correct the port." in str(failed.value)
    result = api.post("/api/v1/peers/SHUT/echo").json()
    assert (result["succeeded"], "nothing listens" in result["why"]) == (False, True)


def test_f185_echo_explains_a_peer_that_does_not_know_us(
    product: Product, api: httpx.Client
) -> None:
    ae = AE(ae_title="SNOB")
    ae.add_supported_context(Verification)
    ae.require_calling_aet = ["SOMEBODY"]
    port = free_port()
    server = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda _event: 0)]
    )
    try:
        product.run("peers", "add", "SNOB", "127.0.0.1", str(port))
        with pytest.raises(AssertionError) as failed:
            product.run("peers", "echo", "SNOB")
        assert "It does not know our AE title PACSTEWARD" in str(failed.value)
        assert "Have PACSTEWARD" in str(failed.value)
        ae.require_calling_aet = ["PACSTEWARD"]
        assert "SNOB answered" in product.run("peers", "echo", "SNOB")
        assert api.get("/api/v1/peers/SNOB").json()["last_echo_succeeded"] is True
    finally:
        server.shutdown()


# --- completeness: the last, since it starts the product anew ------------------------------------


def completed(product: Product, study: str) -> list[dict[str, Any]]:
    """Read the facts that announce a study as complete."""
    with sqlite3.connect(f"file:{product.data / 'index.db'}?mode=ro", uri=True) as index:
        rows = index.execute("SELECT body FROM fact WHERE name = 'study_completed'").fetchall()
    facts = [json.loads(body) for (body,) in rows]
    return [fact for fact in facts if fact["study_instance_uid"] == study]


def await_completed(product: Product, study: str, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while len(facts := completed(product, study)) < count:
        assert time.monotonic() < deadline, facts
        time.sleep(0.1)
    return facts


def test_f106_a_study_is_complete_after_its_quiet_time_also_over_a_restart(
    product: Product,
) -> None:
    first, second = small(43, 1, 1), small(43, 1, 2)
    study = str(first.StudyInstanceUID)
    assert store(product, [first])[0].Status == 0
    assert completed(product, study) == []
    (fact,) = await_completed(product, study, 1)
    assert fact["number_of_instances"] == 1
    # A late arrival announces it again; the deadline passes while the house is closed.
    assert store(product, [second])[0].Status == 0
    product.kill()
    assert len(completed(product, study)) == 1
    time.sleep(QUIET_S)
    product.start()
    late = await_completed(product, study, 2)[-1]
    assert late["number_of_instances"] == 2
    assert late["version"] > fact["version"]
