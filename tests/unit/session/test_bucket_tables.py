"""Copies of tables in buckets: fetched in pieces, and kept for those who read them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.errors import ManifestError
from batchgen.manifest.loader import LoadedManifest, load_manifest
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault
from batchgen.session.bucket_tables import with_kept_table, with_table
from batchgen.session.prepare import find_endpoint
from batchgen.storage.local import LocalStore
from batchgen.storage.store import Store, StoreError
from batchgen.storage.stores import Stores

URL = "s3://shop/night/table.csv"


class _Pieces(LocalStore):
    """A store whose objects are not read as a whole."""

    fails = False

    def read(self, name: str) -> bytes:
        raise AssertionError("a table may be larger than the memory")

    def chunks(self, name: str) -> Iterator[bytes]:
        for chunk in super().chunks(name):
            yield chunk[:5]
            if self.fails:
                raise StoreError(5, "not read: reset", name)
            yield chunk[5:]


class _Buckets(Stores):
    """Buckets that are directories."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, dict)
        self.store = _Pieces(directory / "shop")

    def of(self, root: str) -> Store:
        assert root == "s3://shop"
        return self.store

    def write(self, text: str) -> None:
        self.store.put("night/table.csv", text.encode())


@pytest.fixture
def buckets(tmp_path: Path) -> _Buckets:
    found = _Buckets(tmp_path / "buckets")
    found.write("sku\nmug\n")
    return found


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedManifest:
    path = tmp_path / "m.yaml"
    path.write_text(f"provider: local\nrows: {URL}\nprompt: '{{{{ sku }}}}'\n")
    return load_manifest(path)


def skus(loaded: LoadedManifest) -> list[object]:
    return [row.values["sku"] for row in open_rows(URL, loaded.base, copies=loaded.copies)]


def test_older_copy_stays_for_other_readers(
    buckets: _Buckets, loaded: LoadedManifest, tmp_path: Path
) -> None:
    directory = tmp_path / "copies"
    first = with_table(loaded, buckets, directory)
    buckets.write("sku\nbowl\n")
    second = with_table(loaded, buckets, directory)
    assert (skus(first), skus(second)) == (["mug"], ["bowl"])
    yesterday = time.time() - 25 * 3600
    for copy in (first.copies[URL], second.copies[URL]):
        os.utime(copy, (yesterday, yesterday))
    buckets.write("sku\nplate\n")
    third = with_table(loaded, buckets, directory)
    assert list(directory.glob("table-*")) == [third.copies[URL]]


def test_failed_fetch_leaves_the_copy(
    buckets: _Buckets, loaded: LoadedManifest, tmp_path: Path
) -> None:
    directory = tmp_path / "copies"
    before = with_table(loaded, buckets, directory)
    buckets.write("sku\nbowl\n")
    buckets.store.fails = True
    with pytest.raises(ManifestError, match=r"rows: s3://.*: cannot be read: not read: reset"):
        with_table(loaded, buckets, directory)
    assert list(directory.glob("table-*")) == [before.copies[URL]]
    assert skus(with_kept_table(loaded, directory)) == ["mug"]


def test_unchanged_table_is_not_fetched_again(
    buckets: _Buckets, loaded: LoadedManifest, tmp_path: Path
) -> None:
    directory = tmp_path / "copies"
    before = with_table(loaded, buckets, directory)
    buckets.store.fails = True
    assert with_table(loaded, buckets, directory) == before


def test_table_without_a_copy_is_named(loaded: LoadedManifest, tmp_path: Path) -> None:
    kept = with_kept_table(loaded, tmp_path / "copies")
    with pytest.raises(RowsFault, match="no copy of this table is on this machine"):
        skus(kept)


def test_prices_of_a_manifest_need_no_table(
    loaded: LoadedManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(stores: Stores, root: str) -> Store:
        raise AssertionError("no bucket is needed")

    monkeypatch.setattr(Stores, "of", refuse)
    assert find_endpoint(loaded.path, None, None).prepared is not None
