"""Renames that never replace an existing file, on every kind of file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.system import claiming
from batchgen.system.claiming import claim, replace
from tests.support import rig

WAYS = [claiming.rename_exclusively, claiming.link_and_unlink, claiming.reserve_and_rename]


def refuse(number: int) -> Callable[[Path, Path], None]:
    def way(source: Path, name: Path) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(name))

    return way


@pytest.fixture(params=range(len(WAYS)), ids=[way.__name__ for way in WAYS])
def only_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not support the earlier methods."""
    for way in WAYS[: request.param]:
        monkeypatch.setattr(claiming, way.__name__, refuse(errno.EINVAL))


@pytest.mark.fault("XA3")
@pytest.mark.usefixtures("only_way")
def test_claim_renames_to_a_free_name(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"new")
    claim(tmp_path / "part", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.fault("XA3")
@pytest.mark.usefixtures("only_way")
@pytest.mark.parametrize("taken", ["file", "link", "dangling", "directory"])
def test_claim_refuses_a_taken_name(taken: str, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"new")
    (tmp_path / "other").write_bytes(b"theirs")
    name = tmp_path / "a.png"
    if taken == "file":
        name.write_bytes(b"theirs")
    elif taken == "directory":
        name.mkdir()
    else:
        name.symlink_to(tmp_path / ("other" if taken == "link" else "nowhere"))
    with pytest.raises(FileExistsError):
        claim(tmp_path / "part", name)
    assert (tmp_path / "part").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"theirs"
    assert name.is_dir() or name.is_symlink() or name.read_bytes() == b"theirs"


@pytest.mark.fault("XA3")
@pytest.mark.parametrize("move", [claim, replace])
def test_move_across_file_systems_copies(
    move: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    (tmp_path / "part").write_bytes(b"new")
    with rig.small_disk(tmp_path / "disk", "size=1m") as disk:
        move(tmp_path / "part", disk / "a.png")
        assert (disk / "a.png").read_bytes() == b"new"
        assert [one.name for one in disk.iterdir()] == ["a.png"]
        assert not (tmp_path / "part").exists()


@pytest.mark.fault("XA3")
def test_move_to_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(bytes(1 << 20))
    with rig.small_disk(tmp_path / "disk", "size=64k") as disk:
        with pytest.raises(OSError, match="No space left"):
            claim(tmp_path / "part", disk / "a.png")
        assert [one.name for one in disk.iterdir()] == []
        assert (tmp_path / "part").stat().st_size == 1 << 20


def test_taken_name_on_other_file_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"new")
    with rig.small_disk(tmp_path / "disk", "size=1m") as disk:
        (disk / "a.png").write_bytes(b"theirs")
        with pytest.raises(FileExistsError):
            claim(tmp_path / "part", disk / "a.png")
        assert (disk / "a.png").read_bytes() == b"theirs"
        assert [one.name for one in disk.iterdir()] == ["a.png"]
        assert (tmp_path / "part").exists()


def test_link_gives_a_second_name(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"new")
    assert claiming.link(tmp_path / "part", tmp_path / "a.png")
    assert os.path.samestat((tmp_path / "part").stat(), (tmp_path / "a.png").stat())
    (tmp_path / "b.png").symlink_to("nowhere")
    for name in ("a.png", "b.png"):
        with pytest.raises(FileExistsError):
            claiming.link(tmp_path / "part", tmp_path / name)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV])
def test_file_system_without_links_is_said(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "link", refuse(number))
    assert not claiming.link(tmp_path / "part", tmp_path / "a.png")


def test_full_disk_is_not_a_file_system_without_links(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        claiming.link(tmp_path / "part", tmp_path / "a.png")
