"""A directory that moves with its ledger, a base that is gone, and two manifests of one name."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import certifi
import pytest
from PIL import Image
from sqlite_utils import Database

from batchgen.ledger.database import open_for_reading, open_for_writing
from batchgen.ledger.manifest_paths import manifest_path, stored_path
from batchgen.ledger.schema import SCHEMA_VERSION, migrations
from tests.support import rig
from tests.support.old_ledgers import TWO_BATCHES


def stored(db: Path) -> str:
    (row,) = rig.query(db, "SELECT manifest_path FROM batches")
    return str(row["manifest_path"])


def posts(endpoint: rig.Endpoint) -> int:
    return int(endpoint.judge("stats")["posts"])


# XC3: moved directories


@pytest.mark.fault("XC3")
def test_a_moved_directory_keeps_working(served: rig.Endpoint, tmp_path: Path) -> None:
    extra = "output: {keep_previous: 1}\n"
    old, new = tmp_path / "shop", tmp_path / "elsewhere" / "moved"
    path = rig.manifest(old, served.base_url, ["one", "two", "three"], extra=extra)
    rig.batchgen("run", path, cwd=old)
    path = rig.manifest(old, served.base_url, ["one, changed", "two", "four", "five"], extra=extra)
    rig.batchgen("run", path, "--limit", "1", cwd=old)
    assert stored(old / "batchgen.db") == "batch.yaml"
    new.parent.mkdir()
    old.rename(new)

    verified = rig.batchgen("verify", "batch", cwd=new)
    assert "3 images, all as they were saved" in verified.stdout
    rig.batchgen("resume", "batch", cwd=new)
    rolled = rig.batchgen("rollback", "batch", "--only", "job-000", cwd=new)
    assert "1 image is restored" in rolled.stdout
    rig.batchgen("export", "batch", cwd=new)
    rig.batchgen("report", "batch", cwd=new)
    rig.manifest(new, served.base_url, ["one"], extra=extra)
    rig.batchgen("run", "batch.yaml", "--yes", cwd=new)
    retired = new / "out" / "batch" / "job-001.png"
    assert retired.exists()
    rig.batchgen("prune", "batch", "--yes", cwd=new)
    assert not retired.exists()
    assert not old.exists(), "the old directory was made again"


@pytest.mark.fault("XC3")
def test_a_moved_directory_keeps_its_edit_jobs(served: rig.Endpoint, tmp_path: Path) -> None:
    old, new = tmp_path / "shop", tmp_path / "elsewhere" / "moved"
    old.mkdir()
    rig.image(old / "mug.png", size=(64, 64))
    Image.new("RGBA", (64, 64)).save(old / "mask.png")
    extra = "images: [mug.png]\nmask: mask.png\n"
    path = rig.manifest(old, served.base_url, ["one", "forbidden-word", "three"], extra=extra)
    rig.batchgen("run", path, "--limit", "2", cwd=old, code=1)
    new.parent.mkdir()
    old.rename(new)
    sent = posts(served)
    rig.batchgen("resume", "batch", cwd=new, code=1)
    assert rig.status(new)["jobs"]["done"] == 2
    assert posts(served) == sent + 1
    assert f'"{new}/mug.png"' in rig.batchgen("export", "batch", "--failed", cwd=new).stdout
    rows = rig.query(new / "batchgen.db", "SELECT DISTINCT images, mask FROM jobs")
    assert [tuple(row) for row in rows] == [('["mug.png"]', "mask.png")]


@pytest.mark.fault("XC3")
@pytest.mark.parametrize(
    "command",
    [
        ["verify", "batch", "--repair"],
        ["prune", "batch", "--yes"],
        ["rollback", "batch"],
        ["resume", "batch"],
        ["export", "batch", "--failed"],
    ],
    ids=lambda command: command[0],
)
def test_a_missing_base_is_refused(
    command: list[str], served: rig.Endpoint, tmp_path: Path
) -> None:
    shop, ledger = tmp_path / "shop", tmp_path / "ledgers" / "night.db"
    path = rig.manifest(shop, served.base_url, ["one", "two"])
    rig.batchgen("run", path, "--db", ledger, "--limit", "1", cwd=shop)
    shop.rename(tmp_path / "unplugged")
    before, sent = ledger.read_bytes(), posts(served)

    refused = rig.batchgen(*command, "--db", ledger, cwd=tmp_path, code=2)

    assert f"batch: the directory of its manifest does not exist: {shop}" in refused.stderr
    assert f"batchgen run DIR/batch.yaml --db {ledger}" in refused.stderr
    assert (ledger.read_bytes(), posts(served)) == (before, sent)
    assert not shop.exists()


@pytest.mark.fault("XC3")
def test_prune_forgets_nothing_of_a_missing_output(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two"])
    rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, served.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)
    (tmp_path / "out").rename(tmp_path / "unplugged")
    pruned = rig.batchgen("prune", "batch", "--yes", cwd=tmp_path)
    assert "out/batch does not exist; left alone" in pruned.stdout
    states = rig.query(tmp_path / "batchgen.db", "SELECT DISTINCT state FROM images")
    assert [row["state"] for row in states] == ["saved"]


@pytest.mark.fault("XC3")
def test_a_manifest_that_moved_alone_finds_its_images(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path / "shop", served.base_url, ["one"])
    db = path.parent / "batchgen.db"
    rig.batchgen("run", path, cwd=path.parent)
    moved = tmp_path / "manifests" / "night.yaml"
    moved.parent.mkdir()
    path.rename(moved)
    sent = posts(served)
    done = rig.batchgen("run", moved, "--db", db, cwd=tmp_path)
    assert f"its manifest was {path}, and is {moved} from now on" in done.stderr
    assert posts(served) == sent
    assert "1 image, all as" in rig.batchgen("verify", "batch", "--db", db, cwd=tmp_path).stdout
    assert stored(db) == "../manifests/night.yaml"
    # The notice is written once.
    assert "from now on" not in rig.batchgen("run", moved, "--db", db, cwd=tmp_path).stderr


@pytest.mark.fault("XC3")
def test_a_stored_path_leads_back(tmp_path: Path) -> None:
    ledger = tmp_path / "shop" / "batchgen.db"
    for place in ("shop/a.yaml", "shop/sub/a.yaml", "other/a.yaml", "a.yaml"):
        text = stored_path(tmp_path / place, ledger)
        assert not text.startswith("/")
        assert manifest_path(ledger, text) == tmp_path / place
    assert manifest_path(ledger, "/gone/a.yaml") == Path("/gone/a.yaml")


@pytest.mark.fault("XC3")
def test_a_ledger_of_schema_2_gets_relative_paths(tmp_path: Path) -> None:
    path = tmp_path / "batchgen.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        migrations().apply(Database(conn), stop_before="0003_money_safety")
        conn.execute("PRAGMA user_version = 2")
        conn.executescript(TWO_BATCHES)
        conn.execute(
            "UPDATE batches SET manifest_path = iif(id = 1, ?, '/gone/b.yaml')",
            (str(tmp_path / "sub" / "a.yaml"),),
        )
    with closing(open_for_writing(path)) as conn:
        (version,) = conn.execute("PRAGMA user_version").fetchone()
        rows = conn.execute("SELECT manifest_path FROM batches ORDER BY id").fetchall()
        runs = conn.execute("SELECT owner, heartbeat_at, spool, taken_by FROM runs").fetchall()
    assert version == SCHEMA_VERSION
    assert [row["manifest_path"] for row in rows] == ["sub/a.yaml", "/gone/b.yaml"]
    assert [tuple(row) for row in runs] == [(None, None, None, None)]


# XC4: two manifests of one name


@pytest.mark.fault("XC4")
def test_two_manifests_of_one_name_are_refused(served: rig.Endpoint, tmp_path: Path) -> None:
    one = rig.manifest(tmp_path / "shop-a", served.base_url, ["one", "two"])
    other = rig.manifest(tmp_path / "shop-b", served.base_url, ["three"])
    db = one.parent / "batchgen.db"
    rig.batchgen("run", one, cwd=tmp_path)
    before, sent = db.read_bytes(), posts(served)

    both = rig.batchgen("run", one, other, cwd=tmp_path, code=2)
    alone = rig.batchgen("run", other, "--db", db, cwd=tmp_path, code=2)
    planned = rig.batchgen("plan", other, "--db", db, cwd=tmp_path, code=2)

    for refused in (both, alone, planned):
        assert f"{other}: the batch 'batch' of {db} belongs to another manifest: {one}" in (
            refused.stderr
        )
        assert "`name: shop-b-batch`" in refused.stderr
        assert "--adopt" in refused.stderr
    assert posts(served) == sent
    assert not (other.parent / "out").exists()
    jobs = rig.query(db, "SELECT key, retired, state FROM jobs ORDER BY key")
    assert [tuple(job) for job in jobs] == [("job-000", 0, "done"), ("job-001", 0, "done")]
    rig.batchgen("run", other, "--db", db, "--adopt", cwd=tmp_path)
    assert stored(db) == "../shop-b/batch.yaml"
    assert len(before) <= db.stat().st_size


@pytest.mark.fault("XC4")
def test_one_manifest_by_another_spelling_is_the_same(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path / "shop", served.base_url, ["one"])
    db = path.parent / "batchgen.db"
    rig.batchgen("run", path, cwd=tmp_path)
    (tmp_path / "link").symlink_to(path.parent)
    (path.parent / "same.yaml").symlink_to(path)
    spellings = ["shop/../shop/batch.yaml", "link/batch.yaml", "shop/same.yaml"]
    for spelling in spellings:
        done = rig.batchgen("run", spelling, "--db", db, cwd=tmp_path)
        assert "from now on" not in done.stderr


@pytest.mark.fault("XC4")
def test_a_partial_manifest_elsewhere_joins_its_batch(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path / "shop", served.base_url, ["one", "forbidden-word"])
    db = path.parent / "batchgen.db"
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    fixed = tmp_path / "fixed.yaml"
    done = rig.batchgen("export", "batch", "--failed", "-o", fixed, "--db", db, cwd=tmp_path)
    assert "next: batchgen run fixed.yaml --db shop/batchgen.db   #" in done.stderr
    fixed.write_text(fixed.read_text().replace("forbidden-word", "allowed"))
    rig.batchgen("run", "fixed.yaml", "--db", "shop/batchgen.db", cwd=tmp_path)
    assert stored(db) == "batch.yaml"
    assert "2 images, all as" in rig.batchgen("verify", "batch", "--db", db, cwd=tmp_path).stdout


@pytest.mark.parametrize("place", ["certs/ca.pem", "../ca.pem"])
def test_fixed_jobs_elsewhere_find_the_certificates(
    place: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path / "shop", served.base_url, ["one", "forbidden-word"])
    file = path.parent / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(Path(certifi.where()).read_bytes())
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("provider: {", f"provider: {{ca_file: {place}, "), "utf-8")
    db = path.parent / "batchgen.db"
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    fixed = tmp_path / "elsewhere" / "fixed.yaml"
    fixed.parent.mkdir()
    rig.batchgen("export", "batch", "--failed", "-o", fixed, "--db", db, cwd=tmp_path)
    fixed.write_text(fixed.read_text().replace("forbidden-word", "allowed"))
    rig.batchgen("run", fixed, "--db", db, cwd=tmp_path)
    assert rig.status(path.parent)["jobs"]["done"] == 2


def test_fixed_jobs_keep_the_settings_of_their_batch(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(
        "provider: local\nrules: warn\nshare: true\nlimits: {max_cost: 1.00}\n"
        "output: {publish: on_accept, verify: decode, sidecar: true, metadata: true}\n"
        "jobs:\n"
        "  - {key: sign, prompt: A forbidden-word sign, output: {keep_previous: 3}}\n"
        "  - {key: mug, prompt: A mug}\n",
        encoding="utf-8",
    )
    rig.batchgen("run", "shop.yaml", cwd=tmp_path, code=1)
    rig.batchgen("export", "shop", "--failed", "-o", "fix.yaml", cwd=tmp_path)
    fixed = tmp_path / "fix.yaml"
    text = fixed.read_text(encoding="utf-8")
    assert 'rules: "warn"\nshare: true\n' in text
    fixed.write_text(text.replace("forbidden-word", "wooden"), encoding="utf-8")
    rig.batchgen("run", "fix.yaml", cwd=tmp_path)
    assert not (tmp_path / "out/shop/sign.png").exists(), "no person has accepted it"
    assert (tmp_path / "out/shop/.pending/sign.json").exists()
    options = "verify, keep_previous, keep_partials, sidecar, metadata, publish"
    (row,) = rig.query(tmp_path / "batchgen.db", f"SELECT {options} FROM jobs WHERE key = 'sign'")
    assert tuple(row) == ("decode", 3, 0, 1, 1, "on_accept")


@pytest.mark.fault("XC4")
def test_a_copied_partial_manifest_writes_to_its_batch(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path / "shop", served.base_url, ["one", "two"])
    db = path.parent / "batchgen.db"
    served.judge("faults", {"download-miss": 1})
    limits = "{concurrency: 1, download_wait: 0}"
    rig.manifest(path.parent, served.base_url, ["one", "two"], limits=limits)
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    served.judge("faults", {})
    partial = "partial: true\n"
    copied = rig.manifest(tmp_path / "copy", served.base_url, ["one, changed"], extra=partial)
    done = rig.batchgen("run", copied, "--db", db, cwd=tmp_path)
    assert f"images in {Path('shop/out/batch')}" in done.stdout
    assert "2 images, all as" in rig.batchgen("verify", "batch", "--db", db, cwd=tmp_path).stdout
    assert not (copied.parent / "out").exists()


@pytest.mark.fault("XC4")
def test_a_renamed_manifest_continues_its_batch(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)
    renamed = path.rename(tmp_path / "renamed.yaml")
    sent = posts(served)
    done = rig.batchgen("run", renamed, "--json", cwd=tmp_path)
    assert "renamed.yaml from now on" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["jobs"]["done"] == 1
    assert posts(served) == sent
    open_for_reading(tmp_path / "batchgen.db").close()


@pytest.mark.fault("XC3")
def test_a_ledger_that_moved_alone_finds_its_images(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path / "shop", served.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)
    ledgers = tmp_path / "ledgers"
    ledgers.mkdir()
    for file in path.parent.glob("batchgen.db*"):
        shutil.move(file, ledgers)
    db = ledgers / "batchgen.db"
    sent = posts(served)
    rig.batchgen("run", path, "--db", db, cwd=tmp_path)
    assert posts(served) == sent
    assert "1 image, all as" in rig.batchgen("verify", "batch", "--db", db, cwd=tmp_path).stdout
