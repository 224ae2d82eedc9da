"""Jobs that would be made of the same: counted in every quote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import rig

NOWHERE = "http://127.0.0.1:9/v1"


def plan(folder: Path) -> dict[str, Any]:
    done = rig.batchgen("plan", "batch.yaml", "--json", cwd=folder)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_repeats_are_quoted_with_their_price(tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, NOWHERE, ["a mug", "a bag", "a mug", "a mug"])
    assert plan(tmp_path)["repeats"] == {"jobs": 2, "cost": "0.075400"}

    shown = rig.batchgen("plan", path, cwd=tmp_path).stdout
    assert "  2 jobs repeat another one: $0.08; share: true makes each once\n" in shown


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
