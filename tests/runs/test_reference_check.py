"""A reference image that changes after the plan is never sent with the old fingerprint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from batchgen.api import Batch
from batchgen.errors import ExitCode
from batchgen.planning.reference_images import digest_of
from batchgen.providers.adapters.multipart import FilePiece
from tests.support import canary, rig

SWITCHES = ()


@pytest.fixture
def shop(tmp_path: Path, served: rig.Endpoint) -> Path:
    """A manifest of three products with a photo each; two photos have the same size."""
    for sku in "abc":
        rig.image(tmp_path / f"{sku}.png", "red")
    (tmp_path / "p.csv").write_text("sku\na\nb\nc\n", encoding="utf-8")
    path = tmp_path / "batch.yaml"
    path.write_text(
        f"provider: {{name: local, base_url: {served.base_url!r},"
        f" api_key_env: {canary.VARIABLE}}}\n"
        "options: {size: 1024x640}\nrows: p.csv\nprompt: photo of {{ sku }}\n"
        "images: ['{{ sku }}.png']\n",
        encoding="utf-8",
    )
    return path


def run_with_a_change(
    path: Path, change: Callable[[], object]
) -> tuple[list[str], ExitCode | None]:
    """Plan, change files, then send; the keys of the results and the exit code."""

    async def run() -> tuple[list[str], ExitCode | None]:
        async with Batch(path) as batch:
            change()
            keys = sorted([result.key async for result in batch])
            return keys, batch.exit_code

    with pytest.MonkeyPatch.context() as patch:
        for name, value in rig.environment().items():
            patch.setenv(name, value)
        return anyio.run(run)


def states(directory: Path) -> dict[str, str]:
    rows = rig.query(directory / "batchgen.db", "SELECT key, state FROM jobs")
    return {row["key"]: row["state"] for row in rows}


@pytest.mark.fault("XA13")
def test_replaced_photo_gives_its_job_back(shop: Path, served: rig.Endpoint) -> None:
    directory, before = shop.parent, len(served.bill())
    keys, code = run_with_a_change(shop, lambda: rig.image(directory / "b.png", "blue"))
    assert (keys, code) == (["a", "c"], ExitCode.UNFINISHED)
    assert states(directory) == {"a": "done", "b": "pending", "c": "done"}
    assert len(served.bill()) - before == 2
    done = rig.batchgen("resume", "batch", cwd=directory, code=1)
    assert "b: pending: a reference image changed since the plan" in done.stderr
    assert len(served.bill()) - before == 2
    rig.batchgen("run", shop, cwd=directory)
    rig.batchgen("run", shop, cwd=directory)
    assert set(states(directory).values()) == {"done"}
    bill = served.bill()[before:]
    assert len(bill) == 3
    rig.judge(directory, bill, finished=True)


@pytest.mark.fault("XA13")
def test_photo_changed_back_is_paid_once(shop: Path, served: rig.Endpoint) -> None:
    directory, before = shop.parent, len(served.bill())
    original = (directory / "b.png").read_bytes()
    run_with_a_change(shop, lambda: rig.image(directory / "b.png", "blue"))
    (directory / "b.png").write_bytes(original)
    rig.batchgen("resume", "batch", cwd=directory)
    rig.batchgen("run", shop, cwd=directory)
    assert len(served.bill()) - before == 3


def test_same_size_and_time_do_not_hide_a_change(shop: Path, served: rig.Endpoint) -> None:
    photo, before = shop.parent / "b.png", len(served.bill())
    stat = photo.stat()

    def change() -> None:
        content = bytearray(photo.read_bytes())
        content[-20] ^= 1
        photo.write_bytes(content)
        os.utime(photo, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    keys, _ = run_with_a_change(shop, change)
    assert photo.stat().st_size == stat.st_size
    assert keys == ["a", "c"]
    assert len(served.bill()) - before == 2


def test_vanished_photo_gives_its_job_back(shop: Path, served: rig.Endpoint) -> None:
    directory, before = shop.parent, len(served.bill())
    keys, code = run_with_a_change(shop, (directory / "b.png").unlink)
    assert (keys, code) == (["a", "c"], ExitCode.UNFINISHED)
    assert states(directory)["b"] == "pending"
    rig.batchgen("run", shop, cwd=directory, code=1)
    assert states(directory)["b"] == "failed"
    assert len(served.bill()) - before == 2


@pytest.mark.parametrize("base64", [False, True])
@pytest.mark.parametrize("size", [100, 600_000])
def test_end_of_a_changed_file_is_never_sent(tmp_path: Path, size: int, *, base64: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * size)
    piece = FilePiece.of(path, base64=base64)
    sent = bytearray()

    async def send() -> None:
        sent.clear()
        async for chunk in piece.stream():
            sent.extend(chunk)

    anyio.run(send)
    assert len(sent) == piece.length
    path.write_bytes(b"x" * (size - 1) + b"y")
    with pytest.raises(OSError, match="changed while it was sent"):
        anyio.run(send)
    assert len(sent) < piece.length


def test_digest_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    first = digest_of(path)
    other = tmp_path / "b"
    other.write_bytes(b"2")
    other.replace(path)
    assert digest_of(path) != first
