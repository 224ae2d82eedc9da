"""Formats that not every program shows: in the review page and in galleries."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from batchgen.images.inspect import inspect
from tests.review.big import big_batch
from tests.review.browser import open_page, review, tile
from tests.support import rig
from tests.support.images import HAS_AVIF, HEIC, drawing, encoded

COMMENT = b"a private remark"


def animation() -> bytes:
    frames = [drawing(40, 30), drawing(40, 30).transpose(Image.Transpose.ROTATE_180)]
    options = {"save_all": True, "append_images": frames[1:], "comment": COMMENT, "duration": 200}
    return encoded(frames[0], "GIF", **options)


def exif() -> Image.Exif:
    found = Image.Exif()
    found[0x010E] = COMMENT.decode()
    return found


@pytest.fixture
def formats(tmp_path: Path) -> Path:
    """A directory with a batch of a GIF, an AVIF and a HEIC."""
    if not HAS_AVIF:
        pytest.skip("this Pillow has no AVIF")
    big_batch(tmp_path, 3)
    content = (animation(), encoded(drawing(40, 30), "AVIF", exif=exif()), HEIC)
    with closing(sqlite3.connect(tmp_path / "batchgen.db")) as conn:
        for number, data in enumerate(content):
            kind, old = inspect(data).format, f"k-{number:05d}.png"
            new = f"k-{number:05d}.{kind.extension}"
            (tmp_path / "out/batch" / old).unlink()
            (tmp_path / "out/batch" / new).write_bytes(data)
            conn.execute(
                "UPDATE images SET sha256 = ?, format = ?, path = ? WHERE path = ?",
                (sha256(data).hexdigest(), kind.value, new, old),
            )
        conn.commit()
    return tmp_path


def test_review_shows_each_format_that_the_browser_can(browser: Browser, formats: Path) -> None:
    with review(formats, "--since", "2020-01-01") as server:
        watched = open_page(browser, server.url)
        page = watched.page
        for key, kind in (("k-00000", "gif"), ("k-00001", "avif")):
            page.wait_for_selector(f"{tile(page, key)} img")
            page.click(tile(page, key))
            page.keyboard.press("Enter")
            whole = page.locator("#stage img[src*='/image/']")
            expect(whole).to_have_js_property("complete", True)
            assert whole.evaluate("one => one.naturalWidth") == 40
            sent = page.request.get(whole.get_attribute("src") or "")
            assert sent.headers["content-type"] == f"image/{kind}"
            page.keyboard.press("Escape")
        words = "HEIC images cannot be shown here; open the file itself: k-00002.heic"
        expect(page.locator(f"{tile(page, 'k-00002')} .note")).to_have_text(words)
        page.click(tile(page, "k-00002"))
        page.keyboard.press("Enter")
        expect(page.locator("#stage .note")).to_have_text(words)


def test_gallery_converts_what_it_cannot_clean(formats: Path) -> None:
    done = rig.batchgen("gallery", "batch", "--size", "full", cwd=formats, code=1)
    assert "HEIC images cannot be shown here" in done.stderr
    assert "3 images, 1 not available" in done.stdout
    files = sorted((formats / "gallery-batch/images").iterdir())
    assert [file.suffix for file in files] == [".webp", ".webp"]
    assert all(COMMENT not in file.read_bytes() for file in files)
    frames = []
    for file in files:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            assert image.size == (40, 30)
            frames.append(getattr(image, "n_frames", 1))
    assert sorted(frames) == [1, 2]


def test_gallery_keeps_formats_with_their_metadata(formats: Path) -> None:
    flags = ("--size", "full", "--keep-metadata")
    rig.batchgen("gallery", "batch", *flags, cwd=formats, code=1)
    files = sorted((formats / "gallery-batch/images").iterdir())
    assert {file.suffix for file in files} == {".avif", ".gif"}
    assert all(COMMENT in file.read_bytes() for file in files)
