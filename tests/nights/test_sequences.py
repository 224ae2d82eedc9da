"""Samples of the sequences, by fixed seeds; ``python -m tests.nights`` plays as many as wanted."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.errors import ExitCode
from tests.nights import checks, file_checks
from tests.nights.batch import SAVED, Batch, Disagreement
from tests.nights.catalog import Catalog
from tests.nights.runs import compare, judge_complete
from tests.nights.sequence import Sequence, new_directory, sequence
from tests.support import rig

Check = Callable[[Batch], None]
Damage = Callable[[Batch], None]
SEEDS = (25, 28, 1170, 1579)
"""Together they have each step and each way in which a run ends."""
STEPS = 8


@pytest.mark.parametrize("seed", SEEDS)
def test_all_records_agree_after_each_step(seed: int) -> None:
    directory = new_directory(seed)
    try:
        with sequence(seed, directory) as played:
            played.play(STEPS)
    finally:
        shutil.rmtree(directory)


# The checks find what is wrong.


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence]:
    """Return a sequence after one complete run, with four published images and sidecars."""
    with sequence(0, tmp_path_factory.mktemp("nights")) as played:
        batch = played.batch
        batch.catalog = Catalog(batch.served.base_url, "at_once", False, True, False, False)
        for _ in range(4):
            batch.catalog.add(random.Random(0))
        batch.write(random.Random(0))
        code, _ = batch.command("run", "batch.yaml", "--yes")
        assert code == ExitCode.DONE
        batch.is_settled = True
        played.check()
        yield played


@pytest.fixture
def played(complete: Sequence, tmp_path: Path) -> Sequence:
    """Return the same sequence in a copy of its directory."""
    batch = complete.batch
    copy = tmp_path / "shop"
    shutil.copytree(batch.directory, copy)
    own = Batch(copy, batch.served, batch.catalog, list(batch.record))
    own.is_settled = own.was_at_once = True
    own.published = dict(batch.published)
    return Sequence(complete.seed, own, complete.number)


def _write(batch: Batch, sql: str) -> None:
    with closing(sqlite3.connect(batch.db)) as conn, conn:
        conn.execute(sql)


def _first(batch: Batch) -> Path:
    row = batch.query(f"{SAVED} ORDER BY root, path")[0]
    return batch.directory / str(row["root"]) / str(row["path"])


def _remove(batch: Batch) -> None:
    _first(batch).unlink()


def _change(batch: Batch) -> None:
    rig.image(_first(batch), "red")


def _add_image(batch: Batch) -> None:
    rig.image(batch.directory / "out" / "own.png", "red")


def _leave_part(batch: Batch) -> None:
    (batch.directory / "out" / "x.png.part").touch()


def _exchange_sidecars(batch: Batch) -> None:
    one, two = sorted(batch.directory.glob("out/*.json"))[:2]
    texts = one.read_text(encoding="utf-8"), two.read_text(encoding="utf-8")
    two.write_text(texts[0].replace(one.stem, two.stem), encoding="utf-8")
    one.write_text(texts[1].replace(two.stem, one.stem), encoding="utf-8")


def _require_decisions(batch: Batch) -> None:
    batch.was_at_once = False


def _break_manifest(batch: Batch) -> None:
    """Leave a failed job, and a manifest on record that cannot be read."""
    _write(batch, "UPDATE jobs SET state = 'failed' WHERE id = 1")
    _write(batch, "UPDATE batches SET manifest = replace(manifest, 'output:', 'outputs:')")


def _sql(statement: str) -> Damage:
    return lambda batch: _write(batch, statement)


DAMAGES: tuple[tuple[Check, Damage, str], ...] = (
    (checks.money, _sql("UPDATE attempts SET cost = 1"), "^money: "),
    (checks.money, _sql("UPDATE runs SET charged = charged - 1"), "^money: "),
    (checks.money, _sql("UPDATE attempts SET billed = 'no'"), "^money: "),
    (checks.tallies, _sql("UPDATE tallies SET done = done - 1"), "^tallies differ: kept: "),
    (checks.sums, _sql("UPDATE runs SET charged = charged - 1"), "^charged differ: ledger: "),
    (checks.sums, _sql("UPDATE runs SET maybe = maybe + 1"), "^possible differ: ledger: 0, "),
    (checks.counts, _sql("UPDATE tallies SET done = done - 1"), "^jobs differ: "),
    (checks.counts, _sql("UPDATE tallies SET saved = saved - 1"), "^saved images differ: "),
    (checks.failed_manifest, _break_manifest, "^export --failed ended with 2"),
    (file_checks.verified, _remove, r"^verify: missing: out/f01\.png p01"),
    (file_checks.verified, _change, r"^verify: changed: out/f01\.png p01"),
    (file_checks.verified, _add_image, r"^verify: foreign: out/own\.png"),
    (file_checks.present, _remove, r"^the image f01\.png of p01 vanished"),
    (file_checks.present, _change, r"^the image f01\.png of p01 vanished"),
    (file_checks.single, _sql("UPDATE images SET path = 'f01.png'"), "^two images at one path"),
    (file_checks.single, _sql("UPDATE images SET job_id = 1"), "^two saved images of one job"),
    (file_checks.decided, _require_decisions, r"^published without a decision: f0\d\.png of p0"),
    (file_checks.sidecars, _exchange_sidecars, r"^out/f01\.json describes another image"),
    (file_checks.sidecars, _remove, r"^out/f01\.json describes an image that is not there"),
    (file_checks.no_parts, _leave_part, r"^temporary files are left: .*out/x\.png\.part"),
)
"""A check, what must make it fail, and what it says then."""


def test_checks_pass_without_damage(played: Sequence) -> None:
    played.check()


@pytest.mark.parametrize(
    ("check", "damage", "finding"),
    [pytest.param(*row, id=f"{row[0].__name__}-{number}") for number, row in enumerate(DAMAGES)],
)
def test_check_finds_damage(check: Check, damage: Damage, finding: str, played: Sequence) -> None:
    damage(played.batch)
    with pytest.raises(Disagreement, match=finding):
        check(played.batch)


def test_every_check_is_seen_to_fail() -> None:
    assert {check for check, _, _ in DAMAGES} == {*checks.CHECKS, *file_checks.CHECKS}


def test_wrong_rollback_is_found(played: Sequence) -> None:
    played.batch.published["p01"] = "the image that a rollback put aside"
    played.batch.replaced["p01"] = "the image that it should restore"
    with pytest.raises(Disagreement, match=r"rollback of p01 to \w{12}; expected the image th"):
        played.check(rolled_back=True)


def test_plan_that_differs_from_its_run_is_found() -> None:
    planned = {"requests": 3, "groups": {"new": 3}}
    compare(planned, 3, "")
    with pytest.raises(Disagreement, match="the plan had 3 requests, the run sent 2"):
        compare(planned, 2, "")


def test_complete_run_that_left_a_job_is_found(played: Sequence) -> None:
    judge_complete(played.batch)
    _write(played.batch, "UPDATE jobs SET state = 'pending' WHERE id = 1")
    with pytest.raises(Disagreement, match=r"exit code 0, but .'pending': 1"):
        judge_complete(played.batch)


def test_complete_run_that_left_a_request_is_found(played: Sequence) -> None:
    with (played.batch.directory / "products.csv").open("a", encoding="utf-8") as table:
        table.write("p05,another,f05,\n")
    with pytest.raises(Disagreement, match="a complete run left requests: "):
        judge_complete(played.batch)


def test_failed_check_says_how_to_repeat_it(played: Sequence) -> None:
    def remove(batch: Batch, dice: random.Random) -> None:
        batch.note("rm out/f01.png")
        _remove(batch)

    played.number = 7
    with pytest.raises(Disagreement) as raised:
        played.step(remove, random.Random(0))
    assert str(raised.value).splitlines() == [
        "seed 0, step 7 (remove): verify: missing: out/f01.png p01",
        "to repeat it: python -m tests.nights --first 0 --last 0 --steps 8",
        "steps so far:",
        "  batchgen run batch.yaml --yes  # exit 0",
        "  step 7: remove",
        "  rm out/f01.png",
    ]
