"""`plan --show` and `--sample`: the exact request, without a key or a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import rig

MANIFEST = """\
name: shop
provider: {name: shop, base_url: "https://images.invalid/v1", price: "0.05", api_key_env: NO_KEY}
model: gpt-image-2
options: {size: 1024x1024, output_format: webp}
output: {dir: pics, path: "{{ key }}.{{ ext }}"}
jobs:
  - {key: mug, prompt: "A red mug, \\"best\\" of all"}
  - {key: edit, prompt: Make it blue, images: [photo.png]}
  - {key: mug-2, prompt: A red mug on a table}
  - {key: ship, prompt: Sailing ship in a storm}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    rig.image(tmp_path / "photo.png")
    (tmp_path / "shop.yaml").write_text(MANIFEST, encoding="utf-8")
    return tmp_path


def shown(directory: Path, *arguments: str) -> list[dict[str, object]]:
    text = rig.batchgen("plan", "shop.yaml", *arguments, "--json", cwd=directory).stdout
    return [json.loads(line) for line in text.splitlines()]


def test_show_prints_the_exact_request(shop: Path) -> None:
    (found,) = shown(shop, "--show", "mug")
    request = found["request"]
    assert isinstance(request, dict)
    assert request["url"] == "https://images.invalid/v1/images/generations"
    assert json.loads(request["body"]) == {
        "model": "gpt-image-2",
        "prompt": 'A red mug, "best" of all',
        "n": 1,
        "size": "1024x1024",
        "output_format": "webp",
    }
    assert found["price"] == "0.050000"
    assert found["path"] == "pics/mug.webp"
    text = rig.batchgen("plan", "shop.yaml", "--show", "mug", cwd=shop).stdout
    assert text.startswith("mug: $0.05\n")
    assert str(request["body"]) in text


@pytest.mark.parametrize(
    ("wanted", "extension"), [("jpeg", "jpg"), ("webp", "webp"), (None, "{ext}")]
)
def test_show_prints_the_path_that_the_run_writes(
    served: rig.Endpoint, tmp_path: Path, wanted: str | None, extension: str
) -> None:
    options = "{size: 1024x1024}" if wanted is None else f"{{output_format: {wanted}}}"
    manifest = rig.manifest(tmp_path, served.base_url, ["A mug"], options=options)
    done = rig.batchgen("plan", manifest, "--show", "job-000", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["path"] == f"out/batch/job-000.{extension}"
    rig.batchgen("run", manifest, cwd=tmp_path)
    (image,) = (tmp_path / "out" / "batch").iterdir()
    assert image.suffix == f".{extension}" or wanted is None


def test_show_sends_what_the_run_sends(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, ["A mug", "A bowl"])
    found = rig.batchgen("plan", manifest, "--show", "job-001", "--json", cwd=tmp_path)
    body = json.loads(json.loads(found.stdout)["request"]["body"])
    rig.batchgen("run", manifest, "--only", "job-001", cwd=tmp_path)
    charge = served.bill()[-1]
    assert (charge["model"], charge["prompt"]) == (body["model"], body["prompt"])


def test_show_names_files_in_place_of_their_bytes(shop: Path) -> None:
    (found,) = shown(shop, "--show", "edit")
    request = found["request"]
    assert isinstance(request, dict)
    size = (shop / "photo.png").stat().st_size
    assert request["url"].endswith("/images/edits")
    assert f"<{size:,} bytes: {shop / 'photo.png'}>" in request["body"]
    assert 'name="prompt"\r\n\r\nMake it blue\r\n' in request["body"]


def test_sample_shows_the_most_different_jobs(shop: Path) -> None:
    assert [one["key"] for one in shown(shop, "--sample", "3")] == ["mug", "edit", "ship"]
    assert len(shown(shop, "--sample", "50")) == 4


def test_show_refuses_an_unknown_key(shop: Path) -> None:
    refused = rig.batchgen("plan", "shop.yaml", "--show", "mgu", cwd=shop, code=2)
    assert "plans no job with the key 'mgu'" in refused.stderr


def test_show_and_dry_run_write_nothing(shop: Path) -> None:
    before = sorted(shop.iterdir())
    rig.batchgen("plan", "shop.yaml", "--sample", "2", cwd=shop)
    assert "4  new" in rig.batchgen("run", "shop.yaml", "--dry-run", cwd=shop).stdout
    assert sorted(shop.iterdir()) == before
