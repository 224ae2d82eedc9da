"""What a person decides: which jobs are tried again, and which images may go."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import rig


def test_jobs_are_tried_again_by_state_reason_key_and_day(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(
        tmp_path, served.base_url, ["a forbidden-word", "a forbidden-word too", "fine"]
    )
    rig.batchgen("run", path, cwd=tmp_path, code=1)

    def retry(*options: str) -> str:
        return rig.batchgen("retry", "batch", *options, cwd=tmp_path).stdout

    assert "no matching failed jobs in batch (2 blocked: --blocked); nothing was changed" in retry()
    assert "2 jobs would be pending again" in retry("--blocked", "--dry-run")
    assert "no matching blocked jobs" in retry("--blocked", "--reason", "image_lost", "--dry-run")
    assert "no matching blocked jobs" in retry("--blocked", "--since", "2999-01-01", "--dry-run")
    assert rig.status(tmp_path)["jobs"]["blocked"] == 2
    (row,) = rig.query(
        tmp_path / "batchgen.db", "SELECT DISTINCT reason FROM jobs WHERE state = 'blocked'"
    )
    code = row["reason"].partition(":")[0]
    moved = retry("--blocked", "--reason", code, "--since", "2001-01-01", "--only", "*1")
    assert "1 job is pending again, estimated at $0.04" in moved
    assert rig.status(tmp_path)["jobs"]["pending"] == 1


def test_prune_deletes_images_of_retired_jobs_only_with_yes(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two", "three"])
    rig.batchgen("run", path, cwd=tmp_path)
    out = tmp_path / "out" / "batch"
    rig.manifest(tmp_path, served.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)
    (out / "job-002.png").write_bytes(b"edited by hand")

    listed = rig.batchgen("prune", "batch", cwd=tmp_path).stdout
    assert "job-001.png (job job-001)\n" in listed
    assert "job-002.png (job job-002) (edited; left alone)" in listed
    assert "1 image of a job that left the manifest (" in listed
    assert "--yes removes it" in listed
    assert len(list(out.iterdir())) == 3
    rig.batchgen("prune", "batch", "--yes", cwd=tmp_path)
    assert sorted(file.name for file in out.iterdir()) == ["job-000.png", "job-002.png"]
    assert "nothing to remove" in rig.batchgen("prune", "batch", cwd=tmp_path).stdout

    (out / "job-002.png").unlink()
    before = len(served.bill())
    rig.manifest(tmp_path, served.base_url, ["one", "two"])
    rig.batchgen("run", path, cwd=tmp_path)
    assert (out / "job-001.png").is_file()
    assert len(served.bill()) == before + 1


def test_exported_failed_jobs_keep_their_keys(served: rig.Endpoint, tmp_path: Path) -> None:
    prompts = ["fine", "a forbidden-word, {{ braces }} and 'quotes'", "on", "a forbidden-word: no"]
    path = rig.manifest(tmp_path, served.base_url, ["x"])
    jobs = "".join(
        f"  - {{key: {key!r}, values: {{text: {json.dumps(text)}}}, prompt: '{{{{ text }}}}'}}\n"
        for key, text in zip(["a", "n o", "12:30", "d"], prompts, strict=True)
    )
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("jobs:")] + "jobs:\n" + jobs, encoding="utf-8")
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    names = sorted(file.name for file in (tmp_path / "out" / "batch").iterdir())
    fixed = tmp_path / "fixed.yaml"
    rig.batchgen("export", "batch", "--failed", "-o", fixed, cwd=tmp_path)
    written = fixed.read_text(encoding="utf-8")
    assert "blocked" in written
    assert 'key: "n o"' in written
    assert "no faults, 2 jobs" in rig.batchgen("check", fixed, cwd=tmp_path).stdout

    fixed.write_text(written.replace("forbidden-word", "fine mug"), encoding="utf-8")
    rig.batchgen("run", fixed, cwd=tmp_path)
    found = rig.status(tmp_path)
    assert (found["jobs"]["done"], found["retired"]) == (4, 0)
    files = sorted(file.name for file in (tmp_path / "out" / "batch").iterdir())
    assert set(names) < set(files)
    assert len(files) == 4
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT prompt FROM jobs WHERE key = 'n o'")
    assert row["prompt"] == "a fine mug, {{ braces }} and 'quotes'"
    (batch,) = rig.query(tmp_path / "batchgen.db", "SELECT manifest FROM batches")
    assert "partial" not in batch["manifest"], "the whole manifest is kept for `resume`"
