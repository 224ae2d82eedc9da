"""The files of a batch compared with its ledger, and what can be repaired for free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import rig


def verify(directory: Path, *options: str, code: int) -> list[dict[str, Any]]:
    done = rig.batchgen("verify", "batch", "--json", *options, cwd=directory, code=code)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_files_that_are_as_they_were_saved_are_no_news(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    extra = "output: {keep_previous: true}\n"
    path = rig.manifest(tmp_path, served.base_url, ["one", "two"], extra=extra)
    rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, served.base_url, ["one", "two, again"], extra=extra)
    rig.batchgen("run", path, cwd=tmp_path)
    assert verify(tmp_path, code=0) == []
    text = rig.batchgen("verify", "batch", cwd=tmp_path).stdout
    assert "batch: 2 images, all as they were saved" in text


@pytest.mark.fault("D16")
def test_what_is_missing_or_changed_is_had_again_for_nothing(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two", "three"])
    rig.batchgen("run", path, cwd=tmp_path)
    out = tmp_path / "out" / "batch"
    whole = {file.name: file.read_bytes() for file in out.iterdir()}
    (out / "job-000.png").unlink()
    (out / "job-001.png").write_bytes(whole["job-001.png"][:-1] + b"\0")
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    bought = len(served.bill())

    found = verify(tmp_path, code=1)
    assert [(one["finding"], one["key"], one["downloadable"]) for one in found] == [
        ("missing", "job-000", True),
        ("changed", "job-001", True),
        ("foreign", None, False),
    ]
    text = rig.batchgen("verify", "batch", "--repair", "--changed", cwd=tmp_path, code=1).stdout
    assert "2 are due again; `batchgen resume batch` downloads them at no charge" in text
    rig.batchgen("resume", "batch", cwd=tmp_path)
    assert {file.name: file.read_bytes() for file in out.glob("*.png")} == whole
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert len(served.bill()) == bought
    assert [one["finding"] for one in verify(tmp_path, code=0)] == ["foreign"]
    rig.judge(tmp_path, served.bill()[bought - 3 :], finished=True)


def test_sidecar_of_an_image_that_is_due_again_is_not_foreign(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    extra = "output: {sidecar: true}\n"
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=extra)
    rig.batchgen("run", path, cwd=tmp_path)
    (tmp_path / "out" / "batch" / "job-000.png").unlink()
    verify(tmp_path, "--repair", code=1)
    assert (tmp_path / "out" / "batch" / "job-000.json").exists()
    assert verify(tmp_path, code=0) == []


@pytest.mark.fault("D16")
def test_image_that_came_inline_is_gone_for_good_and_says_so(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--response", "b64_json") as inline:
        path = rig.manifest(tmp_path, inline.base_url, ["one"])
        rig.batchgen("run", path, cwd=tmp_path)
        (tmp_path / "out" / "batch" / "job-000.png").unlink()
        text = rig.batchgen("verify", "batch", "--repair", cwd=tmp_path, code=1).stdout
        assert "1 are gone for good" in text
        again = "`batchgen run batch.yaml --refresh always --only job-000` buys one again"
        assert again in text
        assert rig.status(tmp_path)["jobs"]["done"] == 1
        rig.batchgen("run", path, "--refresh", "always", "--only", "job-000", cwd=tmp_path)
        assert verify(tmp_path, code=0) == []
        assert len(inline.bill()) == 2


@pytest.mark.fault("D16")
def test_images_of_other_batches_in_a_directory_are_not_foreign(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    """A person may remove what is foreign, so a paid image of this ledger never is."""
    lists = ("--db", tmp_path / "batchgen.db")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for name, directory, out in (("mugs", "", "out"), ("cups", "sub", "../link/cups")):
        place = tmp_path / directory
        extra = f"output: {{dir: {out}, sidecar: true}}\n"
        manifest = rig.manifest(place, served.base_url, [name], name=name, extra=extra)
        manifest.write_text(manifest.read_text().replace("job-000", f"{name}-1"))
        rig.batchgen("run", manifest, *lists, cwd=tmp_path)
    (tmp_path / "out" / "cups" / "notes.json").write_text("{}", encoding="utf-8")
    (tmp_path / "out" / "cups" / "mugs-1.json").write_text("{}", encoding="utf-8")
    for name in ("mugs", "cups"):
        shown = rig.batchgen("verify", name, "--json", *lists, cwd=tmp_path, code=0).stdout
        found = [json.loads(line) for line in shown.splitlines()]
        assert {one["finding"] for one in found} == {"foreign"}
        assert {Path(one["path"]).name for one in found} == {"notes.json", "mugs-1.json"}
