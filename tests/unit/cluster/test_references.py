"""Reference images of orders: put and read once for each content."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from batchgen.cluster.messages import Reference
from batchgen.cluster.references import ReceivedReferences, SharedReferences
from batchgen.providers.adapters.multipart import FilePiece
from batchgen.storage.local import LocalStore
from batchgen.storage.store import ObjectInfo


class CountingStore(LocalStore):
    """A store that counts what is put."""

    puts = 0

    def put(
        self, name: str, data: bytes, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        self.puts += 1
        return super().put(name, data, create=create, if_tag=if_tag)


def test_image_of_many_orders_is_put_and_read_once(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "bucket")
    photo, copy = tmp_path / "photo.png", tmp_path / "copy.png"
    for path in (photo, copy):
        path.write_bytes(b"the same image")

    async def run() -> None:
        shared = SharedReferences(store, "catalog/ä")
        pieces = [FilePiece.of(photo), FilePiece.of(copy), FilePiece.of(photo, base64=True)]
        found = await asyncio.gather(*map(shared.put, pieces))
        assert store.puts == 1
        assert [one.base64 for one in found] == [False, False, True]
        assert len({one.name for one in found}) == 1
        received = ReceivedReferences(store, tmp_path / "actor")
        paths = await asyncio.gather(*map(received.path_of, found))
        assert len(set(paths)) == 1
        assert paths[0].read_bytes() == b"the same image"
        await shared.remove()
        assert not list(store.list("spool/"))
        assert await received.path_of(found[0]) == paths[0]

    asyncio.run(run())


def test_changed_reference_is_not_put(tmp_path: Path) -> None:
    store, photo = LocalStore(tmp_path / "bucket"), tmp_path / "photo.png"
    photo.write_bytes(b"planned")
    piece = FilePiece.of(photo)
    photo.write_bytes(b"changed")
    with pytest.raises(OSError, match="changed after the request was built"):
        asyncio.run(SharedReferences(store, "b").put(piece))
    assert not list(store.list())


def test_claim_of_a_killed_put_is_filled(tmp_path: Path) -> None:
    store, photo = LocalStore(tmp_path / "bucket"), tmp_path / "photo.png"
    photo.write_bytes(b"content")

    async def run() -> None:
        reference = await SharedReferences(store, "b").put(FilePiece.of(photo))
        store.put(reference.name, b"")
        await SharedReferences(store, "b").put(FilePiece.of(photo))
        assert store.read(reference.name) == b"content"

    asyncio.run(run())


def test_damaged_reference_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "bucket")
    store.put("spool/references/b/aa", b"other content")
    received = ReceivedReferences(store, tmp_path / "actor")
    with pytest.raises(OSError, match="differs from its name"):
        asyncio.run(received.path_of(Reference("spool/references/b/aa", "aa", 13, False)))
