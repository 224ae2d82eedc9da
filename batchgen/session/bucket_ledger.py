"""A ledger in a bucket: held by one machine at a time, restored where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.errors import ManifestError, SettingsError
from batchgen.ledger.bucket_marker import refuse_working_copy
from batchgen.manifest.loader import load_manifest
from batchgen.session.settings import Environment
from batchgen.session.storage import check_stores, stores_for
from batchgen.urls import is_bucket

if TYPE_CHECKING:
    from batchgen.cluster.ledger_backup import LedgerBackup
    from batchgen.manifest.model import Manifest
    from batchgen.session.overrides import Overrides
    from batchgen.storage.store import Store


@contextmanager
def held_ledger(
    manifest: Path | None, overrides: Overrides, notice: Callable[[str], None]
) -> Iterator[LedgerBackup | None]:
    """Hold the ledger of a bucket during a run, with its file on this machine up to date.

    Yields None for a ledger that is a file only. ``manifest`` is None where none is named. Raises
    BatchgenError; nothing was sent then.
    """
    directory = None if manifest is None else manifest.absolute().parent
    environment = Environment.load(directory)
    url = environment.ledger_bucket(overrides.db)
    if url is None:
        refuse_working_copy(environment.ledger_path(overrides.db, directory))
        yield None
        return
    # Imported here: few ledgers are in a bucket, and the import would delay all runs.
    from batchgen.cluster.lease import Driver, acquire
    from batchgen.cluster.lease_record import WHOLE_LEDGER
    from batchgen.cluster.ledger_backup import EVERY_S, LedgerBackup

    ledger = environment.working_copy(directory)
    store, others = _stores(manifest, environment, url)
    driver = Driver(take_over=overrides.take_over)
    with acquire(store, WHOLE_LEDGER, driver, notice=notice) as lease:
        every_s = environment.seconds("BATCHGEN_BACKUP_EVERY", EVERY_S)
        backup = LedgerBackup(store, ledger, lease, notice, every_s=every_s)
        try:
            backup.bring(others)
        except OSError as exc:
            raise SettingsError(
                f"{url}: the ledger cannot be restored: {exc.strerror or exc}; nothing was sent"
            ) from exc
        try:
            yield backup
        finally:
            backup.close()


def refuse_bucket_ledger(manifest: Path, db: Path | None, who: str) -> None:
    """Refuse a ledger in a bucket where only `run` and `resume` hold it. Raises SettingsError."""
    directory = manifest.absolute().parent
    environment = Environment.load(directory)
    url = environment.ledger_bucket(db)
    if url is not None:
        raise SettingsError(
            f"{who}: cannot use a ledger in a bucket: {url}; expected `batchgen run`, or a file"
            " with --db; nothing was sent"
        )
    refuse_working_copy(environment.ledger_path(db, directory))


def _stores(manifest: Path | None, environment: Environment, url: str) -> tuple[Store, list[Store]]:
    """Return the store of the ledger, and others that may have intents. Raises SettingsError."""
    found = None if manifest is None else _sound_part(manifest)
    storage = None if found is None else found.storage
    base = Path.cwd() if manifest is None else manifest.absolute().parent
    stores = stores_for(base, storage, environment)
    check_stores(stores, [url], single_writer=storage is not None and storage.single_writer)
    output = None if found is None else found.output
    root = None if output is None else output.dir
    return stores.of(url), [stores.of(root)] if root is not None and is_bucket(root) else []


def _sound_part(manifest: Path) -> Manifest | None:
    """Return a manifest, which is planned later; its faults are reported then."""
    try:
        return load_manifest(manifest).manifest
    except ManifestError:
        return None
