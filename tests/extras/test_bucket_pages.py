"""Pages of images that are in a bucket: review, gallery, report."""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from PIL import Image

from batchgen.output.bucket_copies import OBJECTS_SUFFIX, ChangedObjectError, ObjectCopies
from batchgen.storage.stores import Stores
from tests.review.browser import review
from tests.support import rig
from tests.support.bucket_shop import Shop
from tests.support.extras import require
from tests.support.old_store import Behavior
from tests.support.terminal import Reply, at_terminal, screen

require("obstore", "moto")

COPIES = f"batchgen.db{OBJECTS_SUFFIX}"


@contextmanager
def page_of(shop: Shop, *flags: str) -> Iterator[httpx.Client]:
    """Serve the review page and yield a client that may use it."""
    with (
        review(shop.directory, *flags, env=shop.env) as server,
        httpx.Client(base_url=server.origin, timeout=rig.TIMEOUT_S) as client,
    ):
        server.begin_session(client)
        yield client


def ids_of(client: httpx.Client) -> list[int]:
    found: list[int] = client.get("/api/index?sort=key").json()["ids"]
    return found


def copies(shop: Shop) -> list[Path]:
    return sorted((shop.directory / COPIES).glob("[0-9a-f]*"))


def test_review_serves_verified_copies(shop: Shop) -> None:
    shop.write("one", "two")
    shop.run()
    objects = shop.objects()
    with page_of(shop) as client:
        first, second = ids_of(client)
        original = client.get(f"/image/{first}")
        assert original.content == objects["job-000.png"]
        assert original.headers["content-type"] == "image/png"
        part = client.get(f"/image/{first}", headers={"Range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, b"PNG")
        thumb = client.get(f"/thumb/{second}/320")
        assert Image.open(io.BytesIO(thumb.content)).format == "WEBP"
        seen = [client.get(f"/api/images?ids={first},{second}"), client.get(f"/api/images/{first}")]
        seen += [client.get("/api/batch"), client.get("/"), client.get("/image/99")]
        for one in seen:
            assert "s3:" not in one.text
            assert shop.server.endpoint not in one.text
            assert "bucket-" not in one.text
        assert client.get("/image/99").status_code == 404
        cookie = {"cookie": ""}
        assert client.get(f"/image/{first}", headers=cookie).status_code == 403
    kept = {one.name: one.stat().st_mode & 0o777 for one in copies(shop)}
    assert set(kept.values()) == {0o600}
    assert hashlib.sha256(objects["job-000.png"]).hexdigest() in kept
    assert (shop.directory / COPIES).stat().st_mode & 0o777 == 0o700


def test_review_names_what_is_missing_or_changed(shop: Shop) -> None:
    shop.write("one", "two", "three")
    shop.run()
    shop.write("one, again", "two", "three")
    shop.run()
    shop.store.delete("job-001.png")
    shop.store.put("job-002.png", b"edited")
    with page_of(shop, "--since", "2020-01-01") as client:
        again, missing, changed = ids_of(client)
        assert client.get(f"/image/{again}").status_code == 200
        old = client.get(f"/api/images/{again}").json()
        assert client.get(f"/image/{missing}").json() == {
            "error": "the object is missing: job-001.png"
        }
        found = client.get(f"/image/{changed}")
        assert found.json() == {
            "error": "the object was changed after batchgen saved it: job-002.png"
        }
        assert client.get(f"/thumb/{missing}/320").status_code == 404
        before = [one for one in _ids_within(old) if one not in (again, missing, changed)]
        assert client.get(f"/image/{before[0]}").content == shop.store.read(
            ".previous/job-000.png~1"
        ), "the image before is a kept version"


def _ids_within(detail: object) -> list[int]:
    """Return the ids of images in the details of one."""
    if isinstance(detail, dict):
        own = [detail["id"]] if {"id", "sha256"} <= detail.keys() else []
        return own + [one for value in detail.values() for one in _ids_within(value)]
    if isinstance(detail, list):
        return [one for value in detail for one in _ids_within(value)]
    return []


def test_decisions_in_review_regenerate_objects(shop: Shop) -> None:
    shop.write("one", "two")
    shop.run()
    with page_of(shop) as client:
        first, _ = ids_of(client)
        origin = str(client.base_url).rstrip("/")
        decision = {"image": first, "decision": "reject"}
        rows = client.get(f"/api/images?ids={first}").json()
        decision["sha256"] = rows[0]["sha256"]
        body = {"action": "a1", "session": "s1", "decisions": [decision]}
        done = client.post("/api/decisions", json=body, headers={"Origin": origin})
        assert done.status_code == 200, done.text
    shop.run("--yes")
    shop.judge(2)
    assert shop.bill == 3


def test_gallery_copies_from_the_bucket(shop: Shop) -> None:
    shop.write("one", "two")
    shop.run()
    shop.write("one", "two, again")
    shop.run()
    shown = shop.batchgen("gallery", "batch", "--size", "full", "--before", "--keep-metadata")
    assert "2 images" in shown
    target = shop.directory / "gallery-batch"
    originals = {one.read_bytes() for one in (target / "images").iterdir()}
    assert originals == {shop.store.read("job-000.png"), shop.store.read("job-001.png")}
    assert len(list((target / "thumbs").iterdir())) == 3, "one is of the image before"
    page = (target / "index.html").read_text(encoding="utf-8")
    assert "s3:" not in page
    before = rig.content(target)
    for one in copies(shop):
        one.unlink()
    shop.batchgen("gallery", "batch", "--size", "full", "--before", "--keep-metadata")
    assert rig.content(target) == before
    assert copies(shop) == [], "nothing new was needed"
    assert "2 images" in shop.batchgen("gallery", "batch", "-o", "one.html")


def test_gallery_names_objects_that_are_not_available(shop: Shop) -> None:
    shop.write("one", "two", "three")
    shop.run()
    shop.store.delete("job-000.png")
    shop.store.put("job-001.png", b"edited")
    shown = shop.batchgen("gallery", "batch", code=1)
    assert "job-000: the object is missing: job-000.png" in shown
    assert "job-001: the object was changed after batchgen saved it" in shown
    assert "3 images, 2 not available" in shown


def test_report_page_has_thumbnails_of_objects(shop: Shop) -> None:
    shop.write("one", "two")
    shop.run()
    shop.store.delete("job-001.png")
    page = shop.batchgen("report", "batch", "--format", "html")
    assert page.count("data:image/jpeg;base64,") == 1
    assert "the object is missing: job-001.png" in page


def test_bucket_that_fails_leaves_the_report(proxied: Shop, behavior: Behavior) -> None:
    proxied.write(*(f"prompt {number}" for number in range(3)))
    proxied.run()
    behavior.refuse_gets = True
    asked = len(behavior.requests)
    page = proxied.batchgen("report", "batch", "--format", "html")
    assert page.count("the bucket cannot be read: access refused") == 3
    assert len(behavior.requests) == asked + 1, "a bucket that failed is not tried for each image"


def test_try_offers_the_page_of_objects(shop: Shop) -> None:
    manifest = shop.write("a red mug", "a red mug on a table", "sailing ship in a storm")
    env, url = screen(shop.directory)
    replies: dict[str, Reply] = {
        "Open the review page of these images? [Y/n]: ": "\n",
        "Make the other 1 image of batch too? [y/N]: ": "n\n",
    }
    code, shown = at_terminal(
        "try",
        manifest,
        "--sample",
        "2",
        cwd=shop.directory,
        replies=replies,
        env={**env, **shop.env},
    )
    assert code == 0, shown
    assert url.exists()


def test_presigned_links_work_until_their_stated_end(shop: Shop) -> None:
    shop.write("one", "two")
    shop.run()
    assert "presigned" not in shop.batchgen("export", "batch", "--what", "images")
    began = datetime.now(UTC)
    done = rig.batchgen(
        *("export", "batch", "--what", "images", "--presigned", "24h"),
        cwd=shop.directory,
        env=shop.env,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    objects = shop.objects()
    for row in rows:
        # The client has no credentials: the link is all it has.
        assert httpx.get(row["presigned_url"]).content == objects[row["path"]]
        assert "X-Amz-Expires=86400" in row["presigned_url"]
        until = datetime.fromisoformat(row["presigned_until"])
        assert began + timedelta(hours=23) < until < datetime.now(UTC) + timedelta(hours=25)
    assert len(rows) == 2
    assert f"works until {until:%Y-%m-%d %H:%M} UTC, for anyone who has it" in done.stderr


def test_gallery_links_full_images_for_a_time(shop: Shop) -> None:
    shop.write("one & two")
    shop.run()
    shown = shop.batchgen("gallery", "batch", "-o", "one.html", "--presigned", "7d")
    assert "for anyone who has it" in shown
    page = (shop.directory / "one.html").read_text(encoding="utf-8")
    (link,) = re.findall(r'<a href="(http[^"]*)"', page)
    assert httpx.get(html.unescape(link)).content == shop.store.read("job-000.png")
    until = re.search(r"works until (.*? UTC)", shown)
    assert until is not None
    assert f"Full images can be opened until {until[1]}." in page
    refused = shop.batchgen("gallery", "batch", "--presigned", "7d", "--size", "full", code=2)
    assert "cannot be combined" in refused


def test_presigned_links_are_for_images_in_buckets(shop: Shop) -> None:
    shop.write("one", root="here")
    shop.run()
    row = json.loads(
        shop.batchgen("export", "batch", "--what", "images", "--presigned", "7d").splitlines()[0]
    )
    for command in (("export", "batch", "--what", "images"), ("gallery", "batch")):
        shown = shop.batchgen(*command, "--presigned", "7d")
        assert "works until" not in shown
        assert "no image is in a bucket, so no link was made" in shown
    assert row["url"] is row["presigned_url"] is row["presigned_until"] is None
    for flags, complaint in (
        (["--presigned", "8d", "--what", "images"], "at most 7d"),
        (["--presigned", "0h", "--what", "images"], "not a lifetime"),
        (["--presigned", "soon", "--what", "images"], "not a lifetime"),
        (["--presigned", "1h"], "--presigned needs --what images"),
        (["--presigned", "1h", "--dataset", "d"], "cannot be combined"),
    ):
        assert complaint in shop.batchgen("export", "batch", *flags, code=2)


def test_copies_are_bounded_and_verified(shop: Shop) -> None:
    stores = Stores(shop.directory, lambda: {"s3": shop.server.options})
    kept = ObjectCopies(shop.directory / "batchgen.db", stores, most_bytes=25_000)
    digests = []
    for number in range(4):
        data = bytes([number]) * 10_000
        shop.store.put(f"{number}.png", data)
        digests.append(hashlib.sha256(data).hexdigest())
        place = kept.copy(shop.root, f"{number}.png", digests[-1])
        assert place.read_bytes() == data
    assert [one.name for one in copies(shop)] == sorted(digests[2:])
    with pytest.raises(ChangedObjectError):
        kept.copy(shop.root, "0.png", digests[1])
    with pytest.raises(FileNotFoundError):
        kept.copy(shop.root, "gone.png", digests[1])
    assert len(copies(shop)) == 2


def test_bucket_that_fails_is_named_on_the_page(proxied: Shop, behavior: Behavior) -> None:
    proxied.write("one")
    proxied.run()
    behavior.refuse_gets = True
    with page_of(proxied) as client:
        (only,) = ids_of(client)
        found = client.get(f"/image/{only}")
        assert found.status_code == 404
        assert "the bucket cannot be read: access refused" in json.dumps(found.json())
        assert "s3:" not in found.text
