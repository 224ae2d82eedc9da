"""Files appear complete under their final name or not at all."""

from __future__ import annotations

import errno
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from batchgen.system.atomic_files import (
    PartFile,
    make_directories,
    make_directory_below,
    make_private_directory,
    rename_durably,
    sync_directory,
)
from tests.support import wire

MEGABYTE = 1024 * 1024


def names(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.anyio
async def test_final_name_appears_only_at_commit(tmp_path: Path) -> None:
    final = tmp_path / "image.png"
    async with PartFile(final) as part:
        await part.write(b"one ")
        await part.flush()
        assert names(tmp_path) == ["image.png.part"]
        await part.write(b"two")
        assert await part.seal(Path.read_bytes) == b"one two"
        assert names(tmp_path) == ["image.png.part"]
        await part.commit()
        assert names(tmp_path) == ["image.png"]
    assert names(tmp_path) == ["image.png"]
    assert final.read_bytes() == b"one two"


@pytest.mark.anyio
@pytest.mark.parametrize("pieces", [[], [b"one ", b"two"], [bytes(MEGABYTE)]])
async def test_content_in_memory_is_that_of_the_file(pieces: list[bytes], tmp_path: Path) -> None:
    async with PartFile(tmp_path / "image.png") as part:
        part.part.write_bytes(b"left by a run that was killed")
        for piece in pieces:
            await part.write(piece)
        path, content = await part.seal_content(lambda path, content: (path, content))
        assert path.read_bytes() == b"".join(pieces)
        assert content == (None if part.part.stat().st_size == MEGABYTE else path.read_bytes())
        await part.commit()
    assert names(tmp_path) == ["image.png"]


@pytest.mark.anyio
async def test_existing_file_stays_until_commit(tmp_path: Path) -> None:
    final = tmp_path / "image.png"
    final.write_bytes(b"old")
    async with PartFile(final) as part:
        await part.write(b"new")
    assert names(tmp_path) == ["image.png"]
    assert final.read_bytes() == b"old"
    async with PartFile(final) as part:
        await part.write(b"new")
        await part.commit()
    assert final.read_bytes() == b"new"


@pytest.mark.anyio
async def test_commit_can_set_the_final_name(tmp_path: Path) -> None:
    async with PartFile(tmp_path / ".job.0") as part:
        await part.write(b"x")
        await part.commit(tmp_path / "mug.webp")
    assert names(tmp_path) == ["mug.webp"]


@pytest.mark.anyio
@pytest.mark.parametrize(("keep", "left"), [(False, []), (True, ["response.part"])])
async def test_error_leaves_a_part_only_with_keep(
    keep: bool, left: list[str], tmp_path: Path
) -> None:
    async def fail() -> None:
        async with PartFile(tmp_path / "response", keep=keep) as part:
            await part.write(b"half")
            await part.flush()
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert names(tmp_path) == left
    assert [(tmp_path / name).read_bytes() for name in left] == [b"half"] * len(left)


@pytest.mark.anyio
async def test_stale_part_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "response.part").write_bytes(b"of a killed run, and longer")
    async with PartFile(tmp_path / "response") as part:
        await part.write(b"x")
        await part.commit()
    assert (tmp_path / "response").read_bytes() == b"x"


@pytest.mark.anyio
@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
async def test_part_has_its_mode_from_the_start(tmp_path: Path) -> None:
    async with PartFile(tmp_path / "response", mode=0o600) as part:
        await part.flush()
        assert part.part.stat().st_mode & 0o777 == 0o600
        await part.commit()
    assert (tmp_path / "response").stat().st_mode & 0o777 == 0o600


@pytest.mark.fault("D12")
@pytest.mark.anyio
@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this platform cannot refuse links")
async def test_symlink_at_the_part_name_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "image.png.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link") as caught:
        async with PartFile(tmp_path / "image.png") as part:
            await part.commit()
    assert caught.value.errno == errno.ELOOP
    assert victim.read_bytes() == b"precious"


@pytest.mark.fault("D17")
@pytest.mark.anyio
async def test_other_name_of_a_left_part_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "image.png.part").write_bytes(b"placed")
    os.link(tmp_path / "image.png.part", tmp_path / "placed.png")
    async with PartFile(tmp_path / "image.png") as part:
        await part.write(b"new")
        await part.commit()
    assert (tmp_path / "placed.png").read_bytes() == b"placed"
    assert (tmp_path / "image.png").read_bytes() == b"new"


@pytest.mark.anyio
async def test_symlink_at_the_final_name_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "image.png").symlink_to(victim)
    async with PartFile(tmp_path / "image.png") as part:
        await part.write(b"new")
        await part.commit()
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "image.png").is_symlink()


