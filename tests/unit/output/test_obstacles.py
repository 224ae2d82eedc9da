"""Obstacles at output paths are found without writing, once for each directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import SettingsError
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.writer import LedgerWriter
from batchgen.output import obstacles as module
from batchgen.output.obstacles import Obstacles
from batchgen.session.preflight import check_disk
from batchgen.system.threads import in_disk_thread
from tests.support import rig
from tests.support.adapters import JOB

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


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that gets the path of each look on a disk thread."""
    found = list[object]()

    async def counted(function: Callable[..., Any], *args: object) -> Any:
        found.append(args[-1])
        return await in_disk_thread(function, *args)

    monkeypatch.setattr(module, "in_disk_thread", counted)
    return found


@pytest.mark.anyio
@pytest.mark.fault("XA10")
@pytest.mark.parametrize(("is_local", "looks"), [(True, 2), (False, 9)])
async def test_only_local_directories_are_looked_at_at_once(
    is_local: bool, looks: int, hops: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network share may take seconds, in which the event loop must go on."""
    monkeypatch.setattr(module, "is_local", lambda directory: is_local)
    open_for_writing(tmp_path / "l.db").close()
    found, job = Obstacles(tmp_path), replace(JOB, root="out")
    async with LedgerWriter(tmp_path / "l.db") as ledger:
        for number in range(9):
            assert await found.find(ledger, job, f"a/{number}.png") is None
    assert hops == [f"a/{number}.png" for number in range(looks)]


@pytest.mark.anyio
@pytest.mark.fault("XA10")
async def test_a_quick_look_finds_what_a_long_one_does(
    hops: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_local", lambda directory: True)
    open_for_writing(tmp_path / "l.db").close()
    (tmp_path / "out").mkdir()
    found, job = Obstacles(tmp_path), replace(JOB, root="out")
    async with LedgerWriter(tmp_path / "l.db") as ledger:
        for name in ("0.png", "1.png"):
            assert await found.find(ledger, job, name) is None
        (tmp_path / "out/taken.png").write_bytes(b"")
        (tmp_path / "out/link.png").symlink_to("nowhere")
        (tmp_path / "out/free.json").mkdir()
        assert "is not an image of this job" in str(await found.find(ledger, job, "taken.png"))
        assert "is a symbolic link" in str(await found.find(ledger, job, "link.png"))
        described = replace(job, sidecar=True)
        assert "is not a file" in str(await found.find(ledger, described, "free.png"))
        long = f"{'n' * 252}.png"
        assert "a name of 26" in str(await found.find(ledger, job, long))
        del hops[:]
        assert await found.find(ledger, job, "free.png") is None
        assert hops == []
