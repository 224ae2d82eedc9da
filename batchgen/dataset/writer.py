"""Write a dataset part by part; a repeated export writes only the parts that changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from batchgen.dataset.layout import DatasetOrder, Layout, record_bytes
from batchgen.dataset.part_writers import PartWriter, part_writer
from batchgen.dataset.records import Part, Records
from batchgen.images.formats import ImageFormat
from batchgen.ledger.dataset_samples import Sample
from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store

ReadImage = Callable[[Sample], bytes | None]
"""Return the verified bytes of an image; None if its file is missing or changed."""


@dataclass(slots=True)
class DatasetSummary:
    """What an export did."""

    images: int = 0
    """Images in the dataset."""
    parts: int = 0
    unchanged_parts: int = 0
    outdated: int = 0
    """Images left out because their job has another prompt or other options by now."""
    videos: int = 0
    """Videos left out because the layout holds images only."""
    unverified: int = 0
    """Images left out because their files are missing or changed."""


class DatasetWriter:
    """Writes the samples of a batch into a store."""

    def __init__(
        self, store: Store, order: DatasetOrder, read: ReadImage, url_of: Callable[[Sample], str]
    ) -> None:
        self._order = order
        self._read = read
        self._url_of = url_of
        self._records = Records(store, order)
        self._parts: PartWriter = part_writer(order.layout, store)
        self._store = store

    def write(self, samples: Iterable[Sample]) -> DatasetSummary:
        """Write the dataset. Raises SettingsError for a store that holds other files, and OSError.

        A killed export continues with the part that it was at; its temporary files are removed.
        """
        summary = DatasetSummary()
        self._records.begin()
        if isinstance(self._store, LocalStore):
            self._store.remove_parts()
        chosen = (sample for sample in samples if self._is_chosen(sample, summary))
        while part := list(islice(chosen, self._order.part_images)):
            self._write_part(summary.parts, part, summary)
            summary.parts += 1
        self._records.drop_from(summary.parts)
        self._records.write_checksums(summary.parts)
        return summary

    def _is_chosen(self, sample: Sample, summary: DatasetSummary) -> bool:
        if not sample.is_current:
            summary.outdated += 1
            return False
        is_video = sample.format == ImageFormat.MP4
        if is_video and self._order.layout is Layout.IMAGEFOLDER:
            summary.videos += 1
            return False
        return True

    def _write_part(self, number: int, samples: list[Sample], summary: DatasetSummary) -> None:
        plan = self._plan(samples)
        found = self._records.find(number)
        if found is not None and found.plan == plan:
            summary.unchanged_parts += 1
            summary.images += len(samples)
            return
        names = self._parts.names(number, samples)
        for old in self._records.start(number, names):
            self._store.delete(old)
        written = self._parts.write(number, self._verified(samples))
        for missing in set(names) - {file.name for file in written.files}:
            self._store.delete(missing)
        summary.images += written.images
        summary.unverified += len(samples) - written.images
        is_whole = written.images == len(samples)
        self._records.finish(
            Part(number=number, plan=plan if is_whole else "", files=written.files)
        )

    def _verified(self, samples: list[Sample]) -> Iterable[tuple[Sample, str, bytes]]:
        """Yield each sample with its URL and bytes; those without verified bytes are left out."""
        for sample in samples:
            data = self._read(sample)
            if data is not None:
                yield sample, self._url_of(sample), data

    def _plan(self, samples: list[Sample]) -> str:
        digest = hashlib.sha256()
        for sample in samples:
            place = self._url_of(sample) if self._order.layout is Layout.INDEX else ""
            digest.update(f"{sample.rank} {place} ".encode(errors="replace"))
            digest.update(record_bytes(sample) + b"\n")
        return digest.hexdigest()
