"""A new output path moves images that are done; nothing is rebought."""

from __future__ import annotations

from pathlib import Path

from tests.support import rig


def moved_manifest(directory: Path, served: rig.Endpoint) -> Path:
    """The same jobs with another place for their images."""
    return rig.manifest(
        directory,
        served.base_url,
        ["one", "two"],
        extra='output: {dir: shop/new, path: "{{ key }}/main.{{ ext }}"}\n',
    )


def test_a_new_output_path_moves_the_images(served: rig.Endpoint, tmp_path: Path) -> None:
    rig.batchgen("run", rig.manifest(tmp_path, served.base_url, ["one", "two"]), cwd=tmp_path)
    old = (tmp_path / "out/batch/job-000.png").read_bytes()
    posts = served.judge("stats")["posts"]
    path = moved_manifest(tmp_path, served)

    planned = rig.batchgen("plan", path, cwd=tmp_path)
    assert "2  done, to be moved" in planned.stdout
    rig.batchgen("run", path, cwd=tmp_path)

    assert served.judge("stats")["posts"] == posts
    assert (tmp_path / "shop/new/job-000/main.png").read_bytes() == old
    assert list((tmp_path / "out/batch").iterdir()) == []
    assert {
        row["path"] for row in rig.query(tmp_path / "batchgen.db", "SELECT path FROM images")
    } == {
        "job-000/main.png",
        "job-001/main.png",
    }
    again = rig.batchgen("plan", path, cwd=tmp_path)
    assert "2  done and unchanged" in again.stdout


def test_a_kill_between_the_move_and_its_record_is_made_good(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    rig.batchgen("run", rig.manifest(tmp_path, served.base_url, ["one", "two"]), cwd=tmp_path)
    path = moved_manifest(tmp_path, served)
    new = tmp_path / "shop/new/job-000/main.png"
    new.parent.mkdir(parents=True)
    (tmp_path / "out/batch/job-000.png").rename(new)

    rig.batchgen("run", path, cwd=tmp_path)

    rows = rig.query(tmp_path / "batchgen.db", "SELECT root, path FROM images ORDER BY path")
    assert [(row["root"], row["path"]) for row in rows] == [
        ("shop/new", "job-000/main.png"),
        ("shop/new", "job-001/main.png"),
    ]


def test_a_file_in_the_way_is_left_alone_and_named(served: rig.Endpoint, tmp_path: Path) -> None:
    rig.batchgen("run", rig.manifest(tmp_path, served.base_url, ["one", "two"]), cwd=tmp_path)
    path = moved_manifest(tmp_path, served)
    taken = tmp_path / "shop/new/job-001/main.png"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"somebody's own")

    done = rig.batchgen("run", path, cwd=tmp_path)

    assert "job-001: not moved from out/batch/job-001.png" in done.stderr
    assert taken.read_bytes() == b"somebody's own"
    assert (tmp_path / "out/batch/job-001.png").exists()
