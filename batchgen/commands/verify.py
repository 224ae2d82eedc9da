"""`batchgen verify`: compare the files of a batch with its ledger. Rebuys nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Set
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from batchgen.console.progress import write_line
from batchgen.engine.placing import PARTIAL_DIRECTORY
from batchgen.errors import ExitCode, SettingsError
from batchgen.job import EXT_PLACEHOLDER
from batchgen.ledger.batches import find_batch
from batchgen.ledger.clock import utc_now
from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.manifest_paths import base_of
from batchgen.ledger.paid_images import LostImage, lost_images
from batchgen.ledger.saved_images import Saved, fetch_again, saved_images
from batchgen.output.bucket_check import differing_objects, foreign_objects
from batchgen.output.previous_versions import PREVIOUS_DIRECTORY
from batchgen.output.relocate import MOVING_DIRECTORY
from batchgen.output.sidecar import is_sidecar, sidecar_of
from batchgen.session.batch_lock import batch_lock
from batchgen.session.settings import Environment
from batchgen.session.storage import stores_of_batch
from batchgen.storage.stores import Stores
from batchgen.system.atomic_files import PART_SUFFIX, sha256_of
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
    """In an output directory, but not an image of the ledger."""


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
        base = base_of(ledger, batch)
        found, known, roots = [], set[Path](), set[Path]()
        in_buckets = list[Saved]()
        checked = unpublished = 0
        for saved in saved_images(conn, batch.id):
            checked += 1
            unpublished += saved.unpublished
            if is_bucket(saved.root):
                in_buckets.append(saved)
                continue
            path = base / saved.root / saved.path
            known.add(path)
            if is_sidecar(sidecar_of(path), name, saved.key):
                known.add(sidecar_of(path))
            roots.add(base / saved.root)
            finding = _look(path, saved)
            if finding is not None:
                found.append(Found(finding=finding, path=path, saved=saved))
        if in_buckets:
            found += _in_buckets(stores_of_batch(ledger, batch), name, in_buckets)
        found += [_lost(base, lost) for lost in lost_images(conn, batch.id, utc_now())]
    found += [Found(finding=Finding.FOREIGN, path=path) for path in _foreign(roots, known)]
    wrong = [one for one in found if one.saved is not None]
    fetched = 0
    if repair and wrong:
        images = [one.saved.image for one in wrong if one.saved and _can_repair(one, repair)]
        with batch_lock(ledger, name), closing(open_for_writing(ledger)) as conn:
            fetched = fetch_again(conn, images)
    for one in found:
        write_line(sys.stdout, json.dumps(one.as_json()) if as_json else _text(one, base))
    if not as_json:
        write_line(sys.stdout, _summary(name, checked, unpublished, found, fetched, repair=repair))
    return ExitCode.UNFINISHED if wrong else ExitCode.DONE


def _in_buckets(stores: Stores, name: str, images: list[Saved]) -> Iterator[Found]:
    """Compare objects. Raises SettingsError if a bucket cannot be read."""
    try:
        for saved, is_there in differing_objects(stores, images):
            finding = Finding.CHANGED if is_there else Finding.MISSING
            yield Found(finding=finding, path=path_below(saved.root, saved.path), saved=saved)
        for root, path in foreign_objects(stores, name, images, _OURS):
            yield Found(finding=Finding.FOREIGN, path=path_below(root, path))
    except OSError as exc:
        raise SettingsError(f"{name}: not verified: {exc}") from exc


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


def _foreign(roots: set[Path], known: set[Path]) -> Iterator[Path]:
    for root in sorted(roots):
        for directory, directories, names in os.walk(root):
            directories[:] = sorted(name for name in directories if name not in _OURS)
            for name in sorted(names):
                path = Path(directory, name)
                if path not in known and not name.endswith(PART_SUFFIX):
                    yield path


def _text(one: Found, base: Path) -> str:
    path = one.path
    if isinstance(path, Path) and path.is_relative_to(base):
        path = path.relative_to(base)
    key = f" (as {one.saved.key})" if one.saved else ""
    return f"{one.finding.value}: {path}{key}"


def _summary(
    name: str,
    images: int,
    unpublished: int,
    found: list[Found],
    fetched: int,
    *,
    repair: Set[Finding],
) -> str:
    counts = {finding: sum(one.finding is finding for one in found) for finding in Finding}
    states = ", ".join(f"{count:,} {finding.value}" for finding, count in counts.items() if count)
    what = counted(images, "image")
    if unpublished:
        what += f" ({unpublished:,} not published)"
    line = f"{name}: {what}, {states or 'all as they were saved'}"
    wrong = [one for one in found if one.saved is not None]
    had = sum(_can_repair(one, _HOW.keys()) for one in wrong)
    if fetched:
        resume = batch_command("resume", name)
        line += f"\n  {fetched:,} are due again; `{resume}` downloads them at no charge"
    for finding, how in _HOW.items():
        count = sum(_can_repair(one, {finding}) for one in wrong)
        if count and finding not in repair:
            line += f"\n  {count:,} {finding.value} can be downloaded again at no charge: {how}"
    if len(wrong) > had:
        line += (
            f"\n  {len(wrong) - had:,} are gone for good: the provider gave no lasting URL;"
            " `batchgen run --refresh always --only KEY` buys one again"
        )
    return line


_HOW = {
    Finding.MISSING: "--repair",
    Finding.LOST: "--repair",
    Finding.CHANGED: "--repair --changed; the changed files are kept below .previous/",
}
