"""`batchgen export --dataset` as its users call it, without any extra."""

from __future__ import annotations

import tarfile
from contextlib import closing
from pathlib import Path

from batchgen.job import BatchId
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.decisions import NewDecision, Reviewer, record_decisions
from batchgen.ledger.newest_decisions import Decision
from tests.support import rig


def run(served: rig.Endpoint, directory: Path, prompts: list[str], code: int = 0) -> None:
    rig.batchgen("run", rig.manifest(directory, served.base_url, prompts), cwd=directory, code=code)


def test_done_images_become_a_webdataset(served: rig.Endpoint, tmp_path: Path) -> None:
    run(served, tmp_path, ["one", "forbidden-word", "three"], code=1)
    shown = rig.batchgen("export", "batch", "--dataset", "ds", cwd=tmp_path).stdout
    assert "batch: 2 images in 1 part in ds" in shown
    with tarfile.open(tmp_path / "ds" / "00000.tar") as tar:
        assert tar.getnames() == [
            f"job-00{number}.{ending}" for number in (0, 2) for ending in ("png", "txt", "json")
        ]
        image = tar.extractfile("job-002.png")
        assert image is not None
        assert image.read() == (tmp_path / "out" / "batch" / "job-002.png").read_bytes()


def test_a_changed_file_is_not_exported(served: rig.Endpoint, tmp_path: Path) -> None:
    run(served, tmp_path, ["one", "two"])
    (tmp_path / "out" / "batch" / "job-000.png").write_bytes(b"edited")
    done = rig.batchgen("export", "batch", "--dataset", "ds", cwd=tmp_path, code=1)
    assert "left out: job-000" in done.stderr
    assert "1 image in 1 part" in done.stdout
    assert "1 left out: missing or changed" in done.stdout


def test_an_image_of_an_earlier_prompt_is_not_exported(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    run(served, tmp_path, ["one", "two"])
    run(served, tmp_path, ["one, again", "two"])
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    done = rig.batchgen("export", "batch", "--dataset", "ds", cwd=tmp_path)
    assert "1 image in 1 part" in done.stdout
    assert "1 left out: of an earlier prompt or earlier options" in done.stdout


def test_only_accepted_images_are_exported(served: rig.Endpoint, tmp_path: Path) -> None:
    run(served, tmp_path, ["one", "two", "three"])
    with closing(open_for_writing(tmp_path / "batchgen.db")) as conn:
        images = conn.execute("SELECT id, sha256 FROM images ORDER BY id").fetchall()
        for row, decisions in zip(
            images, ([Decision.ACCEPT], [Decision.ACCEPT, Decision.REJECT], []), strict=True
        ):
            for decision in decisions:
                new = NewDecision(image=row["id"], sha256=row["sha256"], decision=decision)
                record_decisions(conn, BatchId(1), [new], Reviewer(name="ann", session="s"))
    arguments = ("--dataset", "ds", "--decision", "accepted")
    shown = rig.batchgen("export", "batch", *arguments, cwd=tmp_path).stdout
    assert "1 image in 1 part" in shown


def test_refused_directory_is_named_as_a_path(served: rig.Endpoint, tmp_path: Path) -> None:
    run(served, tmp_path, ["one"])
    done = rig.batchgen("export", "batch", "--dataset", "out", cwd=tmp_path, code=2)
    assert done.stderr.startswith(f"{tmp_path / 'out'}: not empty and not a dataset of batchgen")


def test_options_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    done = rig.batchgen("export", "batch", "--dataset", "ds", "--failed", cwd=tmp_path, code=2)
    assert "--failed cannot be combined with --dataset" in done.stderr
