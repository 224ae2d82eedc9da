"""Paths of reference images in the ledger: what moves with it, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchgen.ledger.reference_paths import ReferencePaths, reference_path
from tests.support.rig import planned_job


def stored(path: Path | str, base: Path, ledger: Path) -> str:
    (image,) = ReferencePaths(base, ledger).stored(planned_job(images=(str(path),))).images
    return image


@pytest.mark.parametrize("ledger", ["shop/batchgen.db", "ledgers/night.db", "night.db"])
@pytest.mark.parametrize("name", ["mug.png", "photos/mug.png", "../photos/mug.png"])
def test_a_path_of_the_manifest_moves_with_it(name: str, ledger: str, tmp_path: Path) -> None:
    base = tmp_path / "shop"
    text = stored(base / name, base, tmp_path / ledger)
    assert not text.startswith("/")
    moved = tmp_path / "other" / "place"
    found = reference_path(text, (moved / ledger).parent)
    assert os.path.normpath(found) == os.path.normpath(moved / "shop" / name)


def test_a_copy_next_to_the_ledger_moves_with_it(tmp_path: Path) -> None:
    copy = tmp_path / "night.db.references" / "1.png"
    text = stored(copy, tmp_path / "shop", tmp_path / "night.db")
    assert text == "night.db.references/1.png"
    assert reference_path(text, tmp_path) == str(copy)


@pytest.mark.parametrize("path", ["/mnt/photos/mug.png", "https://shop.example/mug.png"])
def test_what_is_elsewhere_does_not_move(path: str, tmp_path: Path) -> None:
    assert stored(path, tmp_path, tmp_path / "night.db") == path
    assert reference_path(path, tmp_path / "moved") == path


def test_base_reached_by_a_link_is_found_without_the_link(tmp_path: Path) -> None:
    shop, link = tmp_path / "shop", tmp_path / "links" / "shop"
    shop.mkdir()
    link.parent.mkdir()
    link.symlink_to(shop)
    text = stored(link / "../photos/mug.png", link, shop / "batchgen.db")
    assert text == "../photos/mug.png"
    assert reference_path(text, shop) == str(tmp_path / "photos" / "mug.png")
