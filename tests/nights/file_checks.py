"""Checks after each step: files, sidecars and versions against the ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.nights.batch import SAVED, Batch, Disagreement, digest
from tests.nights.catalog import DIRECTORIES

Check = Callable[[Batch], None]

JOINED: Final = "FROM images JOIN jobs ON jobs.id = job_id"


def verified(batch: Batch) -> None:
    """`verify` finds only what a person did."""
    for finding in batch.read_lines("verify", "batch", "--json"):
        if finding["finding"] == "lost" or not batch.is_settled:
            continue
        path = Path(finding["path"])
        if finding["finding"] == "foreign":
            is_known = digest(path) in batch.damaged | batch.edited.keys()
        else:
            rows = batch.query(f"{SAVED} AND jobs.key = ?", finding["key"])
            is_known = any(
                row["sha256"] in batch.damaged
                for row in rows
                if batch.directory / row["root"] / row["path"] == path
            )
        if not is_known:
            raise Disagreement(
                f"verify: {finding['finding']}: {batch.shown(path)} {finding.get('key') or ''}"
            )


def present(batch: Batch) -> None:
    """Each image is somewhere, except what a person damaged or `prune` deleted."""
    there = {digest(path) for path in batch.images()}
    rows = batch.query(
        f"SELECT key, sha256, images.path AS path {JOINED}"
        " WHERE images.state IN ('saved', 'replaced')"
    )
    for row in rows:
        if row["sha256"] not in there | batch.damaged | batch.pruned:
            raise Disagreement(f"the image {row['path']} of {row['key']} vanished")
    for sha256, path in batch.edited.items():
        if sha256 not in there:
            raise Disagreement(f"the file of a person vanished: {batch.shown(path)}")


def single(batch: Batch) -> None:
    """A path has one image, and a job one published and one waiting image of a request."""
    places = Counter((row["root"], row["path"]) for row in batch.query(f"{SAVED} AND retired = 0"))
    if twice := [place for place, count in places.items() if count > 1]:
        raise Disagreement(f"two images at one path: {twice}")
    for unpublished in (0, 1):
        jobs = batch.query(
            f"SELECT key, count(DISTINCT attempt_id) AS n {JOINED} WHERE images.state = 'saved'"
            " AND unpublished = ? GROUP BY jobs.id HAVING n > 1",
            unpublished,
        )
        if jobs:
            keys = [row["key"] for row in jobs]
            raise Disagreement(f"two saved images of one job, unpublished {unpublished}: {keys}")


def versions(batch: Batch, *, rolled_back: bool) -> None:
    """A rollback restores the image that was replaced last. Call it once after each step."""
    now = batch.published_now()
    for key, sha256 in now.items():
        before = batch.published.get(key, sha256)
        if before != sha256:
            expected = batch.replaced.get(key, sha256)
            if rolled_back and sha256 != expected:
                raise Disagreement(f"rollback of {key} to {sha256:.12}; expected {expected:.12}")
            batch.replaced[key] = before
    batch.published = now


def decided(batch: Batch) -> None:
    """Nothing is published without a decision where that is the rule."""
    if batch.was_at_once:
        return
    accepted = "SELECT 1 FROM decisions WHERE sha256 = ? AND decision = 'accept'"
    for row in batch.query(f"{SAVED} AND unpublished = 0"):
        if row["sha256"] not in batch.accepted and not batch.query(accepted, row["sha256"]):
            raise Disagreement(f"published without a decision: {row['path']} of {row['key']}")


def sidecars(batch: Batch) -> None:
    """Each sidecar describes the image that it names."""
    if not batch.is_settled:
        return
    known = batch.damaged | batch.edited.keys()
    for path in batch.images():
        if path.suffix != ".json" or ".previous" in path.parts:
            continue
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        image = path.parent / described["file"]
        if not image.exists():
            if described["sha256"] not in known:
                raise Disagreement(f"{batch.shown(path)} describes an image that is not there")
        elif digest(image) not in {described["sha256"], *known}:
            raise Disagreement(f"{batch.shown(path)} describes another image")


def no_parts(batch: Batch) -> None:
    """No temporary file is left."""
    roots = [batch.directory / directory for directory in DIRECTORIES]
    parts = [batch.shown(path) for root in roots for path in root.rglob("*.part")]
    if parts and batch.is_settled:
        raise Disagreement(f"temporary files are left: {parts}")


CHECKS: Final[tuple[Check, ...]] = (verified, present, single, decided, sidecars, no_parts)
