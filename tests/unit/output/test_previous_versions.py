"""Previous versions and edited files are kept under names that nothing else has."""

from __future__ import annotations

import errno
import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.output import previous_versions
from batchgen.output.previous_versions import find_kept, keep, keep_edited, put_back
from batchgen.planning.naming import EXT_MARK, collision_key, final_path, output_path

NAMES = st.text("ab12~.-/_ edit", min_size=1, max_size=12)


def hash_of(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.mark.fault("XA9")
def test_versions_of_two_jobs_never_collide(tmp_path: Path) -> None:
    for name in ("v1.png", "v1.2.png"):
        (tmp_path / name).write_bytes(name.encode())
        keep(tmp_path, name, count=2)
    for edition in (b"2", b"3"):
        (tmp_path / "v1.png").unlink()
        (tmp_path / "v1.png").write_bytes(edition)
        keep(tmp_path, "v1.png", count=2)
    kept = find_kept(tmp_path, "v1.2.png", hash_of(b"v1.2.png"))
    assert kept == tmp_path / ".previous/v1.2.png~1"


@pytest.mark.fault("XA9")
@given(one=NAMES, other=NAMES)
def test_kept_names_differ_where_output_paths_do(one: str, other: str) -> None:
    try:
        paths = [output_path(f"{text}.{EXT_MARK}") for text in (one, other)]
    except ValueError:
        return
    finals = [final_path(path, "png") for path in paths]
    if len({collision_key("out", path) for path in paths}) < 2:
        return
    kept = [
        {f"{previous_versions._history_path(path)}{suffix}" for suffix in ("~1", "~2", "~edited1")}
        for path in finals
    ]
    assert not kept[0] & kept[1]
    directories = {
        str(parent) for path in finals for parent in previous_versions._history_path(path).parents
    }
    assert not directories & (kept[0] | kept[1])


@pytest.mark.fault("XA9")
@pytest.mark.parametrize("name", ["a.png", "a.2.png"])
def test_versions_with_old_names_are_found(name: str, tmp_path: Path) -> None:
    (tmp_path / ".previous").mkdir()
    (tmp_path / ".previous" / name).write_bytes(b"old")
    assert find_kept(tmp_path, "a.png", hash_of(b"old")) == tmp_path / ".previous" / name
    put_back(tmp_path, "a.png", hash_of(b"old"))
    assert (tmp_path / "a.png").read_bytes() == b"old"


@pytest.mark.fault("XA8")
def test_all_edited_files_are_kept(tmp_path: Path) -> None:
    for edition in (b"1", b"2", b"3"):
        (tmp_path / "a.png").write_bytes(edition)
        keep_edited(tmp_path, "a.png")
        assert not (tmp_path / "a.png").exists()
    for number, edition in enumerate((b"1", b"2", b"3"), 1):
        assert (tmp_path / f".previous/a.png~edited{number}").read_bytes() == edition
        assert find_kept(tmp_path, "a.png", hash_of(edition)) is not None


def test_version_is_copied_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a.png").write_bytes(b"one")
    keep(tmp_path, "a.png", count=1)
    assert [one.name for one in (tmp_path / ".previous").iterdir()] == ["a.png~1"]
    assert (tmp_path / ".previous/a.png~1").read_bytes() == b"one"


def test_failed_copy_leaves_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    (tmp_path / "a.png").write_bytes(b"one")
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        keep(tmp_path, "a.png", count=1)
    assert [one.name for one in (tmp_path / ".previous").iterdir()] == []
    assert (tmp_path / "a.png").read_bytes() == b"one"
