"""`batchgen export --dataset`: the images of a batch as a dataset for training."""

from __future__ import annotations

import hashlib
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.dataset.layout import DatasetOrder, Layout
from batchgen.dataset.writer import DatasetSummary, DatasetWriter
from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.dataset_samples import Sample, samples
from batchgen.ledger.manifest_paths import base_of
from batchgen.session.settings import Environment
from batchgen.storage.local import LocalStore


def export_dataset(
    name: str, db: Path | None, *, dataset: Path, layout: Layout, part_images: int
) -> ExitCode:
    """Write the verified images of a batch as a dataset; exit with 1 if any image was left out.

    Raises SettingsError if pyarrow is not installed or the directory holds anything else.
    """
    if layout is not Layout.WEBDATASET and find_spec("pyarrow") is None:
        raise SettingsError(
            f"--layout {layout.value}: needs pyarrow, which is not installed; expected"
            " batchgen[dataset], such as `pip install 'PATH_OR_WHEEL[dataset]'`"
        )
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        base = base_of(ledger, batch)
        order = DatasetOrder(batch=name, layout=layout, part_images=part_images)

        def url_of(sample: Sample) -> str:
            return (base / sample.root / sample.path).absolute().as_uri()

        writer = DatasetWriter(
            LocalStore(dataset), order, lambda sample: _verified(base, sample), url_of
        )
        try:
            summary = writer.write(samples(conn, batch.id))
        except OSError as exc:
            raise SettingsError(f"{dataset}: the dataset can't be written: {exc}") from exc
    write_line(sys.stdout, _text(name, dataset, summary))
    return ExitCode.UNFINISHED if summary.unverified else ExitCode.DONE


def _verified(base: Path, sample: Sample) -> bytes | None:
    """Return the bytes of an image if they are those that were saved; else name it on stderr."""
    path = base / sample.root / sample.path
    try:
        data = path.read_bytes()
    except OSError as exc:
        write_line(sys.stderr, f"left out: {sample.key}: {path}: {exc.strerror}")
        return None
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        write_line(sys.stderr, f"left out: {sample.key}: {path}: changed since it was saved")
        return None
    return data


def _text(name: str, dataset: Path, summary: DatasetSummary) -> str:
    def number(count: int, noun: str) -> str:
        return f"{count:,} {noun}{'' if count == 1 else 's'}"

    parts = number(summary.parts, "part")
    line = f"{name}: {number(summary.images, 'image')} in {parts} in {dataset}"
    if summary.unchanged_parts:
        line += f", {summary.unchanged_parts:,} unchanged"
    left_out = {
        "missing or changed (batchgen verify lists them)": summary.unverified,
        "of an earlier prompt or earlier options": summary.outdated,
        "a video, and the layout holds images only": summary.videos,
    }
    for why, count in left_out.items():
        if count:
            line += f"\n  {count:,} left out: {why}"
    return line
