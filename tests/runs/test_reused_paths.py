"""A path that another job gets: no job takes the other's file for its own image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import rig

MANIFEST = """\
name: batch
provider: {{name: local, base_url: {base_url}}}
rows: rows.csv
key: "{{{{ key }}}}"
prompt: "{{{{ key }}}} on a table"
options: {{size: 1024x640}}
output: {{path: "{{{{ file }}}}.{{{{ ext }}}}", sidecar: true}}
"""


class Shop:
    """A table whose keys and file names change."""

    def __init__(self, directory: Path, served: rig.Endpoint) -> None:
        self.directory = directory
        self.served = served
        self.before = len(served.bill())
        self.path = directory / "batch.yaml"
        self.path.write_text(MANIFEST.format(base_url=served.base_url), encoding="utf-8")

    def run(self, files: Mapping[str, str], *options: str, code: int = 0) -> str:
        """Run with these keys and their file names, and two more rows."""
        rows = "".join(f"{key},{file}\n" for key, file in {**files, "y": "y", "z": "z"}.items())
        (self.directory / "rows.csv").write_text(f"key,file\n{rows}", encoding="utf-8")
        done = rig.batchgen("run", self.path, *options, cwd=self.directory, code=code)
        return done.stdout + done.stderr

    def image(self, name: str) -> bytes:
        return (self.directory / f"out/batch/{name}.png").read_bytes()

    def verify(self, code: int = 0, *options: str) -> str:
        return rig.batchgen("verify", "batch", *options, cwd=self.directory, code=code).stdout

    def bought(self) -> int:
        return len(self.served.bill()) - self.before


@pytest.fixture
def shop(tmp_path: Path, served: rig.Endpoint) -> Shop:
    return Shop(tmp_path, served)


def test_key_that_returns_gets_its_own_image_back(shop: Shop) -> None:
    shop.run({"a": "x"})
    of_a = shop.image("x")
    shop.run({"b": "x"}, "--overwrite")
    of_b = shop.image("x")
    assert of_a != of_b
    for key, own in (("a", of_a), ("b", of_b), ("a", of_a)):
        shop.run({key: "x"})
        assert shop.image("x") == own
        assert "all as they were saved" in shop.verify()
        sidecar = shop.directory / "out/batch/x.json"
        assert not sidecar.exists() or f'"key": "{key}"' in sidecar.read_text(encoding="utf-8")
    assert shop.bought() == 4


@pytest.mark.parametrize("other", [{}, {"b": "x"}, {"b": "x3"}], ids=["gone", "stays", "moves"])
def test_returning_image_moves_without_the_file_of_another_job(
    shop: Shop, other: dict[str, str]
) -> None:
    shop.run({"a": "x"})
    of_a = shop.image("x")
    shop.run({"b": "x"}, "--overwrite")
    of_b = shop.image("x")
    shop.run({"a": "x2", **other})
    assert shop.image("x2") == of_a
    if other:
        assert shop.image(other["b"]) == of_b
        assert "all as they were saved" in shop.verify()
    assert shop.bought() == 4


def test_keys_that_exchange_paths_on_return_keep_images(shop: Shop) -> None:
    shop.run({"a": "x"})
    of_a = shop.image("x")
    shop.run({"b": "x"}, "--overwrite")
    of_b = shop.image("x")
    shop.run({"a": "x", "b": "x2"})
    assert (shop.image("x"), shop.image("x2")) == (of_a, of_b)
    assert "all as they were saved" in shop.verify()


@pytest.mark.parametrize(("name", "other"), [("x", {}), ("x2", {"b": "x"})], ids=["same", "new"])
def test_returning_image_that_is_gone_is_reported_as_missing(
    shop: Shop, name: str, other: dict[str, str]
) -> None:
    shop.run({"a": "x"})
    of_a = shop.image("x")
    (shop.directory / "out/batch/x.png").unlink()
    (shop.directory / "out/batch/x.json").unlink()
    shop.run({"b": "x"})
    of_b = shop.image("x")
    assert "1 saved image is missing" in shop.run({"a": name, **other}, code=1)
    if other:
        assert shop.image("x") == of_b
    assert f"missing: out/batch/{name}.png (as a)" in shop.verify(1, "--repair")
    shop.run({"a": name, **other})
    assert shop.image(name) == of_a
    kept = rig.content(shop.directory / "out/batch").values()
    assert of_b in kept, "the image of the other job is kept"
    assert shop.bought() == 4


def test_equal_images_exchange_their_paths(shop: Shop) -> None:
    text = shop.path.read_text(encoding="utf-8").replace("{{ key }} on", "A mug on")
    shop.path.write_text(f"{text}share: true\n", encoding="utf-8")
    shop.run({"a": "x1", "b": "x2"})
    shop.run({"a": "x2", "b": "x1"})
    assert shop.image("x1") == shop.image("x2")
    assert "all as they were saved" in shop.verify()
    assert not (shop.directory / "out/batch/.moving").exists()
    assert shop.bought() == 1
