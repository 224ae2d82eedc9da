"""Contents of responses, and images with a missing part; none of those is saved."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from PIL import Image

from batchgen.images.formats import BadImage
from batchgen.images.inspect import inspect
from tests.faults.gateway import gateway, response
from tests.support import rig, wire
from tests.support.canary import CANARY
from tests.support.responses import RED, encoded, image, saved

pytestmark = pytest.mark.anyio


# Images of which a part is missing

ENCODINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png": ("PNG", "RGB", {}),
    "png alpha": ("PNG", "RGBA", {"compress_level": 1}),
    "png palette": ("PNG", "P", {"optimize": True}),
    "jpeg": ("JPEG", "RGB", {"quality": 75}),
    "jpeg progressive": ("JPEG", "RGB", {"quality": 95, "progressive": True}),
    "jpeg grey": ("JPEG", "L", {"quality": 40, "restart_marker_blocks": 4}),
    "webp": ("WEBP", "RGB", {"quality": 80}),
    "webp alpha": ("WEBP", "RGBA", {"quality": 60}),
    "webp lossless": ("WEBP", "RGB", {"lossless": True}),
}
SIZES = ((17, 11), (320, 200))


def drawn(encoding: str, size: tuple[int, int]) -> bytes:
    """An image with an edge, an area and some noise, as a photo has them."""
    kind, mode, options = ENCODINGS[encoding]
    noise = random.Random(size[0]).randbytes(size[0] * size[1])
    image = Image.merge("RGB", [Image.frombytes("L", size, noise), *[Image.new("L", size, 90)] * 2])
    image.paste((200, 30, 30), (0, 0, size[0] // 2, size[1]))
    buffer = io.BytesIO()
    image.convert("RGBA").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def cuts(data: bytes) -> Iterator[bytes]:
    """What is left at every percent, and without the last 1 to 16 bytes."""
    lengths = {len(data) * percent // 100 for percent in range(100)}
    yield from (data[:length] for length in sorted(lengths | set(range(len(data) - 16, len(data)))))


@pytest.mark.fault("B14", "B15")
def test_of_a_thousand_images_that_are_cut_none_is_accepted() -> None:
    refused = 0
    for encoding in ENCODINGS:
        for size in SIZES:
            whole = drawn(encoding, size)
            assert (inspect(whole).width, inspect(whole).height) == size
            for cut in cuts(whole):
                with pytest.raises(BadImage):
                    inspect(cut)
                refused += 1
    assert refused >= 1000


@pytest.mark.parametrize("form", ["inline", "url"])
@pytest.mark.fault("B13", "B14", "B15")
async def test_a_cut_image_is_charged_kept_and_never_done(form: str, tmp_path: Path) -> None:
    bad = [drawn(encoding, SIZES[0])[:-1] for encoding in ENCODINGS]
    async with gateway() as provider:
        if form == "inline":
            provider.reply = lambda number: response({"b64_json": encoded(bad[number])})
        else:
            provider.files = {f"{number}": [wire.response(cut)] for number, cut in enumerate(bad)}
            provider.reply = lambda number: response({"url": provider.url(f"{number}")})
        limits = '{concurrency: 1, max_waste: "0", max_useless: 100, download_wait: 1}'
        await provider.run(tmp_path, jobs=len(bad), code=1, limits=limits)
        assert len(provider.posts) == len(bad)
        assert (len(provider.gets) == 0) == (form == "inline")
    assert not list((tmp_path / "out").rglob("*.*"))
    found = await anyio.to_thread.run_sync(rig.status, tmp_path)
    held = "failed" if form == "inline" else "paid"  # a URL may serve the whole image later
    assert (found["jobs"][held], found["jobs"]["done"]) == (len(bad), 0)
    assert found["attempts"]["billed"] == len(bad)
    # A small response with URLs is kept in the ledger, not in the spool.
    rows = await anyio.to_thread.run_sync(
        rig.query, tmp_path / "batchgen.db", "SELECT * FROM responses"
    )
    in_ledger, in_spool = len(rows), len(rig.spooled(tmp_path))
    assert (in_ledger, in_spool) == ((0, len(bad)) if form == "inline" else (len(bad), 0))


# Contents of a response


@pytest.mark.fault("B06", "B07", "B08")
async def test_what_comes_is_kept_and_what_is_missing_is_left(tmp_path: Path) -> None:
    green = image("green")
    async with gateway() as provider:
        provider.files = {"2.png": [wire.response(green)]}
        provider.reply = lambda _: response(
            {"b64_json": None, "url": ""},
            {"b64_json": encoded(RED)},
            {"url": provider.url("2.png")},
        )
        await provider.run(tmp_path)
    assert saved(tmp_path) == {"job-000.png": RED, "job-000-extra.png": green}


@pytest.mark.fault("B22", "B23")
async def test_same_image_for_two_jobs_is_saved_and_reported(
    tmp_path: Path,
) -> None:
    async with gateway() as provider:
        provider.files = {"1.png": [wire.response(RED)]}
        provider.reply = lambda _: response({"url": provider.url("1.png")})
        await provider.run(tmp_path, jobs=3)
        assert len(provider.gets) == 3
    assert list(saved(tmp_path).values()) == [RED] * 3
    exported = await anyio.to_thread.run_sync(
        lambda: rig.batchgen(
            *("export", "batch", "--what", "images", "--format", "jsonl"), cwd=tmp_path
        )
    )
    (digest,) = {line.split('"sha256":')[1][:20] for line in exported.stdout.splitlines()}
    assert digest


@pytest.mark.fault("B12", "B17")
async def test_format_of_an_image_comes_from_its_bytes_only(tmp_path: Path) -> None:
    """A JPEG that is sent as PNG is kept as what it is; a TIFF that is sent as PNG is not kept."""
    jpeg, tiff = image("red", "JPEG"), image("red", "TIFF")
    async with gateway() as provider:
        provider.files = {
            "0.png": [wire.response(jpeg, Content_Type="image/png")],
            "1.png": [wire.response(tiff, Content_Type="image/png")],
        }
        provider.reply = lambda number: response({"url": provider.url(f"{number}.png")})
        await provider.run(tmp_path, jobs=2, code=1)
    assert saved(tmp_path) == {"job-000.jpg": jpeg}


@pytest.mark.fault("B16")
async def test_image_that_would_fill_the_memory_is_never_opened(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    async with gateway() as provider:
        provider.reply = lambda _: response({"b64_json": encoded(buffer.getvalue())})
        await provider.run(tmp_path, code=1)
    (reason,) = rig.query(tmp_path / "batchgen.db", "SELECT reason FROM jobs")[0]
    assert "pixels" in reason


NASTY = "\x1b[31mred\x07\r\nnext line \u202e" + "x" * 1_000_000


@pytest.mark.fault("B26", "B27", "B28")
async def test_message_of_a_provider_is_cleaned_everywhere(tmp_path: Path) -> None:
    async with gateway() as provider:
        provider.reply = lambda _: response(
            status="400 Bad Request", error={"message": f"{CANARY} {NASTY}", "code": "\x1b[2J"}
        )
        done = await provider.run(tmp_path, code=1)
        assert provider.posts[0].headers["authorization"] == f"Bearer {CANARY}"
    (reason,) = rig.query(tmp_path / "batchgen.db", "SELECT reason FROM jobs")[0]
    assert "*** [31mred next line" in reason
    for text in (reason, done.stdout.replace("\n", " "), done.stderr.replace("\n", " ")):
        assert text.isprintable()
        assert len(text) < 10_000
    assert not holding(tmp_path, CANARY.encode())


def holding(directory: Path, secret: bytes) -> list[Path]:
    """Return the files that contain it."""
    return [path for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.mark.fault("B29", "B30")
async def test_price_ignores_what_a_response_says_of_itself(tmp_path: Path) -> None:
    usages = [-1, "a lot", {"total_tokens": -5, "cost": "NaN"}, {"output_tokens": 10**30}, None]
    async with gateway() as provider:
        provider.reply = lambda number: response(
            {"b64_json": encoded(RED)}, usage=usages[number], model="dall-e-0", cost=-7
        )
        await provider.run(tmp_path, jobs=len(usages))
    costs = [row[0] for row in rig.query(tmp_path / "batchgen.db", "SELECT cost FROM attempts")]
    assert costs == [rig.PRICE] * len(usages)
