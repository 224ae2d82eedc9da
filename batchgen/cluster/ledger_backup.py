"""The backup of a ledger in a bucket, which another machine can continue from.

A run with ``--db s3://BUCKET/PREFIX`` works on a ledger of its own machine and holds a lease for
it. The object ``batchgen.db`` is a copy of that ledger: before the first paid request, once a
minute, and at the end. Requests after the newest copy are known by their intents, see `intents`.
The `marker` next to the ledger says which copies the ledger of this machine includes, so that one
that another machine has continued from is never used again by mistake.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Final

from batchgen.cluster.intents import (
    Intent,
    SpoolObject,
    names_of_all,
    read_intent,
    spool_objects,
)
from batchgen.cluster.lease import Lease
from batchgen.errors import LedgerError, SettingsError, StoppedError
from batchgen.job import AttemptId
from batchgen.ledger.bucket_marker import Marker
from batchgen.ledger.database import copy_ledger, open_for_reading, open_for_writing
from batchgen.ledger.late_responses import spent_attempts
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.lost_attempts import (
    LostAttempt,
    end_lost_runs,
    record_lost_attempts,
    unrecorded,
)
from batchgen.ledger.transaction import write_transaction
from batchgen.storage.store import StaleObjectError, Store
from batchgen.system.atomic_files import (
    PART_SUFFIX,
    PRIVATE_FILE,
    sha256_of,
    sync_directory,
)
from batchgen.system.file_sync import sync_file
from batchgen.text import counted

BACKUP: Final = "batchgen.db"
EVERY_S: Final = 60.0
_REST: Final = 10
"""A copy that takes long is made less often: this many times its duration apart."""
_ID_PAGE: Final = 500
_PARTS: Final = ("", "-wal", "-shm", "-journal")
"""Suffixes of the files of a SQLite database."""

Notice = Callable[[str], None]


class LedgerBackup:
    """The ledger of a bucket, while this machine holds its lease."""

    def __init__(
        self,
        store: Store,
        ledger: Path,
        lease: Lease,
        notice: Notice,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self.store = store
        self.lease = lease
        self.is_restored = False
        """Whether the ledger of this machine is a copy that was taken now."""
        self._others: Sequence[Store] = ()
        self._ledger = ledger
        self._notice = notice
        self._every_s = every_s
        self._tag: str | None = None
        """Of the newest copy; None without one."""
        self._copy_sha256 = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger-backup", daemon=True)

    def bring(self, others: Sequence[Store] = ()) -> None:
        """Make the ledger of this machine the newest one, and record the attempts it lacks.

        ``others`` are further stores with intents. Raises BatchgenError and OSError.
        """
        present, marker = self._ledger.exists(), Marker.read(self._ledger)
        if marker is not None and marker.url != self.store.url and present:
            raise SettingsError(
                f"{self._ledger}: this ledger belongs to {marker.url}; got --db {self.store.url};"
                " nothing was sent"
            )
        info = self.store.info(BACKUP)
        self._tag = None if info is None else info.e_tag
        # An empty object is the claim of a first copy that was not put.
        digest = self.store.digest(BACKUP) if info is not None and info.bytes else None
        if digest is not None:
            if not present:
                self._take(digest)
            elif marker is None:
                raise SettingsError(
                    f"{self._ledger}: this ledger is not the one in {self.store.url}; move it to"
                    " another directory, or name another prefix; nothing was sent"
                )
            elif digest not in marker.copies:
                self._keep_old()
                self._take(digest)
            else:
                self._copy_sha256 = digest
        elif present and marker is None:
            self._notice(f"{self._ledger}: is backed up in {self.store.url} from now on")
        Marker(url=self.store.url, copies=() if digest is None else (digest,)).write(self._ledger)
        self._record_lost(self.store)
        for store in others:
            self._record_lost(store, is_shared=True)
        self._others = others

    def _take(self, digest: str) -> None:
        """Download the copy. Its runs have ended with their machine."""
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        part = self._part("restored")
        try:
            _download(self.store, part, digest)
            # Raises LedgerError for one that cannot be used.
            with closing(open_for_writing(part)) as conn, write_transaction(conn):
                end_lost_runs(Ledger(conn))
            Marker(url=self.store.url, copies=(digest,)).write(self._ledger)
            part.replace(self._ledger)
            sync_directory(self._ledger.parent)
        finally:
            part.unlink(missing_ok=True)
        self._copy_sha256, self.is_restored = digest, True
        self._notice(f"{self._ledger}: was restored from {self.store.url}")

    def _keep_old(self) -> None:
        """Keep the ledger of this machine, which another machine has continued from a copy of."""
        number = 1
        while (kept := self._ledger.with_name(f"{self._ledger.name}.old{number}")).exists():
            number += 1
        # The last one first: after a kill the next call finds the ledger and moves it too.
        for suffix in reversed(_PARTS):
            source = self._ledger.with_name(self._ledger.name + suffix)
            with suppress(FileNotFoundError):
                source.replace(kept.with_name(kept.name + suffix))
        self._notice(
            f"{self._ledger}: another machine continued from the copy in {self.store.url}; this"
            f" ledger is kept as {kept.name}"
        )

    def _record_lost(self, store: Store, *, is_shared: bool = False) -> None:
        """Record the attempts whose intents the ledger lacks. Raises SettingsError.

        A shared store may have intents of batches that are in other ledgers.
        """
        intents = [one for one in spool_objects(store) if not one.is_response]
        if not (intents and self._ledger.exists()):
            return
        lost = list[LostAttempt]()
        with closing(open_for_writing(self._ledger)) as conn:
            for page in _pages(intents):
                missing = unrecorded(conn, [one.attempt for one in page])
                lost += _read_all(store, [one for one in page if one.attempt in missing])
            with write_transaction(conn):
                homeless = record_lost_attempts(Ledger(conn), lost)
                if homeless and not is_shared:
                    raise self._homeless(homeless)
        if count := len(lost) - len(homeless):
            self._notice(
                f"{self._ledger}: recorded {counted(count, 'request')} again, sent after the backup"
            )

    def _homeless(self, lost: Sequence[LostAttempt]) -> SettingsError:
        one = lost[0]
        return SettingsError(
            f"{self.store.url}: {counted(len(lost), 'paid request')} for no job in the ledger, such"
            f" as {one.attempt} of job {one.key!r} of batch {one.batch!r}; expected the backup of"
            " the run that sent them; nothing was sent"
        )

    def start(self) -> None:
        """Make the first copy, then one every minute. Raises SettingsError; nothing was sent."""
        try:
            self.put()
        except (OSError, StoppedError, LedgerError) as exc:
            raise SettingsError(
                f"{self.store.url}/{BACKUP}: the ledger cannot be backed up: {exc};"
                " nothing was sent"
            ) from exc
        if not self._thread.is_alive():
            self._thread.start()

    def close(self) -> None:
        """Make the last copy. A failure is a notice: the ledger of this machine has everything."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._put_or_warn()

    def put(self) -> None:
        """Put a copy, and delete the objects of attempts that it has the end of.

        Raises StoppedError without the lease, OSError and LedgerError.
        """
        with self._lock:
            if not self._ledger.exists():
                return
            part = self._part("backup")
            try:
                copy_ledger(self._ledger, part)
                self._put_copy(part)
                self._sweep(part)
            finally:
                part.unlink(missing_ok=True)

    def _put_copy(self, part: Path) -> None:
        digest = sha256_of(part)
        if digest == self._copy_sha256:
            return
        url = self.store.url
        known = tuple(filter(None, [self._copy_sha256]))
        # Written before: the copy may be in the bucket although its response is lost.
        Marker(url=url, copies=(*known, digest)).write(self._ledger)
        self.lease.check()
        try:
            info = self.store.put_file(BACKUP, part, create=self._tag is None, if_tag=self._tag)
            self._tag = info.e_tag
        except (FileExistsError, StaleObjectError):
            found = self.store.info(BACKUP)
            if found is None or self.store.digest(BACKUP) != digest:
                raise StoppedError(f"lease: another machine has written {url}/{BACKUP}") from None
            self._tag = found.e_tag
        Marker(url=url, copies=(digest,)).write(self._ledger)
        self._copy_sha256 = digest

    def _sweep(self, copy: Path) -> None:
        """Delete intents and responses of attempts whose end the copy in the bucket has."""
        with closing(open_for_reading(copy)) as conn:
            for store in (self.store, *self._others):
                found, spent = list(spool_objects(store)), set[AttemptId]()
                for page in _pages(found):
                    spent |= set(spent_attempts(Ledger(conn), None, [one.attempt for one in page]))
                names = names_of_all(found, spent)
                for start in range(0, len(names), _ID_PAGE):
                    store.delete_all(names[start : start + _ID_PAGE])

    def _work(self) -> None:
        wait_s = self._every_s
        while not self._ended.wait(wait_s):
            began = time.monotonic()
            if not self.lease.is_held:
                return
            self._put_or_warn()
            wait_s = max(self._every_s, _REST * (time.monotonic() - began))

    def _put_or_warn(self) -> None:
        try:
            self.put()
        except (OSError, StoppedError, LedgerError) as exc:
            self._notice(f"warning: {self.store.url}: the ledger was not backed up: {exc}")

    def _part(self, what: str) -> Path:
        name = f".{self._ledger.name}.{what}.{os.urandom(4).hex()}{PART_SUFFIX}"
        part = self._ledger.with_name(name)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
        return part


def _download(store: Store, part: Path, digest: str) -> None:
    found = hashlib.sha256()
    with part.open("wb") as file:
        for chunk in store.chunks(BACKUP):
            found.update(chunk)
            file.write(chunk)
        file.flush()
        sync_file(file.fileno())
    if found.hexdigest() != digest:
        raise SettingsError(
            f"{store.url}/{BACKUP}: this copy of the ledger is damaged: its SHA-256 differs;"
            " nothing was changed"
        )


def _read_all(store: Store, found: Sequence[SpoolObject]) -> Iterator[LostAttempt]:
    for one in found:
        intent = read_intent(store, one)
        if intent is not None:
            yield _lost(intent)


def _lost(intent: Intent) -> LostAttempt:
    return LostAttempt(**{one.name: getattr(intent, one.name) for one in fields(LostAttempt)})


def _pages(found: Sequence[SpoolObject]) -> Iterator[Sequence[SpoolObject]]:
    for start in range(0, len(found), _ID_PAGE):
        yield found[start : start + _ID_PAGE]
