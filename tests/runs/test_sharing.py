"""Jobs that would be made of the same: counted in every quote, and made once if shared."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchgen.system.failpoints import Point
from tests.support import rig

NOWHERE = "http://127.0.0.1:9/v1"


MUGS = ["a mug"] * 5


def write(directory: Path, base_url: str, prompts: Sequence[str], extra: str = "") -> Path:
    return rig.manifest(directory, base_url, prompts, extra=f"share: true\n{extra}")


def jobs(directory: Path) -> dict[str, tuple[str, str | None]]:
    rows = rig.query(directory / "batchgen.db", "SELECT key, state, reason FROM jobs ORDER BY id")
    return {row["key"]: (row["state"], row["reason"]) for row in rows}


def images(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((directory / "out" / "batch").glob("job-*.png"))]


def plan(directory: Path) -> dict[str, Any]:
    done = rig.batchgen("plan", "batch.yaml", "--json", cwd=directory)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_repeats_are_quoted_with_their_price(tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, NOWHERE, ["a mug", "a bag", "a mug", "a mug"])
    assert plan(tmp_path)["repeats"] == {"jobs": 2, "cost": "0.075400"}

    shown = rig.batchgen("plan", path, cwd=tmp_path).stdout
    assert "  2 jobs repeat another job: $0.08; share: true makes each image once\n" in shown


def test_repeats_of_a_done_job_are_counted(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = rig.manifest(tmp_path, local.base_url, ["a mug"])
        rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, NOWHERE, ["a mug", "a mug", "a bag"])
    found = plan(tmp_path)
    assert found["repeats"]["jobs"] == 1
    assert found["requests"] == 2


def test_repeats_leave_variants_out(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text(
        f"name: batch\nprovider: {{name: local, base_url: {NOWHERE!r}}}\n"
        "jobs: [a mug, a mug, {prompt: a bag, key: bag, count: 3}, {prompt: a hat, key: hat}]\n"
    )
    found = plan(tmp_path)
    assert found["requests"] == 6
    assert found["repeats"] == {"jobs": 0, "cost": "0.000000"}


def test_shared_jobs_cost_one_request(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, [*MUGS, "a bag"])
        found = plan(tmp_path)
        assert found["groups"] == {
            "new": {"jobs": 2, "cost": "0.075400"},
            "shared": {"jobs": 4, "cost": "0.000000"},
        }
        assert found["requests"] == 2
        assert found["repeats"]["jobs"] == 0
        shown = rig.batchgen("plan", path, cwd=tmp_path).stdout
        (line,) = [line for line in shown.splitlines() if "share the image" in line]
        assert line.split() == ["4", "share", "the", "image", "of", "another", "job", "$0.00"]
        why = rig.batchgen("plan", path, "--why", "job-003", cwd=tmp_path).stdout
        assert why == "job-003: shares the image of job-000; no request is sent for it\n"

        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 2
        rig.judge(tmp_path, local.bill(), finished=True)
    made = images(tmp_path)
    assert len(made) == 6
    assert len(set(made)) == 2
    inodes = {path.stat().st_ino for path in (tmp_path / "out" / "batch").glob("*.png")}
    assert len(inodes) == 6, "two jobs have one file"
    copies = rig.query(
        tmp_path / "batchgen.db",
        "SELECT outcome, billed, price, cost, message, request_id IS NOT NULL AS has_id"
        " FROM attempts WHERE copy_of IS NOT NULL",
    )
    assert [tuple(row) for row in copies] == [("ok", "no", 0, 0, "shares job-000", 1)] * 4
    shown = rig.batchgen("run", path, cwd=tmp_path).stdout
    assert "6 jobs were done already; nothing sent, nothing paid" in shown


@pytest.mark.parametrize("point", [Point.COPYING, Point.PLACING, Point.PLACED, Point.SAVED])
@pytest.mark.parametrize("times", [2, 3])
def test_shared_jobs_survive_a_kill(tmp_path: Path, point: Point, times: int) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, MUGS, "output: {sidecar: true}\n")
        armed = {"BATCHGEN_FAILPOINT": f"{point}:{times}"}
        rig.batchgen("run", path, cwd=tmp_path, env=armed, code=-9)
        rig.judge(tmp_path, local.bill(), finished=False)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 1
        rig.judge(tmp_path, local.bill(), finished=True)
    assert len(images(tmp_path)) == 5
    assert len(list((tmp_path / "out" / "batch").glob("*.json"))) == 5


def test_shared_jobs_wait_for_a_leader_that_failed(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill", "--block-word", "mug") as local:
        path = write(tmp_path, local.base_url, MUGS)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert jobs(tmp_path)["job-000"][0] == "blocked"
        assert jobs(tmp_path)["job-003"] == ("pending", "shares job-000, which is blocked")
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        resumed = rig.batchgen("resume", "batch", cwd=tmp_path, code=1)
        assert "next: batchgen report batch   # fix these prompts" in resumed.stdout
        assert "4 more jobs need their images" in resumed.stdout
        asked = rig.query(tmp_path / "batchgen.db", "SELECT job_id FROM attempts")
        assert len(asked) == 1
        assert local.bill() == []

    with rig.endpoint(tmp_path / "bill") as local:
        path.write_text(
            write(tmp_path, local.base_url, MUGS)
            .read_text()
            .replace('  - {key: "job-000", prompt: "a mug"}\n', "")
        )
        assert plan(tmp_path)["groups"]["shared"]["jobs"] == 3
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 1
    assert len(images(tmp_path)) == 4


def test_shared_jobs_follow_a_changed_prompt(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, MUGS)
        rig.batchgen("run", path, cwd=tmp_path)
        before = images(tmp_path)
        write(tmp_path, local.base_url, ["a red mug"] * 5)
        assert plan(tmp_path)["requests"] == 1
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 2
        after = images(tmp_path)
        assert len(set(after)) == 1
        assert after[0] != before[0]

        write(tmp_path, local.base_url, ["a red mug", "a hat", *["a red mug"] * 3])
        assert plan(tmp_path)["groups"]["changed"]["jobs"] == 1
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 3
        rig.judge(tmp_path, local.bill(), finished=True)
    last = images(tmp_path)
    assert last[1] != after[1]
    assert last[2:] == after[2:]
    assert len(list((tmp_path / "out" / "batch" / ".previous").iterdir())) == 5


def test_shared_jobs_are_quoted_once_share_is_off(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, MUGS)
        armed = {"BATCHGEN_FAILPOINT": f"{Point.SAVED}:3"}
        rig.batchgen("run", path, cwd=tmp_path, env=armed, code=-9)
        rig.manifest(tmp_path, local.base_url, MUGS)
        left = 5 - sum(state in ("done", "paid") for state, _ in jobs(tmp_path).values())
        found = plan(tmp_path)
        assert found["requests"] == left
        assert found["repeats"]["jobs"] == left
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 1 + left
        rig.judge(tmp_path, local.bill(), finished=True)


def test_shared_jobs_are_copied_from_a_done_job(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = rig.manifest(tmp_path, local.base_url, ["a bag", "a mug"])
        rig.batchgen("run", path, cwd=tmp_path)
        write(tmp_path, local.base_url, ["a mug", "a mug", "a mug"])
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 2
    assert len(set(images(tmp_path))) == 1


def test_shared_job_is_not_copied_from_a_changed_file(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = rig.manifest(tmp_path, local.base_url, ["a mug"])
        rig.batchgen("run", path, cwd=tmp_path)
        image = tmp_path / "out" / "batch" / "job-000.png"
        whole = image.read_bytes()
        rig.image(image)
        write(tmp_path, local.base_url, ["a mug", "a mug"])
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        reason = "shares job-000: its image is missing or changed"
        assert jobs(tmp_path)["job-001"] == ("pending", reason)
        image.write_bytes(whole)
        rig.batchgen("resume", "batch", cwd=tmp_path)
        assert len(local.bill()) == 1
        rig.judge(tmp_path, local.bill(), finished=True)


def test_shared_job_never_takes_the_file_of_another(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, MUGS[:2])
        (tmp_path / "out" / "batch").mkdir(parents=True)
        foreign = rig.image(tmp_path / "out" / "batch" / "job-001.png")
        rig.batchgen("run", path, cwd=tmp_path, code=None)
        assert images(tmp_path)[1] == foreign
        (tmp_path / "out" / "batch" / "job-001.png").unlink()
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 1
        rig.judge(tmp_path, local.bill(), finished=True)


def test_refresh_of_shared_jobs_costs_one_request(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, MUGS)
        rig.batchgen("run", path, cwd=tmp_path)
        rig.batchgen("run", path, "--refresh", "always", cwd=tmp_path)
        assert len(local.bill()) == 2
    assert {state for state, _ in jobs(tmp_path).values()} == {"done"}
    dates = rig.query(tmp_path / "batchgen.db", "SELECT DISTINCT done_at FROM jobs")
    assert len(dates) == 1


def test_shared_jobs_fit_the_budget_of_one(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, MUGS)
        rig.batchgen("run", path, "--max-cost", "0.04", cwd=tmp_path)
        assert len(local.bill()) == 1


def test_shared_job_leads_where_only_it_is_meant(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = write(tmp_path, local.base_url, MUGS)
        rig.batchgen("run", path, "--only", "job-003", cwd=tmp_path)
        found = jobs(tmp_path)
        assert [key for key, (state, _) in found.items() if state == "done"] == ["job-003"]
        rig.batchgen("resume", "batch", cwd=tmp_path)
        assert {state for state, _ in jobs(tmp_path).values()} == {"done"}
        assert len(local.bill()) == 1


def test_variants_are_not_shared(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = tmp_path / "batch.yaml"
        path.write_text(
            "name: batch\nshare: true\noptions: {size: 1024x640}\n"
            f"provider: {{name: local, base_url: {local.base_url!r}}}\n"
            "jobs: [a mug, a mug, {prompt: a bag, key: bag, count: 2}]\n"
        )
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 4


def test_unfinished_recovery_of_a_leader_serves_all(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill", "--response", "b64_json") as local:
        path = write(tmp_path, local.base_url, MUGS)
        armed = {"BATCHGEN_FAILPOINT": f"{Point.SPOOLED}:1"}
        rig.batchgen("run", path, cwd=tmp_path, env=armed, code=-9)
        found = plan(tmp_path)
        assert found["requests"] == 0
        assert found["groups"]["shared"]["jobs"] == 4
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(local.bill()) == 1
        rig.judge(tmp_path, local.bill(), finished=True)


def test_shared_copy_proves_nothing_about_the_provider(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "bill") as local:
        path = rig.manifest(tmp_path, local.base_url, ["a mug"])
        rig.batchgen("run", path, cwd=tmp_path)
        db = tmp_path / "batchgen.db"
        with closing(sqlite3.connect(db)) as conn, conn:
            conn.execute("DELETE FROM canaries")
        write(tmp_path, local.base_url, ["a mug", "a mug"])
        rig.batchgen("run", path, cwd=tmp_path)
        assert rig.query(db, "SELECT * FROM canaries") == []
    assert len(images(tmp_path)) == 2