@pytest.mark.anyio
async def test_cancelled_write_leaves_no_file(
    tmp_path: Path,
) -> None:
    """Cancel after each number of steps: while opening, writing, syncing and renaming."""

    async def write(final: Path) -> None:
        async with PartFile(final) as part:
            for _ in range(3):
                await part.write(bytes(MEGABYTE))
            await part.seal(Path.stat)
            await anyio.lowlevel.checkpoint()
            await part.commit()

    await write(tmp_path / "warm")
    (tmp_path / "warm").unlink()
    before = wire.open_files()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for steps in range(50):
            final = tmp_path / f"{steps}.png"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write, final)
                for _ in range(steps**2):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            if final.exists():
                assert final.stat().st_size == 3 * MEGABYTE
                final.unlink()
            assert names(tmp_path) == []
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    assert wire.open_files() <= before


@pytest.mark.anyio
@pytest.mark.parametrize("step", ["write", "seal", "check"])
async def test_started_step_ends_before_close(step: str, tmp_path: Path) -> None:
    before = wire.open_files()
    with anyio.CancelScope() as scope:
        async with PartFile(tmp_path / "image.png") as part:
            if step == "write":
                scope.cancel()
            await part.write(bytes(MEGABYTE))
            assert part.part.stat().st_size == MEGABYTE
            if step == "seal":
                scope.cancel()
            await part.seal(Path.stat)
            if step == "check":
                scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert wire.open_files() == before
    assert names(tmp_path) == []


@pytest.mark.anyio
@pytest.mark.parametrize("elsewhere", [False, True], ids=["a second name", "a copy"])
@pytest.mark.parametrize("commit", [False, True])
async def test_adopt_leaves_its_source_unchanged(
    elsewhere: bool, commit: bool, tmp_path: Path
) -> None:
    final = tmp_path / "image.png"
    with another_file(Path("/dev/shm") if elsewhere else tmp_path, bytes(MEGABYTE)) as source:
        if elsewhere and shares_file_system(source, tmp_path):
            pytest.skip("one file system only")
        async with PartFile(final) as part:
            part.part.write_bytes(b"left by a run that was killed")
            part.adopt(source)
            assert await part.seal(Path.read_bytes) == bytes(MEGABYTE)
            assert part.part.samefile(source) is not elsewhere
            if commit:
                await part.commit()
        assert source.read_bytes() == bytes(MEGABYTE)
        source.write_bytes(b"")  # shows whether there are two files
        others = [] if elsewhere else [source.name]
        assert sorted(names(tmp_path)) == others + ["image.png"] * commit
        assert not commit or final.stat().st_size == (MEGABYTE if elsewhere else 0)


def test_rename_onto_itself_leaves_no_part(tmp_path: Path) -> None:
    part, final = tmp_path / "a.png.part", tmp_path / "a.png"
    final.write_bytes(b"image")
    part.hardlink_to(final)
    rename_durably(part, final)
    assert names(tmp_path) == ["a.png"]
    assert final.read_bytes() == b"image"


