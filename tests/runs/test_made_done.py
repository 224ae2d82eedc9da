"""A run continues a ledger that the benchmark fills with done jobs."""

from __future__ import annotations

from pathlib import Path

from tests.bench.scale import make_done
from tests.support import rig


def test_run_continues_after_jobs_are_made_done(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, [*"abcdefgh"])
    rig.batchgen("run", path, "--limit", "1", cwd=tmp_path)
    assert make_done(tmp_path / "batchgen.db", left=4) == 3
    before = len(served.bill())

    resumed = rig.batchgen("resume", "batch", "--limit", "1", cwd=tmp_path)
    again = rig.batchgen("run", path, "--limit", "1", cwd=tmp_path)

    assert len(served.bill()) - before == 2
    assert "warning" not in resumed.stderr + again.stderr
    assert {"done": 6, "pending": 2}.items() <= rig.status(tmp_path)["jobs"].items()
