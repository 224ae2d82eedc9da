"""Write small datasets whose images are their keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from batchgen.dataset.layout import DatasetOrder, Layout
from batchgen.dataset.writer import DatasetSummary, DatasetWriter
from batchgen.ledger.dataset_samples import Sample
from batchgen.money import Micros
from batchgen.storage.local import LocalStore

PART_IMAGES = 2


def sample(key: str, **changes: Any) -> Sample:
    """Return a sample whose image bytes are its key."""
    made = Sample(
        key=key,
        rank=0,
        root="out",
        path=f"{key}.png",
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        bytes=len(key.encode()),
        width=64,
        height=32,
        format="png",
        prompt=f"A photo of {key}",
        options="{}",
        tags=(),
        provider="local",
        model="gpt-image-2",
        cost=Micros(37_700),
        request_id=None,
        made_at="2026-11-28T06:00:00.000Z",
        is_current=True,
    )
    return replace(made, **changes)


FIVE = [sample(key) for key in ("a", "b", "c", "d", "e")]


def export(
    store: LocalStore,
    samples: Sequence[Sample],
    layout: Layout = Layout.WEBDATASET,
    missing: Sequence[str] = (),
) -> DatasetSummary:
    def read(one: Sample) -> bytes | None:
        return None if one.key in missing else one.key.encode()

    order = DatasetOrder(batch="shop", layout=layout, part_images=PART_IMAGES)
    return DatasetWriter(store, order, read, lambda one: f"file:///{one.path}").write(samples)
