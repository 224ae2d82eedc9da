"""Edits from end to end: images from files and URLs to an endpoint that checks them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import rig


@dataclass
class Shop:
    """A shop's image server: what it has, and what was asked of it."""

    url: str = ""
    images: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    """Path and status, in the order of the responses."""


@contextmanager
def open_shop() -> Iterator[Shop]:
    """Serve images on loopback, with an ETag of their content."""
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = shop.images.get(self.path)
            etag = f'"{sha256(content or b"").hexdigest()}"'
            status = 404 if content is None else 200
            if content is not None and self.headers["If-None-Match"] == etag:
                status = 304
            shop.asked.append((self.path, status))
            body = content if status == 200 and content else b""
            self.send_response(status)
            self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        shop.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield shop
        finally:
            server.shutdown()
            thread.join()


SWITCHES = ()


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        yield opened


@pytest.fixture
def photos(shop: Shop, tmp_path: Path) -> Shop:
    """A shop with three photos in the three formats."""
    for name, color in (("red.png", "red"), ("green.jpg", "green"), ("blue.webp", "blue")):
        shop.images[f"/{name}"] = rig.image(tmp_path / name, color)
        (tmp_path / name).unlink()
    return shop


def by_key(directory: Path) -> dict[str, Any]:
    rows = rig.query(directory / "batchgen.db", "SELECT key, state, reason, images FROM jobs")
    return {row["key"]: row for row in rows}


ONE_EACH = 'matrix: {photo: [red.png, green.jpg, blue.webp]}\nkey: "{{ photo }}"\nprompt: on oak\n'


def nightly(directory: Path, served: rig.Endpoint, shop: Shop, jobs: str = "") -> Path:
    """A manifest with one job for each photo of a shop, or with other jobs."""
    photos = f"{ONE_EACH}images: ['{shop.url}/{{{{ photo }}}}']\n"
    path = directory / "batch.yaml"
    path.write_text(
        f"name: batch\nprovider: {{name: local, base_url: {served.base_url!r}}}\n"
        f"options: {{size: 1024x640}}\n{jobs or photos}",
        encoding="utf-8",
    )
    return path


