"""A directory as a store, and the names of output directories."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from batchgen.storage.local import LocalStore
from batchgen.storage.probe import probe
from batchgen.storage.store import StaleObjectError
from batchgen.urls import is_bucket, output_root


def test_conditions_are_honored(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "out")
    first = store.put("a/b.png", b"one", create=True)
    with pytest.raises(FileExistsError):
        store.put("a/b.png", b"two", create=True)
    with pytest.raises(StaleObjectError, match=r"a/b\.png: another program has replaced"):
        store.put("a/b.png", b"two", if_tag="other")
    store.put("a/b.png", b"two", if_tag=first.e_tag)
    assert store.read("a/b.png") == b"two"
    assert store.digest("a/b.png") == hashlib.sha256(b"two").hexdigest()
    assert probe(store).is_safe
    assert [one.name for one in store.list()] == ["a/b.png"]


def test_missing_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.info("a/b") is None
    assert store.digest("a/b") is None
    store.delete("a/b")
    with pytest.raises(FileNotFoundError):
        store.read("a/b")


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "", "a/./b"])
def test_names_do_not_leave_the_directory(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the name of an object"):
        LocalStore(tmp_path).put(name, b"x")


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("out", "out"),
        ("S3://shop/out/", "s3://shop/out"),
        ("gs://shop", "gs://shop"),
        ("file:///srv/my%20images", "/srv/my images"),
    ],
)
def test_output_directories(text: str, root: str) -> None:
    assert output_root(text) == root
    assert is_bucket(root) == root.startswith(("s3:", "gs:"))


@pytest.mark.parametrize(
    "text", ["s3://", "s3://a//b", "s3://a/../b", "file://host/x", "https://a/b", "s3://a/b?c"]
)
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        output_root(text)
