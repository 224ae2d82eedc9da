"""`batchgen verify`: compare the files of a batch with its ledger. Rebuys nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.engine.placing import PARTIAL_DIRECTORY
from batchgen.errors import ExitCode, SettingsError
from batchgen.job import EXT_PLACEHOLDER
from batchgen.ledger.batches import find_batch
from batchgen.ledger.clock import utc_now
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.manifest_paths import manifest_of
from batchgen.ledger.paid_images import LostImage, lost_images
from batchgen.ledger.saved_images import Saved, fetch_again, images_of_all_batches, saved_images
from batchgen.output.bucket_check import differing_objects
from batchgen.output.foreign_files import ForeignFiles
from batchgen.output.previous_versions import PREVIOUS_DIRECTORY
from batchgen.output.relocation_places import MOVING_DIRECTORY
from batchgen.session.batch_lock import batch_lock
from batchgen.session.settings import Environment
from batchgen.session.storage import stores_of_batch
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import sha256_of
from batchgen.system.shell_command import batch_command
from batchgen.text import counted
from batchgen.urls import is_bucket, path_below

_OURS = (PREVIOUS_DIRECTORY, PARTIAL_DIRECTORY, MOVING_DIRECTORY)


class Finding(StrEnum):
    """What is wrong with a file."""

    MISSING = "missing"
    CHANGED = "changed"
    LOST = "lost"
    """Paid for, never downloaded, and given up; its URL is known."""
    FOREIGN = "foreign"
    """In an output directory, but not an image of any batch of the ledger."""


@dataclass(slots=True)
class _Checked:
    """What was looked at, for the summary."""

    manifest: Path
    repair: Set[Finding]
    roots: set[str] = field(default_factory=set)
    """Output directories."""
    images: int = 0
    unpublished: int = 0
    fetched: int = 0
    """Images that the next run downloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file that differs from the ledger."""

    finding: Finding
    path: Path | str
    """A file, or the URL of an object."""
    saved: Saved | None = None

    def as_json(self) -> dict[str, object]:
        """Return the finding as JSON-compatible values."""
        return {
            "finding": self.finding.value,
            "path": str(self.path),
            "key": self.saved.key if self.saved else None,
            "downloadable": bool(self.saved and self.saved.has_url),
            "unpublished": bool(self.saved and self.saved.unpublished),
        }


def verify(
    name: str, db: Path | None, *, repair: Set[Finding] = frozenset(), as_json: bool
) -> ExitCode:
    """Find missing, changed and foreign files; exit with 1 if any image is not as it was saved.

    With ``repair``, the next run downloads what the provider still has, including paid images that
    were given up. A changed file stays, unless it is named; then it is kept below ``.previous/``.
    """
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        done = _Checked(manifest_of(ledger, batch), repair)
        base = done.manifest.parent
        found, in_buckets = list[Found](), list[Saved]()
        for saved in saved_images(conn, batch.id):
            done.images += 1
            done.unpublished += saved.unpublished
            done.roots.add(saved.root)
            if is_bucket(saved.root):
                in_buckets.append(saved)
                continue
            path = base / saved.root / saved.path
            finding = _look(path, saved)
            if finding is not None:
                found.append(Found(finding=finding, path=path, saved=saved))
        stores = stores_of_batch(ledger, batch)
        with _refusal_of_buckets(name):
            found += _in_buckets(stores, in_buckets)
            found += [_lost(base, lost) for lost in lost_images(conn, batch.id, utc_now())]
            files = _files_below(base, done.roots, stores)
            foreign = files.without(images_of_all_batches(conn, ledger, name))
        found += [Found(finding=Finding.FOREIGN, path=path) for path in foreign]
    wrong = [one for one in found if one.saved is not None]
    if repair and wrong:
        images = [one.saved.image for one in wrong if one.saved and _can_repair(one, repair)]
        with batch_lock(ledger, name), closing(open_for_writing(ledger)) as conn:
            done.fetched = fetch_again(conn, images)
    for one in found:
        write_line(sys.stdout, json.dumps(one.as_json()) if as_json else _text(one, base))
    if not as_json:
        write_line(sys.stdout, _summary(name, done, found))
    return ExitCode.UNFINISHED if wrong else ExitCode.DONE


@contextmanager
def _refusal_of_buckets(name: str) -> Iterator[None]:
    """Turn an error of a bucket into a SettingsError."""
    try:
        yield
    except OSError as exc:
        raise SettingsError(f"{name}: not verified: {exc}") from exc


def _in_buckets(stores: Stores, images: list[Saved]) -> Iterator[Found]:
    """Compare objects. Raises OSError if a bucket cannot be read."""
    for saved, is_there in differing_objects(stores, images):
        finding = Finding.CHANGED if is_there else Finding.MISSING
        yield Found(finding=finding, path=path_below(saved.root, saved.path), saved=saved)


def _files_below(base: Path, roots: Set[str], stores: Stores) -> ForeignFiles:
    """Return the files in output directories. Raises OSError if a bucket cannot be read."""
    files = ForeignFiles(_OURS)
    for root in sorted(roots):
        if is_bucket(root):
            files.add_prefix(root, stores.of(root))
        else:
            files.add_directory(base / root)
    return files


def _lost(base: Path, lost: LostImage) -> Found:
    saved = Saved(
        image=lost.image,
        key=lost.key,
        retired=False,
        root=lost.root,
        path=lost.path.removesuffix(f".{EXT_PLACEHOLDER}"),
        sha256="",
        bytes=0,
        has_url=True,
    )
    path = base / saved.root / saved.path
    place = path_below(saved.root, saved.path) if is_bucket(saved.root) else path
    return Found(finding=Finding.LOST, path=place, saved=saved)


def _can_repair(one: Found, findings: Set[Finding]) -> bool:
    return one.finding in findings and one.saved is not None and one.saved.has_url


def _look(path: Path, saved: Saved) -> Finding | None:
    try:
        if path.stat().st_size != saved.bytes or sha256_of(path) != saved.sha256:
            return Finding.CHANGED
    except OSError:
        return Finding.MISSING
    return None


def _text(one: Found, base: Path) -> str:
    path = one.path
    if isinstance(path, Path) and path.is_relative_to(base):
        path = path.relative_to(base)
    key = f" (as {one.saved.key})" if one.saved else ""
    return f"{one.finding.value}: {path}{key}"


def _summary(name: str, done: _Checked, found: list[Found]) -> str:
    counts = {finding: sum(one.finding is finding for one in found) for finding in Finding}
    states = ", ".join(f"{count:,} {finding.value}" for finding, count in counts.items() if count)
    what = counted(done.images, "image")
    if done.unpublished:
        what += f" ({done.unpublished:,} not published)"
    line = f"{name}: {what}, {states or 'all as they were saved'}"
    wrong = [one for one in found if one.saved is not None]
    had = sum(_can_repair(one, _HOW.keys()) for one in wrong)
    if done.fetched:
        resume = batch_command("resume", name)
        line += f"\n  {done.fetched:,} are due again; `{resume}` downloads them at no charge"
    for finding, how in _HOW.items():
        count = sum(_can_repair(one, {finding}) for one in wrong)
        if count and finding not in done.repair:
            line += f"\n  {count:,} {finding.value} can be downloaded again at no charge: {how}"
    if len(wrong) > had:
        key = wrong[0].saved.key if len(wrong) == 1 and wrong[0].saved else "KEY"
        again = batch_command("run", done.manifest, "--refresh", "always", "--only", key)
        line += (
            f"\n  {len(wrong) - had:,} are gone for good: the provider gave no lasting URL;"
            f" `{again}` buys one again"
        )
    return line


_HOW = {
    Finding.MISSING: "--repair",
    Finding.LOST: "--repair",
    Finding.CHANGED: "--repair --changed; the changed files are kept below .previous/",
}
