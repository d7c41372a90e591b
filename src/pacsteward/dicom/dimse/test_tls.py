"""The same over TLS: nothing else may be different."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import uvloop

from pacsteward.base.errors import Unavailable
from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import DimseServer, Limits, ProposedContext, connect
from pacsteward.dicom.dimse.test_support import (
    CT,
    EXPLICIT,
    OURS,
    STUDY_GET,
    THEIRS,
    PacedSink,
    RawPeer,
    Shelf,
    admit_everybody,
    get_service,
)

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="the openssl command is not installed")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=archive"),
            *("-addext", "subjectAltName=DNS:archive"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_objects_pass_both_ways_through_tls(certificate, run):
    shelf, log = Shelf(), []
    paced = shelf.service(receive=lambda request: PacedSink(shelf, request, log))
    payload = bytes(range(256)) * 20_000
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    client_side = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    strangers = ssl.create_default_context()

    async def scene():
        server = DimseServer(
            [paced, get_service([payload, b"end "], [])],
            admit_everybody,
            Limits(artim_s=0.5),
            ae_titles=[OURS],
        )
        await server.start("127.0.0.1", 0, tls=server_side)

        def call(**arguments):
            contexts = [
                ProposedContext(CT, (EXPLICIT,), scp=True),
                ProposedContext(STUDY_GET, (EXPLICIT,)),
            ]
            return connect(
                "127.0.0.1",
                server.port,
                called=OURS,
                calling=THEIRS,
                contexts=contexts,
                timeout_s=3,
                **arguments,
            )

        async with call(tls=client_side, server_name="archive") as association:
            for number in range(3):
                answer = await association.store(1, CT, Uid(f"1.2.{number}"), payload)
                assert answer == (0, "")
            got = Shelf()
            context = association.context(STUDY_GET)
            operation = association.get(context, b"key ", on_store=got.receive)
            assert [response.status async for response in operation][-1] == 0
            assert list(got.objects.values()) == [payload, b"end "]
        assert set(shelf.objects.values()) == {payload}
        assert 100_000 <= max(log) < 250_000
        with pytest.raises(Unavailable, match="could not be reached"):
            async with call(tls=strangers, server_name="archive"):
                pass
        silent = await RawPeer.call(server.port)
        assert await silent.is_closed()
        await server.stop(0)

    run(scene())
