"""dcmtk's programs and we understand each other, whoever asks."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from pydicom.filereader import dcmread
from pynetdicom.sop_class import Verification

from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import AssociationClosed, ProposedContext
from pacsteward.dicom.dimse.test_peer_support import (
    call,
    ct,
    decoded,
    encoded,
    get_service,
    scp,
    studies,
)
from pacsteward.dicom.dimse.test_support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    OURS,
    THEIRS,
    VERIFICATION,
    Shelf,
    house,
    service_of,
    until,
)

DCMTK = shutil.which("dcmsend")
needs_dcmtk = pytest.mark.skipif(DCMTK is None, reason="dcmtk is not installed")


async def dcmtk(program: str, *arguments: str) -> str:
    assert DCMTK is not None
    process = await asyncio.create_subprocess_exec(
        str(Path(DCMTK).with_name(program)),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text


@needs_dcmtk
def test_dcmtk_echoes_stores_finds_and_gets(tmp_path: Path):
    images = [ct(number) for number in range(4)]
    for number, image in enumerate(images):
        image.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    files = sorted(str(path) for path in tmp_path.glob("*.dcm"))
    here = tmp_path / "got"
    here.mkdir()
    shelf = Shelf()

    async def scene():
        services = (shelf.service(), service_of(studies), get_service(images))
        async with house(*services) as home:
            who = ["-aet", THEIRS, "-aec", OURS]
            where = ["127.0.0.1", str(home.port)]
            await dcmtk("echoscu", *who, *where)
            await dcmtk("echoscu", *who, "--abort", *where)
            await dcmtk("echoscu", *who, "-pts", "5", "-ppc", "128", *where)
            await dcmtk("storescu", *who, "--propose-uncompr", *where, *files)
            assert [decoded(data) for data in shelf.objects.values()] == images
            shelf.objects.clear()
            await dcmtk("dcmsend", *who, "--max-send-pdu", "4096", *where, *files)
            assert [decoded(data) for data in shelf.objects.values()] == images
            keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID"]
            endless = [*keys, "-k", "PatientID=ENDLESS"]
            keys += ["-k", "PatientID"]
            found = await dcmtk("findscu", "-v", *who, "-S", *keys, *where)
            assert found.count("Received Find Response") + found.count("(Pending)") >= 500
            stopped = await dcmtk("findscu", "-v", *who, "-S", "--cancel", "3", *endless, *where)
            assert "Cancel" in stopped
            await dcmtk("getscu", *who, "-S", "+B", "-od", str(here), *keys[:2], *where)
            await until(lambda: len(home.told(AssociationClosed)) == 8)

    asyncio.run(scene())
    assert len(list(here.iterdir())) == 4
    for path in here.iterdir():
        image = dcmread(path)
        assert image in images


@needs_dcmtk
def test_we_store_to_dcmtk(tmp_path: Path):
    async def scene():
        assert DCMTK is not None
        program = str(Path(DCMTK).with_name("storescp"))
        with scp([], (Verification, [IMPLICIT])) as port:
            pass  # a port that was free a moment ago; storescp cannot choose one itself
        process = await asyncio.create_subprocess_exec(
            program, "-od", str(tmp_path), "+B", "-pdu", "4096", str(port)
        )
        try:
            await until_listening(port)
            contexts = (
                ProposedContext(CT, (EXPLICIT,)),
                ProposedContext(VERIFICATION, (IMPLICIT,)),
            )
            async with call(port, *contexts) as association:
                for number in range(3):
                    data = encoded(ct(number))
                    context_id = association.context(CT).context_id
                    uid = Uid(f"1.2.3.{number}")
                    assert await association.store(context_id, CT, uid, data) == (0, "")
                assert (await association.echo()).status == 0
        finally:
            process.terminate()
            await process.wait()
        received = sorted(tmp_path.iterdir())
        assert len(received) == 3
        assert [dcmread(path) for path in received] == [ct(number) for number in range(3)]

    asyncio.run(scene())


async def until_listening(port: int) -> None:
    for _ in range(200):
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise AssertionError("storescp did not start")
