"""The steps of a sequence other than runs: edits, reviews, and commands that keep the batch."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import shutil
from collections.abc import Callable
from typing import Final

from batchgen.errors import ExitCode
from tests.nights.batch import SAVED, Batch, Disagreement, digest
from tests.nights.catalog import COLORS, EDITS
from tests.support import rig

Step = Callable[[Batch, random.Random], None]

WAITING: Final = f"{SAVED} AND unpublished = 1"


def edit(batch: Batch, dice: random.Random) -> None:
    """Edit the catalog."""
    change = dice.choice(EDITS)
    change(batch.catalog, dice)
    batch.note(f"# {change.__name__}")
    batch.write(dice)


def review(batch: Batch, dice: random.Random) -> None:
    """Import decisions about some images."""
    keys = sorted({row["key"] for row in batch.read_lines("export", "batch", "--what", "images")})
    if not keys:
        return
    decisions = []
    for key in dice.sample(keys, min(len(keys), dice.randrange(1, 4))):
        decision = dice.choice(["accept", "accept", "accept", "reject", "redo"])
        prompt = f"{key} amended prompt" if decision == "redo" and dice.random() < 0.3 else ""
        decisions.append([key, decision, "", prompt])
        if decision == "accept":
            waiting = batch.query(f"{WAITING} AND jobs.key = ?", key)
            batch.accepted |= {row["sha256"] for row in waiting}
    with (batch.directory / "decisions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["key", "decision", "note", "prompt"], *decisions])
    batch.note(f"# decisions.csv: {'; '.join(','.join(row) for row in decisions)}")
    batch.command("review", "batch", "--import", "decisions.csv", "--by", "anna")


def rollback(batch: Batch, dice: random.Random) -> None:
    """Roll back to previous versions; sometimes twice, which restores the newer ones."""
    key, kind, flags = batch.key(dice), dice.random(), list[str]()
    if kind < 0.5 and key:
        flags = ["--only", key]
    elif kind < 0.65:
        runs = batch.query("SELECT id FROM runs ORDER BY id")
        flags = ["--run", str(dice.choice(runs)["id"])]
    before = batch.published_now()
    code, _ = batch.command("rollback", "batch", *flags)
    if code == ExitCode.DONE and "--run" not in flags and dice.random() < 0.3:
        batch.command("rollback", "batch", *flags)
        if (after := batch.published_now()) != before:
            raise Disagreement(f"two rollbacks change {before} to {after}")


def prune(batch: Batch, dice: random.Random) -> None:
    """List what prune would delete, and often delete it."""
    batch.command("prune", "batch", "--json")
    if dice.random() < 0.6:
        _, output = batch.command("prune", "batch", "--yes", "--json")
        for file in map(json.loads, output.splitlines()):
            if file["deleted"]:
                rows = batch.query(
                    "SELECT sha256 FROM images WHERE state = 'pruned' AND root = ? AND path = ?",
                    file["root"],
                    file["path"],
                )
                batch.pruned |= {row["sha256"] for row in rows}


def damage(batch: Batch, dice: random.Random) -> None:
    """Remove the file of an image, or put another image of a person in its place."""
    rows = batch.query(f"{SAVED} ORDER BY root, path, jobs.id")
    if not rows:
        return
    row = dice.choice(rows)
    path = batch.directory / row["root"] / row["path"]
    if not path.exists():
        return
    batch.damaged |= {digest(path), row["sha256"]}
    path.unlink()
    if dice.random() < 0.5:
        batch.note(f"rm {batch.shown(path)}")
        return
    size = (9, 10 + len(batch.edited))  # each of these files is another one
    rig.image(path, dice.choice(COLORS), size)
    batch.edited[digest(path)] = path
    batch.note(f"# a person replaced {batch.shown(path)}")


def repair(batch: Batch, dice: random.Random) -> None:
    """Download missing images again, and often changed ones."""
    batch.command("verify", "batch", "--repair", *(["--changed"] if dice.random() < 0.5 else []))


def retry(batch: Batch, dice: random.Random) -> None:
    """Let unsuccessful jobs be requested again."""
    flags = dice.sample(["--failed", "--blocked", "--uncertain"], dice.randrange(1, 4))
    batch.command("retry", "batch", *flags, *(["--buy"] if dice.random() < 0.2 else []))


def acknowledge(batch: Batch, dice: random.Random) -> None:
    """Close the uncertain jobs."""
    batch.command("acknowledge", "batch")


def gallery(batch: Batch, dice: random.Random) -> None:
    """Write a gallery."""
    flags = [flag for flag in ("--before", "--unpublished") if dice.random() < 0.4]
    batch.command("gallery", "batch", "-o", "gallery.html", *flags)
    (batch.directory / "gallery.html").unlink(missing_ok=True)


def dataset(batch: Batch, dice: random.Random) -> None:
    """Export a dataset: it holds each published image, or says why not."""
    if importlib.util.find_spec("pyarrow") is None:  # an extra
        return
    layout = ["--layout", "imagefolder"]
    code, output = batch.command("export", "batch", "--dataset", "dataset", *layout, "--json")
    shutil.rmtree(batch.directory / "dataset", ignore_errors=True)
    if code == ExitCode.DONE and not batch.damaged:
        made = json.loads(output)
        expected = len(
            batch.query(f"{SAVED} AND unpublished = 0 AND retired = 0 AND jobs.state = 'done'")
        )
        if made["images"] + made["outdated"] + made["unverified"] != expected:
            raise Disagreement(f"dataset: {made}; expected {expected} images in all")


KEEPING: Final[tuple[Step, ...]] = (
    *[review] * 4,
    *[rollback] * 3,
    *[prune] * 2,
    *[retry] * 2,
    damage,
    repair,
    acknowledge,
    gallery,
    dataset,
)
"""Steps that need a ledger, each as often as it is drawn."""
