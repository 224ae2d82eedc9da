"""The layouts of a dataset and the names and records of its samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from batchgen.images.formats import ImageFormat
from batchgen.ledger.dataset_samples import Sample
from batchgen.money import decimal_string

_MAX_NAME_CHARS: Final = 120
_KEPT_CHARS: Final = 90


class Layout(StrEnum):
    """How the files of a dataset are arranged."""

    WEBDATASET = "webdataset"
    """Tar files with ``NAME.png``, ``NAME.txt`` and ``NAME.json`` for each image."""
    IMAGEFOLDER = "imagefolder"
    """Directories of images, each with a ``metadata.parquet``, as Hugging Face reads them."""
    INDEX = "index"
    """Parquet files with the URL of each image; the images stay where they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOrder:
    """What a dataset is to look like."""

    batch: str
    layout: Layout
    part_images: int
    """Images of a part: a tar file, a directory or a parquet file."""
    accepted: bool = False
    """Only images that a person accepted in review."""


def sample_name(sample: Sample) -> str:
    """Return the name of a sample's files without an extension; no other sample has it.

    A WebDataset reader splits names at the first dot, so only letters, digits, ``_`` and ``-`` of a
    key are kept; other characters are percent-encoded as UTF-8. A long name ends with a hash of the
    key. ``~1`` marks the second image of a job.
    See https://github.com/webdataset/webdataset#the-webdataset-format.
    """
    name = quote(sample.key, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(name) > _MAX_NAME_CHARS:
        digest = sha256(sample.key.encode()).hexdigest()[:16]
        name = f"{name[:_KEPT_CHARS]}~{digest}"
    return f"{name}~{sample.rank}" if sample.rank else name


def file_name(sample: Sample) -> str:
    """Return the name of a sample's image file."""
    return f"{sample_name(sample)}.{ImageFormat(sample.format).extension}"


def record(sample: Sample) -> dict[str, object]:
    """Return what a dataset says about an image; the cost is a decimal string in dollars.

    ``options`` is JSON text and an unknown request id is empty: readers that derive a type from the
    first samples refuse a field whose type or keys change later.
    """
    return {
        "key": sample.key,
        "prompt": sample.prompt,
        "model": sample.model,
        "provider": sample.provider,
        "options": sample.options,
        "tags": list(sample.tags),
        "width": sample.width,
        "height": sample.height,
        "format": sample.format,
        "bytes": sample.bytes,
        "sha256": sample.sha256,
        "cost": decimal_string(sample.cost),
        "request_id": sample.request_id or "",
        "made_at": sample.made_at,
    }


def record_bytes(sample: Sample) -> bytes:
    """Return the record as JSON; equal samples have equal bytes."""
    text = json.dumps(record(sample), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode(errors="replace")
