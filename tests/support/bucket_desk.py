"""Place and move images in buckets that are directories of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from batchgen.engine.bucket_placing import BucketPlacer
from batchgen.engine.context import RunContext, RunTally
from batchgen.job import AttemptId, SavedImage
from batchgen.ledger.records import DueImage, Provenance
from batchgen.money import Micros
from batchgen.spool.spool import Spool
from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store
from batchgen.storage.stores import Stores
from batchgen.urls import is_bucket
from tests.support.places_desk import png

ROOT = "s3://bucket/out"
DATA = png(1)
ORIGIN = Provenance(
    batch="b",
    run=1,
    provider="local",
    model="gpt-image-2",
    request_id=None,
    cost=Micros(37_700),
    made_at="2026-11-28T06:00:00.000Z",
    is_current=True,
)


class LocalBuckets(Stores):
    """Stores whose buckets are directories: ``s3://bucket/out`` is ``buckets/bucket/out``."""

    def __init__(self, base: Path) -> None:
        super().__init__(base, dict)
        self.base = base

    def _open(self, root: str) -> Store:
        if not is_bucket(root):
            return super()._open(root)
        return LocalStore(self.base / "buckets" / root.partition("://")[2])


def due_image(**values: Any) -> DueImage:
    """Return a paid image by what it differs in from one that was placed in the bucket."""
    usual: dict[str, Any] = {
        "id": 1,
        "attempt_id": AttemptId("0" * 32),
        "position": 0,
        "rank": 0,
        "url": None,
        "task": None,
        "response": None,
        "expires_at": None,
        "root": ROOT,
        "path": "mug.png",
        "sha256": sha256(DATA).hexdigest(),
        "answered_at": "2026-11-28T06:00:00.000Z",
        "tries": 0,
        "trouble": None,
        "not_before": None,
        "copy_of": None,
        "replaces": None,
    }
    return DueImage(**{**usual, **values})


def saved_image(path: str = "mug.png", data: bytes = DATA) -> SavedImage:
    """Return the record of an image with these bytes."""
    return SavedImage(
        path=path,
        sha256=sha256(data).hexdigest(),
        bytes=len(data),
        width=2,
        height=2,
        format="png",
    )


def bucket_context(directory: Path, stores: Stores, ledger: Mapping[str, object]) -> RunContext:
    """Return the context of a run whose ledger returns these values, by the name of the step."""

    async def run(step: Callable[..., object], *args: object, **options: object) -> object:
        return ledger[step.__name__]

    context = SimpleNamespace(
        ledger=SimpleNamespace(run=run, run_one_of_many=run),
        spool=Spool(directory / "spool"),
        base=directory,
        overwrite=False,
        stores=stores,
        tally=RunTally(),
        observe=lambda event: None,
    )
    return cast(RunContext, context)


def bucket_placer(directory: Path, stores: Stores) -> BucketPlacer:
    """Return a placer without a ledger."""
    return BucketPlacer(bucket_context(directory, stores, {}))
