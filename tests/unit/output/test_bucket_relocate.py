"""Moving images between buckets: the only copy of an image is never deleted."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from batchgen.ledger.relocations import Relocation
from batchgen.output.bucket_relocate import move_object
from batchgen.storage.local import LocalStore
from batchgen.storage.store import ObjectInfo, Store
from tests.support.bucket_desk import DATA, ROOT, LocalBuckets


def relocation(path: str, new_root: str, new_path: str) -> Relocation:
    return Relocation(1, 1, "mug", ROOT, path, sha256(DATA).hexdigest(), new_root, new_path)


class _Vanishing(LocalStore):
    """A store in which an object exists when it is created, and is gone when it is read."""

    def put(
        self, name: str, data: bytes, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        raise FileExistsError(name)


class _VanishingBuckets(LocalBuckets):
    def _open(self, root: str) -> Store:
        return super()._open(root) if root == ROOT else _Vanishing(self.base / "elsewhere")


def test_source_stays_without_a_verified_copy(tmp_path: Path) -> None:
    stores = _VanishingBuckets(tmp_path)
    stores.of(ROOT).put("mug.png", DATA)
    problem = move_object(relocation("mug.png", "s3://other/out", "mug.png"), stores)
    assert "already exists" in problem
    assert stores.of(ROOT).read("mug.png") == DATA


def test_one_object_under_two_roots_is_not_moved(tmp_path: Path) -> None:
    stores = LocalBuckets(tmp_path)
    stores.of(ROOT).put("x/mug.png", DATA)
    stores.of(ROOT).put("x/mug.json", b"{}")
    assert move_object(relocation("x/mug.png", f"{ROOT}/x", "mug.png"), stores) == ""
    assert stores.of(f"{ROOT}/x").read("mug.png") == DATA
    assert stores.of(f"{ROOT}/x").read("mug.json") == b"{}"