def test_reference_files_urls_and_mask_arrive_in_order(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    # The endpoint compares the mask with the first image alone.
    rig.image(tmp_path / "first.png", "yellow", size=(24, 16))
    rig.mask(tmp_path / "mask.png", size=(24, 16))
    images = f"[first.png, {photos.url}/green.jpg, {photos.url}/blue.webp]"
    extra = f"images: {images}\nmask: mask.png\n"
    path = rig.manifest(tmp_path, served.base_url, ["on a table"], extra=extra)
    before = len(served.bill())
    rig.batchgen("run", path, cwd=tmp_path)

    assert len(served.bill()) - before == 1
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    copies = {file.name for file in (tmp_path / "batchgen.db.references").glob("*.*")}
    copies.remove(".gitignore")
    assert copies == {
        f"{sha256(photos.images[f'/{name}']).hexdigest()}.{name.partition('.')[2]}"
        for name in ("green.jpg", "blue.webp")
    }


def test_mask_may_have_a_url(served: rig.Endpoint, photos: Shop, tmp_path: Path) -> None:
    photos.images["/mask.png"] = rig.mask(tmp_path / "mask.png")
    photos.images["/opaque.png"] = photos.images["/red.png"]
    extra = (
        "matrix: {m: [mask, opaque]}\nkey: '{{ m }}'\nprompt: x\n"
        f"images: [{photos.url}/red.png]\nmask: '{photos.url}/{{{{ m }}}}.png'\n"
    )
    path = nightly(tmp_path, served, photos, extra)
    before = len(served.bill())
    done = rig.batchgen("run", path, cwd=tmp_path, code=1)

    assert len(served.bill()) - before == 1
    jobs = by_key(tmp_path)
    assert jobs["mask"]["state"] == "done"
    assert jobs["opaque"]["reason"].startswith(f"reference: {photos.url}/opaque.png has no alpha")
    assert "batch.yaml:8:7: mask: " in done.stderr


def test_a_night_without_changes_asks_for_nothing_but_changes(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    path = nightly(tmp_path, served, photos)
    before = len(served.bill())
    first = rig.batchgen("run", path, cwd=tmp_path)
    assert "batch: reference images by URL: 3 fetched, 0 unchanged" in first.stderr
    assert len(served.bill()) - before == 3

    photos.asked.clear()
    second = rig.batchgen("run", path, cwd=tmp_path)
    assert "0 fetched, 3 unchanged" in second.stderr
    assert sorted(photos.asked) == [("/blue.webp", 304), ("/green.jpg", 304), ("/red.png", 304)]
    assert len(served.bill()) - before == 3

    photos.images["/green.jpg"] = rig.image(tmp_path / "green.jpg", "purple")
    third = rig.batchgen("run", path, cwd=tmp_path)
    assert "1 fetched, 2 unchanged" in third.stderr
    assert "1  changed since their image was made" in third.stderr
    assert len(served.bill()) - before == 4
    rig.judge(tmp_path, served.bill()[before:], finished=True)


def test_dead_url_fails_its_job_for_free_until_it_works(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    green = photos.images.pop("/green.jpg")
    photos.images["/blue.webp"] = b"<!DOCTYPE html>gone"
    path = nightly(tmp_path, served, photos)
    before = len(served.bill())
    done = rig.batchgen("run", path, cwd=tmp_path, code=1)

    assert "1 fetched, 0 unchanged, 2 failed" in done.stderr
    assert "2  not sent because a reference image is missing" in done.stderr
    assert "1  request to send, estimated at" in done.stderr
    jobs = by_key(tmp_path)
    assert jobs["red.png"]["state"] == "done"
    assert (jobs["green.jpg"]["state"], jobs["green.jpg"]["reason"]) == (
        "failed",
        f"reference: {photos.url}/green.jpg: HTTP 404",
    )
    assert "blue.webp: no reference image: an HTML page" in jobs["blue.webp"]["reason"]
    attempts = rig.query(tmp_path / "batchgen.db", "SELECT count(*) FROM attempts")
    assert (len(served.bill()) - before, attempts[0][0]) == (1, 1)
    found = rig.status(tmp_path)
    assert found["cost"] == {
        "currency": "USD",
        "estimated": "0.113100",
        "charged": "0.037700",
        "maybe": "0.000000",
        "unpriced": 0,
    }

    photos.images["/green.jpg"] = green
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    assert {key: row["state"] for key, row in by_key(tmp_path).items()} == {
        "red.png": "done",
        "green.jpg": "done",
        "blue.webp": "failed",
    }
    rig.judge(tmp_path, served.bill()[before:], finished=True)


def test_earlier_copy_replaces_a_url_that_fails(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    path = nightly(tmp_path, served, photos)
    rig.batchgen("run", path, cwd=tmp_path)
    photos.images.clear()
    text = path.read_text(encoding="utf-8").replace("on oak", "on slate")
    path.write_text(text, encoding="utf-8")
    before = len(served.bill())
    done = rig.batchgen("run", path, cwd=tmp_path)

    assert "red.png: HTTP 404; the copy fetched earlier is used (1 job)" in done.stderr
    assert len(served.bill()) - before == 3


def test_done_job_stays_done_without_its_reference_photo(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    path = nightly(tmp_path, served, photos)
    rig.batchgen("run", path, cwd=tmp_path)
    photos.images.clear()
    for copy in (tmp_path / "batchgen.db.references").iterdir():
        copy.unlink()
    done = rig.batchgen("run", path, cwd=tmp_path)

    assert "3 failed" in done.stderr
    assert rig.status(tmp_path)["jobs"]["done"] == 3


def test_plan_and_check_send_nothing_and_report_unknown_images(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    path = nightly(tmp_path, served, photos)
    shown = "reference images not downloaded yet"
    planned = rig.batchgen("plan", path, cwd=tmp_path).stdout
    assert "3  new" in planned
    assert shown in planned
    assert f"3 jobs; 3 {shown}" in rig.batchgen("check", path, cwd=tmp_path).stdout
    assert photos.asked == []
    assert [file.name for file in tmp_path.iterdir()] == ["batch.yaml"]

    rig.batchgen("run", path, cwd=tmp_path)
    photos.asked.clear()
    planned = rig.batchgen("plan", path, cwd=tmp_path).stdout
    assert "3  done and unchanged" in planned
    assert "not fetched" not in planned + rig.batchgen("check", path, cwd=tmp_path).stdout
    record = json.loads(rig.batchgen("plan", path, "--json", cwd=tmp_path).stdout)
    assert record["unfetched"] == 0
    assert photos.asked == []


def test_url_of_two_manifests_is_requested_once_a_run(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    path = nightly(tmp_path, served, photos)
    other = tmp_path / "other.yaml"
    text = path.read_text(encoding="utf-8").replace("name: batch", "name: other")
    other.write_text(text, encoding="utf-8")
    rig.batchgen("run", path, other, cwd=tmp_path)
    assert sorted(photos.asked) == [("/blue.webp", 200), ("/green.jpg", 200), ("/red.png", 200)]


def test_resume_fetches_lost_copies_again_without_the_manifest(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    path = nightly(tmp_path, served, photos)
    rig.batchgen("run", path, "--limit", "1", cwd=tmp_path)
    path.unlink()
    photos.asked.clear()
    rig.batchgen("resume", "batch", "--limit", "1", cwd=tmp_path)
    assert photos.asked == []
    for copy in (tmp_path / "batchgen.db.references").iterdir():
        copy.unlink()
    rig.batchgen("resume", "batch", cwd=tmp_path)
    assert len(photos.asked) == 1
    assert rig.status(tmp_path)["jobs"]["done"] == 3


def test_resume_says_clearly_which_image_it_cannot_have(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    photos.images.pop("/red.png")
    path = nightly(tmp_path, served, photos)
    rig.batchgen("run", path, "--limit", "1", cwd=tmp_path, code=1)
    rig.batchgen("retry", "batch", cwd=tmp_path)
    photos.images["/blue.webp"] = photos.images["/green.jpg"]
    del photos.images["/green.jpg"]
    for copy in (tmp_path / "batchgen.db.references").iterdir():
        copy.unlink()
    before = len(served.bill())
    rig.batchgen("resume", "batch", cwd=tmp_path, code=1)

    reasons = {key: row["reason"] for key, row in by_key(tmp_path).items()}
    assert reasons["red.png"] == (
        f"reference: {photos.url}/red.png is not fetched; run the manifest, which fetches it"
    )
    (lost,) = (reasons[key] for key in ("green.jpg", "blue.webp") if reasons[key])
    assert "is gone, and " in lost
    assert served.bill()[before:] == []


def test_files_alone_need_no_cache(served: rig.Endpoint, tmp_path: Path) -> None:
    rig.image(tmp_path / "a.png")
    path = rig.manifest(tmp_path, served.base_url, ["x"], extra="images: [a.png]\n")
    done = rig.batchgen("run", path, cwd=tmp_path)
    assert "by URL" not in done.stderr
    assert not (tmp_path / "batchgen.db.references").exists()


def test_copies_that_nothing_needs_do_no_harm(
    served: rig.Endpoint, photos: Shop, tmp_path: Path
) -> None:
    directory = tmp_path / "batchgen.db.references"
    directory.mkdir()
    (directory / "stray.png").write_bytes(b"")
    (directory / "0123.part").write_bytes(b"half a photo")
    rig.batchgen("run", nightly(tmp_path, served, photos), cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 3