def shares_file_system(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


@contextmanager
def another_file(directory: Path, content: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=directory, prefix="a-source-") as file:
        Path(file.name).write_bytes(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(file.name).chmod(0o666 & ~umask)  # as a file that is created there
        yield Path(file.name)


@pytest.mark.fault("D01")
@pytest.mark.anyio
async def test_full_disk_raises_and_leaves_no_open_file(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not os.access(full, os.W_OK):
        pytest.skip("this platform has no /dev/full")
    before = wire.open_files()

    async def write(size: int) -> None:
        part = PartFile(tmp_path / "image.png", keep=True)
        part.part = full
        async with part:
            await part.write(bytes(size))
            await part.commit()

    for size in (10, MEGABYTE):
        with pytest.raises(OSError, match="No space left"):
            await write(size)
        assert wire.open_files() == before
    assert names(tmp_path) == []


@pytest.mark.anyio
async def test_missing_directory_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with PartFile(tmp_path / "missing" / "image.png") as part:
            await part.commit()


COMMIT = """
import sys
from pathlib import Path
import anyio
from batchgen.system.atomic_files import PartFile, make_directory_below

async def main():
    root = Path(sys.argv[1])
    make_directory_below(root / "out", root / "out" / "mugs")
    async with PartFile(root / "out" / "mugs" / "1.png") as part:
        await part.write(b"x")
        await part.commit()

anyio.run(main)
"""


@pytest.mark.fault("D19")
def test_every_step_is_durable_before_the_next(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace to see the order of the system calls")
    log = tmp_path / "calls"
    calls = "mkdir,mkdirat,fsync,fdatasync,rename,renameat,renameat2"
    traced = [strace, "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={calls}"]
    work = tmp_path / "work"
    work.mkdir()
    try:
        subprocess.run(
            [*traced, sys.executable, "-c", COMMIT, str(work)],
            check=True,
            capture_output=True,
            timeout=60,
        )
    except subprocess.CalledProcessError as exc:
        if b"ptrace" in exc.stderr:
            pytest.skip("strace may not trace here")
        raise
    seen = []
    for line in log.read_text().splitlines():
        if str(work) in line and line.rstrip().endswith("= 0"):
            call = re.sub(r"^\d+ +", "", line).partition("(")[0]
            last = re.findall(rf"{re.escape(str(work))}[^\s\">,]*", line)[-1]
            seen.append((re.sub(r"at2?$", "", call), last.removeprefix(str(work))))
    assert seen == [
        ("mkdir", "/out"),
        ("fsync", ""),
        ("mkdir", "/out/mugs"),
        ("fsync", "/out"),
        ("fsync", "/out/mugs/1.png.part"),
        ("rename", "/out/mugs/1.png"),
        ("fsync", "/out/mugs"),
    ]


def test_rename_durably_replaces_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"x")
    rename_durably(tmp_path / "a.part", tmp_path / "a")
    sync_directory(tmp_path)
    assert names(tmp_path) == ["a"]


def test_missing_parents_are_created(tmp_path: Path) -> None:
    root = tmp_path / "out" / "catalog"
    for _ in range(2):
        make_directory_below(root, root / "mugs" / "blue")
    make_directory_below(root, root)
    assert (root / "mugs" / "blue").is_dir()


@pytest.mark.fault("D12")
@pytest.mark.parametrize("depth", ["a", "a/b", "a/b/c"])
def test_symlink_below_the_root_is_refused(depth: str, tmp_path: Path) -> None:
    root, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    link = root / depth
    link.parent.mkdir(parents=True)
    link.symlink_to(outside, target_is_directory=True)
    for directory in (link, link / "deeper"):
        with pytest.raises(OSError, match="symbolic link inside the output directory") as caught:
            make_directory_below(root, directory)
        assert caught.value.errno == errno.ELOOP
    assert names(outside) == []


def test_root_can_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk", target_is_directory=True)
    make_directory_below(tmp_path / "out", tmp_path / "out" / "mugs")
    assert (tmp_path / "disk" / "mugs").is_dir()


def test_directory_outside_the_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="subpath"):
        make_directory_below(tmp_path / "out", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_file_among_the_parents_raises(tmp_path: Path) -> None:
    (tmp_path / "mugs").write_bytes(b"x")
    with pytest.raises(FileExistsError):
        make_directory_below(tmp_path, tmp_path / "mugs")
    with pytest.raises(OSError, match="mugs"):
        make_directory_below(tmp_path, tmp_path / "mugs" / "blue")


def test_dangling_symlink_raises(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "missing")
    with pytest.raises(FileExistsError):
        make_directories(tmp_path / "out")
    with pytest.raises(FileExistsError):
        make_directories(tmp_path / "out" / "mugs")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_mode_applies_to_the_last_directory_only(tmp_path: Path) -> None:
    make_directories(tmp_path / "state" / "spool", mode=0o700)
    assert (tmp_path / "state" / "spool").stat().st_mode & 0o777 == 0o700
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.anyio
@pytest.mark.fault("XC13")
async def test_adopt_copies_if_permissions_differ(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"image")
    source.chmod(0o640)
    async with PartFile(tmp_path / "a.png") as part:
        part.adopt(source)
        await part.commit()
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.png").read_bytes() == b"image"
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert source.stat().st_mode & 0o777 == 0o640
    assert sorted(names(tmp_path)) == ["a.png", "plain", "source"]


_ACL_OF_1234 = bytes.fromhex(
    "02000000 01000700ffffffff 02000600d2040000 04000500ffffffff 10000700ffffffff 20000500ffffffff"
)
"""user::rwx, user:1234:rw-, group::r-x, mask::rwx, other::r-x"""


@pytest.mark.anyio
@pytest.mark.fault("XC13")
async def test_adopted_part_has_the_acl_of_its_directory(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"image")
    out = tmp_path / "out"
    out.mkdir()
    try:
        os.setxattr(out, "system.posix_acl_default", _ACL_OF_1234)
    except (OSError, AttributeError) as exc:
        pytest.skip(f"no ACL here: {exc}")
    async with PartFile(out / "a.png") as part:
        part.adopt(tmp_path / "source")
        await part.commit()
    (out / "plain").touch()
    acls = {os.getxattr(out / name, "system.posix_acl_access") for name in ("a.png", "plain")}
    assert len(acls) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_private_directory_is_closed_and_ignored_by_git(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        make_private_directory(tmp_path / "a" / "spool")
        make_private_directory(tmp_path / "a" / "spool")
    finally:
        os.umask(before)
    ignore = tmp_path / "a" / "spool" / ".gitignore"
    assert ignore.read_text() == "*\n"
    assert ignore.stat().st_mode & 0o777 == 0o600
    assert ignore.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~umask


def test_private_directory_keeps_what_the_user_made_of_it(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(0o755)
    (directory / ".gitignore").write_text("!*\n")
    make_private_directory(directory)
    assert (directory / ".gitignore").read_text() == "!*\n"
    assert directory.stat().st_mode & 0o777 == 0o755
