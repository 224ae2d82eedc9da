"""A plan that writes where another batch of the ledger does is refused, with both names."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlite_utils import Database

from batchgen.errors import SettingsError
from batchgen.job import PlannedJob
from batchgen.ledger.batch_identity import BatchIdentity
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.path_owners import Place, claimed_places
from batchgen.ledger.schema import migrations
from batchgen.ledger.staging import Staging
from batchgen.money import Micros
from batchgen.planning.naming import collision_key
from batchgen.session.preflight import check_owners
from tests.support import rig

IDENTITY = BatchIdentity(
    name="shop",
    provider="local",
    price_source="test",
    manifest_path="",
    manifest_sha256="",
    manifest="",
)


def stage(ledger: Ledger, *jobs: PlannedJob) -> Staging:
    staging = Staging(ledger.conn)
    staging.fill(jobs, price=lambda *_: Micros(1), collision_key=collision_key)
    return staging


def enroll(ledger: Ledger, manifest: Path, *jobs: PlannedJob) -> None:
    staging = stage(ledger, *jobs)
    staging.enroll(replace(IDENTITY, manifest_path=str(manifest)))
    staging.close()


def refused(ledger: Ledger, base: Path, job: PlannedJob, name: str = "other") -> list[str]:
    staging = stage(ledger, job)
    try:
        claimed = claimed_places(
            ledger.conn, Place(name, base, base / "batchgen.db"), collision_key
        )
        return [one.owner_key for one in claimed]
    finally:
        staging.close()


SAME = [
    ("out", "a.{ext}"),
    ("./out/", "A.{ext}"),
    (".", "out/a.{ext}"),
    ("{base}/out", "a.{ext}"),
    ("../{name}/out", "a.{ext}"),
]


@pytest.mark.fault("XA3")
@pytest.mark.parametrize(("root", "path"), SAME)
def test_a_path_of_another_batch_is_found(
    root: str, path: str, ledger: Ledger, tmp_path: Path
) -> None:
    enroll(ledger, tmp_path / "shop.yaml", rig.planned_job(key="theirs"))
    root = root.format(base=tmp_path, name=tmp_path.name, ext="{ext}")
    assert refused(ledger, tmp_path, rig.planned_job(root=root, path=path)) == ["theirs"]


@pytest.mark.fault("XA3")
def test_a_path_below_the_others_directory_is_found(ledger: Ledger, tmp_path: Path) -> None:
    enroll(ledger, tmp_path / "shop.yaml", rig.planned_job(path="sub/a.{ext}", key="theirs"))
    job = rig.planned_job(root="out/sub")
    assert refused(ledger, tmp_path, job) == ["theirs"]
    assert refused(ledger, tmp_path / "elsewhere", job) == []
    other_base = rig.planned_job(root="../out/sub")
    assert refused(ledger, tmp_path / "elsewhere", other_base) == ["theirs"]


@pytest.mark.fault("XA3")
def test_paths_of_the_same_batch_and_retired_jobs_are_free(ledger: Ledger, tmp_path: Path) -> None:
    enroll(ledger, tmp_path / "shop.yaml", rig.planned_job())
    assert refused(ledger, tmp_path, rig.planned_job(), name="shop") == []
    assert refused(ledger, tmp_path, rig.planned_job(path="b.{ext}")) == []
    enroll(ledger, tmp_path / "shop.yaml", rig.planned_job(key="b", path="b.{ext}"))
    assert refused(ledger, tmp_path, rig.planned_job()) == []


@pytest.mark.fault("XA3")
def test_a_plan_with_such_a_path_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    enroll(ledger, tmp_path / "shop.yaml", rig.planned_job(key="theirs"))
    stage(ledger, rig.planned_job(key="mine", source="b.csv:7"))
    claimed = claimed_places(
        ledger.conn, Place("other", tmp_path, tmp_path / "batchgen.db"), collision_key
    )
    with pytest.raises(SettingsError) as caught:
        check_owners(claimed, "other")
    for part in ("'mine'", "b.csv:7", "'theirs'", "'shop'", "output.dir", "--overwrite"):
        assert part in str(caught.value)


@pytest.mark.fault("XA3")
def test_a_refused_plan_changes_nothing(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images") as served:
        extra = "output: {dir: images}\n"
        one = rig.manifest(tmp_path, served.base_url, ["one"], name="one", extra=extra)
        two = rig.manifest(tmp_path, served.base_url, ["two"], name="two", extra=extra)
        rig.batchgen("run", one, cwd=tmp_path)
        made = (tmp_path / "images/job-000.png").read_bytes()
        shown = rig.batchgen("run", two, cwd=tmp_path, code=2).stderr
        assert "the path of job 'job-000' of batch 'one'" in shown
        assert (tmp_path / "images/job-000.png").read_bytes() == made
        names = rig.query(tmp_path / "batchgen.db", "SELECT name FROM batches")
        assert [row["name"] for row in names] == ["one"]
        assert len(served.bill()) == 1
        rig.batchgen("run", two, "--overwrite", cwd=tmp_path)
        kept = tmp_path / "images/.previous/job-000.png~edited1"
        assert kept.read_bytes() == made


@pytest.mark.fault("XC5")
def test_a_ledger_of_schema_2_learns_places(tmp_path: Path) -> None:
    """Images that could not be moved before have a job that says where they are."""
    path = tmp_path / "batchgen.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrations().apply(Database(conn), stop_before="0003_money_safety")
        conn.execute("PRAGMA user_version = 2")
        conn.executescript(
            """
            INSERT INTO batches VALUES (1, 'b', 'p', '', '', '', 1, '', '', NULL);
            INSERT INTO runs (id, batch_id, started_at, estimate, max_waste)
            VALUES (1, 1, '', 0, 0);
            INSERT INTO jobs (id, batch_id, key, state, fingerprint, model, prompt, options,
                images, root, path, verify, keep_previous, keep_partials, sidecar, metadata, tags,
                source, estimated, plan, changed_at)
            SELECT column1, 1, 'k' || column1, 'done', '', '', '', '{}', '[]', column2, column3, '',
                0, 0, 0, 0, '[]', '', 1, 1, ''
            FROM (VALUES (1, 'out', '1.{ext}'), (2, 'out', '9.{ext}'), (3, 'new', '3.{ext}'));
            INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,
                outcome, billed, price)
            SELECT 'a' || id, id, 1, '', '', '', '', 'ok', 'yes', 1 FROM jobs;
            INSERT INTO images (job_id, attempt_id, position, state, root, path, format)
            SELECT id, 'a' || id, 0, 'saved', 'out', id || '.jpg', 'jpeg' FROM jobs;
            """
        )
    with closing(open_for_writing(path)) as conn:
        places = conn.execute("SELECT root || '/' || path FROM jobs ORDER BY id").fetchall()
        assert [row[0] for row in places] == ["out/1.{ext}", "out/2.jpg", "out/3.jpg"]
        roots = conn.execute("SELECT root FROM output_roots ORDER BY root").fetchall()
        assert [row[0] for row in roots] == ["new", "out"]
