"""Commands that find nothing to do say so and write nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import rig


@pytest.fixture
def done(served: rig.Endpoint, tmp_path: Path) -> Path:
    """A directory with a batch whose only job is done."""
    rig.batchgen("run", rig.manifest(tmp_path, served.base_url, ["one"]), cwd=tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["rollback", "acknowledge", "retry"])
def test_command_without_a_matching_job_says_so(command: str, done: Path) -> None:
    shown = rig.batchgen(command, "batch", cwd=done).stdout
    assert "nothing was changed" in shown
    assert "0 " not in shown


@pytest.mark.parametrize("what", ["jobs", "attempts", "images", "decisions"])
def test_table_without_rows_has_its_header(what: str, done: Path) -> None:
    """Run 2 has no budget, so it requests and makes nothing."""
    command = ("export", "batch", "--what", what, "--format", "csv")
    (done / "picks.csv").write_text("key,decision\njob-000,accept\n", encoding="utf-8")
    if what == "decisions":
        empty = rig.batchgen(*command, cwd=done).stdout
        rig.batchgen("review", "batch", "--import", "picks.csv", cwd=done)
    else:
        flags = ("--refresh", "always", "--max-cost", "0", "--yes")
        rig.batchgen("run", "batch.yaml", *flags, cwd=done, code=3)
        empty = rig.batchgen(*command, "--run", "2", cwd=done).stdout
    header, *rows = rig.batchgen(*command, cwd=done).stdout.splitlines()
    assert len(rows) == 1
    assert empty.splitlines() == [header]


def test_manifest_of_failed_jobs_is_not_written_empty(done: Path) -> None:
    shown = rig.batchgen("export", "batch", "--failed", "-o", "fix.yaml", cwd=done)
    assert shown.stderr == "batch: no failed or blocked job; no manifest was written\n"
    assert not (done / "fix.yaml").exists()
    assert rig.batchgen("export", "batch", "--failed", cwd=done).stdout == ""
