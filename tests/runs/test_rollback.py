"""Images that were replaced: kept, and put back with the ledger."""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from pathlib import Path

from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.gallery import gallery_images
from batchgen.ledger.made_images import made_images
from batchgen.ledger.review import ImageFilter
from batchgen.output.previous_versions import find_kept, keep
from tests.support import rig


def image(directory: Path, name: str = "job-000.png") -> bytes:
    return (directory / "out" / "batch" / name).read_bytes()


def make(
    served: rig.Endpoint,
    directory: Path,
    *prompts: str,
    options: str = "{}",
    keep_previous: int = 2,
) -> None:
    path = rig.manifest(
        directory,
        served.base_url,
        prompts,
        options=options,
        extra=f"output: {{keep_previous: {keep_previous}}}\n",
    )
    rig.batchgen("run", path, cwd=directory)


def test_the_last_images_are_kept_and_put_back_with_the_ledger(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    versions = []
    for edition in ("one", "two", "three", "four"):
        make(served, tmp_path, edition)
        versions.append(image(tmp_path))
    kept = tmp_path / "out" / "batch" / ".previous"
    assert [(kept / name).read_bytes() for name in ("job-000.png~1", "job-000.png~2")] == [
        versions[2],
        versions[1],
    ]
    assert len(list(kept.iterdir())) == 2

    shown = rig.batchgen("rollback", "batch", cwd=tmp_path).stdout
    assert "1 image is restored" in shown
    assert image(tmp_path) == versions[2]
    assert (kept / "job-000.png~1").read_bytes() == versions[3]
    assert rig.batchgen("verify", "batch", cwd=tmp_path).returncode == 0
    make(served, tmp_path, "four")
    assert image(tmp_path) == versions[2], "the next run left it alone"
    assert len(served.bill()) - before == 4
    rig.judge(tmp_path, served.bill()[before:], finished=True)

    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert image(tmp_path) == versions[3], "twice brings the newer one back"


def test_a_rollback_takes_those_that_are_chosen(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a", "b")
    old = [image(tmp_path, f"job-00{n}.png") for n in (0, 1)]
    make(served, tmp_path, "a2", "b")
    make(served, tmp_path, "a2", "b2")
    new = [image(tmp_path, f"job-00{n}.png") for n in (0, 1)]
    (row,) = rig.query(tmp_path / "batchgen.db", "SELECT max(id) AS id FROM runs")
    rig.batchgen("rollback", "batch", "--run", str(row["id"]), cwd=tmp_path)
    assert [image(tmp_path, f"job-00{n}.png") for n in (0, 1)] == [new[0], old[1]]
    rig.batchgen("rollback", "batch", "--only", "*0", cwd=tmp_path)
    assert [image(tmp_path, f"job-00{n}.png") for n in (0, 1)] == old


def test_image_of_another_format_takes_its_place_back(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "a", options="{output_format: png}")
    old = image(tmp_path)
    make(served, tmp_path, "a", options="{output_format: webp}")
    new = image(tmp_path, "job-000.webp")
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert image(tmp_path) == old
    assert not (tmp_path / "out" / "batch" / "job-000.webp").exists()
    rig.batchgen("verify", "batch", cwd=tmp_path)
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert image(tmp_path, "job-000.webp") == new
    assert not (tmp_path / "out" / "batch" / "job-000.png").exists()


def test_rollback_keeps_the_image_under_another_spelling(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    below = "{dir: out, path: 'x/{{ key }}.{{ ext }}'}"
    images = []
    for prompt, output in (("a", below), ("b", below), ("b", "{dir: out/x}")):
        extra = f"output: {output}\n"
        path = rig.manifest(tmp_path, served.base_url, [prompt], extra=extra)
        rig.batchgen("run", path, cwd=tmp_path)
        images.append((tmp_path / "out/x/job-000.png").read_bytes())
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert (tmp_path / "out/x/job-000.png").read_bytes() == images[0]


def test_rollback_killed_before_the_ledger_write_is_finished(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    make(served, tmp_path, "one")
    old = image(tmp_path)
    make(served, tmp_path, "two")
    new = image(tmp_path)
    out = tmp_path / "out" / "batch"
    # The state after the files were exchanged, and before the ledger was written.
    (out / ".previous" / "job-000.png").write_bytes(new)
    (out / "job-000.png").write_bytes(old)
    rig.batchgen("verify", "batch", cwd=tmp_path, code=1)
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert image(tmp_path) == old
    rig.batchgen("verify", "batch", cwd=tmp_path)


def test_what_is_not_kept_is_said(served: rig.Endpoint, tmp_path: Path) -> None:
    none = "output: {keep_previous: 0}\n"
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=none)
    rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, served.base_url, ["two"], extra=none)
    rig.batchgen("run", path, cwd=tmp_path)
    now = image(tmp_path)
    shown = rig.batchgen("rollback", "batch", cwd=tmp_path, code=1)
    assert "is not kept any more" in shown.stderr
    assert image(tmp_path) == now


def test_keeping_again_after_a_kill_keeps_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    keep(tmp_path, "a.png", count=3)
    keep(tmp_path, "a.png", count=3)
    assert [path.name for path in (tmp_path / ".previous").iterdir()] == ["a.png~1"]
    assert find_kept(tmp_path, "a.png", "0" * 64) is None


def test_a_rollback_never_replaces_the_image_of_another_job(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    def run(*jobs: str) -> None:
        path = rig.manifest(tmp_path, served.base_url, ["x"])
        text = path.read_text(encoding="utf-8")
        head = text[: text.index("jobs:")]
        path.write_text(
            f"{head}jobs:\n" + "".join(f"  - {job}\n" for job in jobs), encoding="utf-8"
        )
        rig.batchgen("run", path, cwd=tmp_path)

    run("{key: a, prompt: one, output: {path: 'x.{{ ext }}', keep_previous: 1}}")
    run("{key: a, prompt: two, output: {path: 'y.{{ ext }}', keep_previous: 1}}")
    run(
        "{key: a, prompt: two, output: {path: 'y.{{ ext }}', keep_previous: 1}}",
        "{key: b, prompt: three, output: {path: 'x.{{ ext }}'}}",
    )
    before = {name: image(tmp_path, name) for name in ("x.png", "y.png")}
    shown = rig.batchgen("rollback", "batch", "--only", "a", cwd=tmp_path, code=1)
    assert "x.png is another image by now" in shown.stderr
    assert {name: image(tmp_path, name) for name in before} == before


def test_keeping_fills_a_gap_that_a_kill_left_and_loses_nothing(tmp_path: Path) -> None:
    kept = tmp_path / ".previous"
    for number in range(4):
        (tmp_path / "a.png").unlink(missing_ok=True)
        (tmp_path / "a.png").write_bytes(b"%d" % number)
        keep(tmp_path, "a.png", count=3)
    # Killed between the shift and the link: the first slot is free, and the others are full.
    (kept / "a.png~1").unlink()
    assert find_kept(tmp_path, "a.png", sha256(b"2").hexdigest()) == kept / "a.png~2"
    keep(tmp_path, "a.png", count=3)
    names = ("a.png~1", "a.png~2", "a.png~3")
    assert [(kept / name).read_bytes() for name in names] == [b"3", b"2", b"1"]


def test_rollback_restores_what_was_there_before(served: rig.Endpoint, tmp_path: Path) -> None:
    """Not the image that a rollback has put aside, though it was made later."""
    make(served, tmp_path, "one")
    one = image(tmp_path)
    make(served, tmp_path, "two")
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    make(served, tmp_path, "three")
    three = image(tmp_path)
    db = tmp_path / "batchgen.db"
    (run,) = rig.query(db, "SELECT max(id) AS id FROM runs")
    with closing(open_for_reading(db)) as conn:
        (made,) = made_images(conn, run["id"], 1)
        assert made.before is not None
        assert made.before.sha256 == sha256(one).hexdigest(), "the report shows what was replaced"
        batch = find_batch(conn, "batch").id
        (shown,) = gallery_images(conn, batch, ImageFilter(), with_before=True)
        assert shown.before == made.before
    rig.batchgen("rollback", "batch", "--run", str(run["id"]), cwd=tmp_path)
    assert image(tmp_path) == one
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert image(tmp_path) == three, "twice brings the newer one back"
    assert rig.batchgen("verify", "batch", cwd=tmp_path).returncode == 0


def test_rollback_finds_the_only_version_that_is_kept(served: rig.Endpoint, tmp_path: Path) -> None:
    make(served, tmp_path, "one", keep_previous=1)
    make(served, tmp_path, "two", keep_previous=1)
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    one = image(tmp_path)
    make(served, tmp_path, "three", keep_previous=1)
    rig.batchgen("rollback", "batch", cwd=tmp_path)
    assert image(tmp_path) == one
