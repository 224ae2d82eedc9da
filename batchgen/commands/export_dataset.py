"""`batchgen export --dataset`: the images of a batch as a dataset for training."""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
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
from batchgen.ledger.unpublished import unpublished_counts
from batchgen.session.settings import Environment
from batchgen.session.storage import stores_of_batch
from batchgen.storage.local import LocalStore
from batchgen.storage.store import StoreError
from batchgen.storage.stores import Stores
from batchgen.text import cause_of, counted
from batchgen.urls import is_bucket, output_root, path_below


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The layout of a dataset and the images to put into it."""

    layout: Layout
    part_images: int
    accepted: bool


def export_dataset(
    name: str, db: Path | None, *, dataset: str, choice: Choice, as_json: bool = False
) -> ExitCode:
    """Write the verified images of a batch as a dataset; exit with 1 if any image was left out.

    Raises SettingsError if pyarrow is not installed or the directory holds anything else.
    """
    if choice.layout is not Layout.WEBDATASET and find_spec("pyarrow") is None:
        raise SettingsError(
            f"--layout {choice.layout.value}: needs pyarrow, which is not installed; expected"
            " batchgen[dataset], such as `pip install 'PATH_OR_WHEEL[dataset]'`"
        )
    try:
        dataset = output_root(dataset)
    except ValueError as exc:
        raise SettingsError(f"--dataset {exc}") from None
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        base = base_of(ledger, batch)
        order = DatasetOrder(
            batch=name,
            layout=choice.layout,
            part_images=choice.part_images,
            accepted=choice.accepted,
        )
        stores = stores_of_batch(ledger, batch)
        target = stores.of(dataset) if is_bucket(dataset) else LocalStore(Path(dataset))

        def url_of(sample: Sample) -> str:
            if is_bucket(sample.root):
                return path_below(sample.root, sample.path)
            return (base / sample.root / sample.path).absolute().as_uri()

        writer = DatasetWriter(target, order, lambda sample: _verified(stores, sample), url_of)
        try:
            summary = writer.write(samples(conn, batch.id, accepted=choice.accepted))
            unpublished = unpublished_counts(conn, batch.id).total
        except OSError as exc:
            why = cause_of(exc)
            raise SettingsError(f"{dataset}: the dataset can't be written: {why}") from exc
    record = {"batch": name, "dataset": dataset, **asdict(summary), "unpublished": unpublished}
    text = json.dumps(record) if as_json else _text(name, dataset, summary, unpublished)
    write_line(sys.stdout, text)
    return ExitCode.UNFINISHED if summary.unverified else ExitCode.DONE


def _verified(stores: Stores, sample: Sample) -> bytes | None:
    """Return the bytes of an image if they are those that were saved; else name it on stderr."""
    place = path_below(sample.root, sample.path)
    try:
        data = stores.of(sample.root).read(sample.path)
    except StoreError:
        raise
    except OSError as exc:
        write_line(sys.stderr, f"left out: {sample.key}: {place}: {exc.strerror}")
        return None
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        write_line(sys.stderr, f"left out: {sample.key}: {place}: changed since it was saved")
        return None
    return data


def _text(name: str, dataset: str, summary: DatasetSummary, unpublished: int) -> str:
    parts = counted(summary.parts, "part")
    line = f"{name}: {counted(summary.images, 'image')} in {parts} in {dataset}"
    if summary.unchanged_parts:
        line += f", {summary.unchanged_parts:,} unchanged"
    left_out = {
        "missing or changed (batchgen verify lists them)": summary.unverified,
        "of an earlier prompt or earlier options": summary.outdated,
        "a video, and the layout holds images only": summary.videos,
        "not published (batchgen review publishes what you accept)": unpublished,
    }
    for why, count in left_out.items():
        if count:
            line += f"\n  {count:,} left out: {why}"
    return line
