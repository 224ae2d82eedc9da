"""Obstacles at output paths are found without writing, once for each directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from batchgen.errors import SettingsError
from batchgen.output import obstacles as module
from batchgen.output.obstacles import Obstacles
from batchgen.session.preflight import check_disk
from tests.support import rig

NO_ROOT = pytest.mark.skipif(
    not hasattr(os, "seteuid") or os.geteuid() != 0, reason="needs to become another user"
)


@pytest.mark.fault("XA10")
def test_missing_directory_is_usable(tmp_path: Path) -> None:
    assert Obstacles(tmp_path).directory(tmp_path / "out", tmp_path / "out/a/b") is None
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("XA10")
@pytest.mark.parametrize("depth", ["out", "out/a", "out/a/b"])
def test_file_in_place_of_a_directory_is_found(depth: str, tmp_path: Path) -> None:
    (tmp_path / depth).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / depth).write_bytes(b"")
    found = Obstacles(tmp_path).directory(tmp_path / "out", tmp_path / "out/a/b")
    assert found == f"{tmp_path / depth} is a file where a directory is needed"


@pytest.mark.fault("XA10")
def test_symlink_is_an_obstacle_below_the_root_only(tmp_path: Path) -> None:
    (tmp_path / "real/a").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "real")
    (tmp_path / "real/b").symlink_to(tmp_path / "real/a")
    found = Obstacles(tmp_path)
    assert found.directory(tmp_path / "out", tmp_path / "out/a") is None
    assert "is a symbolic link" in str(found.directory(tmp_path / "out", tmp_path / "out/b/c"))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert "broken symbolic link" in str(found.directory(tmp_path / "gone", tmp_path / "gone"))


@NO_ROOT
@pytest.mark.fault("XA10", "W11")
def test_directory_without_permission_is_found(tmp_path: Path) -> None:
    for place in (tmp_path, *list(tmp_path.parents)[:-2]):
        place.chmod(0o755)
    locked = tmp_path / "out/locked"
    locked.mkdir(parents=True)
    (tmp_path / "out").chmod(0o777)
    locked.chmod(0o555)
    os.seteuid(65534)
    try:
        found = Obstacles(tmp_path)
        assert found.directory(tmp_path / "out", tmp_path / "out") is None
        text = found.directory(tmp_path / "out", locked / "deep")
    finally:
        os.seteuid(0)
    assert text == f"{locked}: no permission to create files in it"


@pytest.mark.fault("XA10")
def test_each_directory_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out/a").mkdir(parents=True)
    found = Obstacles(tmp_path)
    assert found.directory(tmp_path / "out", tmp_path / "out/a") is None
    monkeypatch.setattr(
        module, "_directory_obstacle", lambda directory: pytest.fail(str(directory))
    )
    for _ in range(100):
        assert found.directory(tmp_path / "out", tmp_path / "out/a") is None


@pytest.mark.fault("XA10")
def test_too_long_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._path_obstacle(tmp_path, f"a/{'n' * 200}.png") is None
    deep = Path("/", *(["d" * 100] * 40))
    assert "the system takes" in str(module._path_obstacle(deep, "a.png"))
    module._name_bytes.cache_clear()
    monkeypatch.setattr(os, "pathconf", lambda *_: 143)  # as eCryptfs
    try:
        assert "takes 143" in str(module._path_obstacle(tmp_path, f"{'n' * 140}.png"))
    finally:
        module._name_bytes.cache_clear()


@pytest.mark.fault("XA10")
def test_unencodable_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsencode", lambda text: str(text).encode("ascii"))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert "encoding ascii can't hold" in str(module._path_obstacle(tmp_path, "мак.png"))


@pytest.mark.fault("XA10", "W11")
def test_run_without_usable_output_directory_is_refused(tmp_path: Path) -> None:
    with rig.small_disk(tmp_path / "ro", "size=64m,ro"):
        with pytest.raises(SettingsError, match="read-only; nothing was sent"):
            check_disk(tmp_path / "spool", tmp_path, ["ro", "ro/a"], 1)
        check_disk(tmp_path / "spool", tmp_path, ["ro", "out"], 1)
    assert [place.name for place in tmp_path.iterdir()] == ["ro"]
