"""The thumbnails that the review page, galleries and reports share."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import httpx
from PIL import Image

from batchgen.images.thumbnail import thumbnail_bytes
from batchgen.review.thumbnails import Thumbnails
from tests.review.browser import review
from tests.review.decide import saved
from tests.support import rig


def stored(directory: Path) -> dict[str, int]:
    """Return when each thumbnail was written, in nanoseconds, by its name."""
    found = (directory / "batchgen.db.thumbs").rglob("*.webp")
    return {path.name: path.stat().st_mtime_ns for path in found}


def test_gallery_and_review_page_make_each_once(fifty: Path) -> None:
    rig.batchgen("gallery", "batch", "--only", "k-0000*", cwd=fifty)
    first = stored(fifty)
    assert len(first) == 10
    rig.batchgen("gallery", "batch", "-o", "all.html", cwd=fifty)
    second = stored(fifty)
    assert len(second) == 50
    assert first.items() <= second.items()
    with (
        review(fifty, "--since", "2020-01-01") as server,
        httpx.Client(base_url=server.origin, trust_env=False) as client,
    ):
        server.begin_session(client)
        image, sha256 = saved(fifty, "k-00007")
        shown = client.get(f"/thumb/{image}/320").content
    assert shown == (fifty / "gallery-batch" / "thumbs" / f"{sha256[:24]}-320.webp").read_bytes()
    assert stored(fifty) == second


def test_gallery_uses_what_the_review_page_made(fifty: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "orange").save(buffer, "WEBP")
    _, sha256 = saved(fifty, "k-00003")
    place = Thumbnails(fifty / "batchgen.db").place(sha256, 320)
    place.parent.mkdir(parents=True)
    place.write_bytes(buffer.getvalue())
    rig.batchgen("gallery", "batch", "--single", "--only", "k-00003", cwd=fifty)
    page = (fifty / "gallery-batch.html").read_text(encoding="utf-8")
    assert base64.b64encode(buffer.getvalue()).decode() in page


def test_gallery_needs_no_place_for_thumbnails(fifty: Path) -> None:
    (fifty / "batchgen.db.thumbs").write_bytes(b"a file where the directory would be")
    rig.batchgen("gallery", "batch", cwd=fifty)
    assert len(list((fifty / "gallery-batch" / "thumbs").iterdir())) == 50


def test_empty_thumbnail_is_made_again(fifty: Path) -> None:
    _, sha256 = saved(fifty, "k-00003")
    thumbnails = Thumbnails(fifty / "batchgen.db")
    place = thumbnails.place(sha256, 320)
    place.parent.mkdir(parents=True)
    place.touch()
    content = thumbnails.read(fifty / "out" / "batch" / "k-00003.png", sha256, 320)
    assert content == place.read_bytes() != b""


def test_jpeg_thumbnail_is_small_opaque_and_plain(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x010E] = "secret"
    Image.new("RGBA", (900, 300), (200, 30, 30, 0)).save(path, exif=exif)
    content = thumbnail_bytes(path, 240, "jpg")
    assert b"secret" not in content
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("JPEG", (240, 80))
        assert image.getpixel((5, 5)) == (255, 255, 255)
