"""Images that an actor has verified, and where it puts them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from batchgen.cluster.messages import FetchMessage, PutOrder, VerifiedImage
from batchgen.cluster.staging import Stager
from batchgen.job import AttemptId, Verify
from batchgen.spool.spool import Spool
from batchgen.storage.local import LocalStore
from batchgen.storage.object_store import copy_to_free_name
from batchgen.system.atomic_files import PartFile
from tests.support.bucket_desk import DATA

ATTEMPT = AttemptId("0" * 32)


class Downloads:
    """A downloader that has one image."""

    async def fetch(self, url: str, part: PartFile, *, max_bytes: int) -> None:
        await part.write(DATA)


@pytest.mark.parametrize(
    ("there", "is_put"),
    [(None, True), (DATA, True), (b"of another program", False)],
    ids=["nothing", "the image itself", "another one"],
)
def test_image_never_takes_the_place_of_another(
    there: bytes | None, is_put: bool, tmp_path: Path
) -> None:
    store, spool = LocalStore(tmp_path / "bucket"), Spool(tmp_path / "spool")
    spool.prepare()
    if there is not None:
        store.put("mug.png", there)
    message = FetchMessage(
        attempt=ATTEMPT,
        position=0,
        url="http://127.0.0.1/mug.png",
        response="",
        verify=Verify.STRUCTURE,
        is_video=False,
    )
    order = PutOrder(ATTEMPT, 0, "mug.png", create=True)

    async def run() -> None:
        stager = Stager(spool, store, cast(Any, Downloads()))
        assert "no longer has" in (await stager.put(order)).problem
        found = await stager.fetch(message)
        assert isinstance(found, VerifiedImage)
        assert found.found.sha256 == hashlib.sha256(DATA).hexdigest()
        report = await stager.put(order)
        assert report.is_taken != is_put
        if not is_put:
            replacing = PutOrder(ATTEMPT, 0, "staging/mug.png", create=False)
            assert not (await stager.put(replacing)).problem
            assert store.read("staging/mug.png") == DATA
        assert [path.name for path in spool.directory.iterdir()] == [".gitignore"]

    asyncio.run(run())
    assert store.read("mug.png") == (DATA if is_put else there)


def test_large_image_is_copied_to_a_free_name_only(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("staging/a.png", DATA)
    assert copy_to_free_name(store, "staging/a.png", "mug.png")
    assert store.read("mug.png") == DATA
    store.put("cup.png", b"of another program")
    assert not copy_to_free_name(store, "staging/a.png", "cup.png")
    assert store.read("cup.png") == b"of another program"
