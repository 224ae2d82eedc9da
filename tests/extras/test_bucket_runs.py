"""Runs whose images go to a bucket of a real S3 server."""

from __future__ import annotations

import json
import urllib.request

import pytest

from batchgen.storage.object_store import ObjectStore
from batchgen.system.failpoints import Point
from tests.support import rig
from tests.support.bucket_shop import Shop
from tests.support.c2pa import sign
from tests.support.extras import require
from tests.support.images import drawing
from tests.support.images import encoded as written
from tests.support.old_store import Behavior
from tests.support.responses import RED, encoded
from tests.support.scripted_server import scripted

require("obstore", "moto")

SIDECAR = ("job-000.json", "job-001.json", "job-002.json")


def test_images_are_objects_and_paid_once(shop: Shop) -> None:
    shop.write("one", "two", output=", sidecar: true")
    assert f"images in {shop.root}" in shop.run()
    shop.judge(2)
    assert shop.bill == 2
    listed = shop.batchgen("export", "batch", "--what", "images").splitlines()
    assert {json.loads(line)["url"] for line in listed} == {
        f"{shop.root}/job-000.png",
        f"{shop.root}/job-001.png",
    }
    assert set(shop.objects()) == {"job-000.png", "job-001.png", *SIDECAR[:2]}
    assert json.loads(shop.objects()["job-000.json"])["prompt"] == "one"
    assert not list(shop.directory.rglob("*.png"))
    assert "nothing sent" in shop.run()
    assert shop.bill == 2


@pytest.mark.parametrize("point", [None, "placed"])
def test_signed_image_in_a_bucket_has_a_sidecar(point: str | None, shop: Shop) -> None:
    signed = sign(RED)
    output = f"output: {{dir: {json.dumps(shop.root)}, metadata: true}}\n"
    with scripted() as script:
        script.response({"b64_json": encoded(signed)})
        rig.manifest(shop.directory, f"{script.base}/v1", ["a mug"], options="{}", extra=output)
        if point is not None:
            shop.run(point=point, code=-9)
        shop.run()
        assert len(script.posts) == 1
        assert shop.objects()["job-000.png"] == signed
        assert json.loads(shop.objects()["job-000.json"])["prompt"] == "a mug"
        plain = written(drawing(64, 48), "PNG")
        script.response({"b64_json": encoded(plain)})
        rig.manifest(shop.directory, f"{script.base}/v1", ["a cup"], options="{}", extra=output)
        shop.run()
    assert set(shop.objects()) == {"job-000.png", ".previous/job-000.png~1"}
    assert shop.objects()[".previous/job-000.png~1"] == signed


def test_endpoint_and_region_may_be_in_the_manifest(shop: Shop) -> None:
    del shop.env["AWS_ENDPOINT_URL"], shop.env["AWS_REGION"]
    storage = f"storage: {{endpoint: {shop.server.endpoint!r}, region: eu-central-1}}\n"
    shop.write("one", extra=storage)
    shop.run()
    shop.judge(1)
    assert "1 image, all as they were saved" in shop.batchgen("verify", "batch")


KILLED = (
    Point.RECEIVED,
    Point.PLACING,
    Point.PLACED,
    Point.SAVED,
    Point.KEPT,
)


@pytest.mark.parametrize("point", KILLED)
def test_a_killed_run_is_resumed_without_paying(point: Point, shop: Shop) -> None:
    shop.write("one", "two", "three")
    shop.run()
    old = shop.objects()
    shop.write("one", "two, again", "three, again")
    # One request at a time: no other one can be in flight when the run is killed.
    shop.run("--concurrency", "1", code=-9, point=f"{point}:2")
    shop.run()
    shop.judge(3)
    assert shop.bill == 5
    objects = shop.objects()
    assert objects[".previous/job-001.png~1"] == old["job-001.png"]
    assert objects[".previous/job-002.png~1"] == old["job-002.png"]
    assert len(objects) == 5


def test_a_foreign_object_fails_its_job_for_free(shop: Shop) -> None:
    shop.store.put("job-000.png", b"not ours")
    shop.write("one", "two")
    assert "is not an image of this job" in shop.run(code=1)
    assert shop.bill == 1
    assert shop.objects()["job-000.png"] == b"not ours"
    shop.batchgen("retry", "batch")
    shop.run("--overwrite")
    shop.judge(2)
    assert shop.objects()[".previous/job-000.png~edited1"] == b"not ours"


def test_an_edited_object_is_kept(shop: Shop) -> None:
    shop.write("one")
    shop.run()
    shop.store.put("job-000.png", b"edited")
    shop.write("one, again")
    shop.run()
    shop.judge(1)
    assert shop.objects()[".previous/job-000.png~edited1"] == b"edited"


def test_lost_response_to_a_put_makes_no_second_version(proxied: Shop, behavior: Behavior) -> None:
    behavior.only, behavior.lose_responses = "job-000.png", 1
    proxied.write("one")
    proxied.run()
    proxied.judge(1)
    assert set(proxied.objects()) == {"job-000.png"}
    assert any(line.endswith("503") for line in behavior.requests)


def test_image_costs_two_requests_to_its_bucket(proxied: Shop, behavior: Behavior) -> None:
    """It is looked for before it is paid, and put once; a second try would also fetch it again."""
    proxied.write("one")
    proxied.run()
    asked = [line.split()[0] for line in behavior.requests if "job-000.png" in line]
    assert asked == ["HEAD", "PUT"]


def test_a_bucket_that_refuses_stops_the_run(proxied: Shop, behavior: Behavior) -> None:
    behavior.only, behavior.refuse_puts = ".png", True
    proxied.write(*(f"prompt {number}" for number in range(12)))
    manifest = proxied.directory / "batch.yaml"
    manifest.write_text(manifest.read_text().replace("canary: 100", "canary: 2"))
    assert "storage: [Errno 13] access refused" in proxied.run(code=3)
    paid = proxied.bill
    assert 1 <= paid <= 8
    behavior.refuse_puts = False
    proxied.run()
    proxied.judge(12)
    assert proxied.bill == 12, "what was paid is delivered"


def test_refusing_bucket_does_not_stop_the_next_manifest(proxied: Shop, behavior: Behavior) -> None:
    behavior.only, behavior.refuse_puts = ".png", True
    proxied.write("one")
    (proxied.directory / "batch.yaml").rename(proxied.directory / "first.yaml")
    other = proxied.write("two", root="here")
    other.write_text(other.read_text().replace("name: batch", "name: other"))
    shown = proxied.batchgen("run", "first.yaml", "batch.yaml", code=3)
    assert "storage: [Errno 13] access refused" in shown
    assert len(list((proxied.directory / "here").glob("*.png"))) == 1


def test_a_bucket_that_cannot_be_written_costs_nothing(proxied: Shop, behavior: Behavior) -> None:
    behavior.refuse_puts = True
    proxied.write("one")
    assert "nothing was sent" in proxied.run(code=2)
    assert proxied.bill == 0
    assert not (proxied.directory / "batchgen.db").exists()


def test_an_old_store_is_refused_unless_promised(proxied: Shop, behavior: Behavior) -> None:
    behavior.drop_conditions = True
    proxied.write("one")
    assert "ignores conditional writes (If-None-Match)" in proxied.run(code=2)
    assert proxied.bill == 0
    proxied.write("one", extra="storage: {single_writer: true}\n")
    proxied.run()
    proxied.judge(1)


def test_verify_finds_what_differs(shop: Shop) -> None:
    shop.write("one", "two", "three", output=", sidecar: true")
    shop.run()
    shop.store.delete("job-000.png")
    shop.store.put("job-001.png", b"edited")
    shop.store.put("notes.txt", b"mine")
    lines = shop.batchgen("verify", "batch", "--json", code=1).splitlines()
    found = {one["path"]: one["finding"] for one in map(json.loads, lines)}
    assert found == {
        f"{shop.root}/job-000.png": "missing",
        f"{shop.root}/job-001.png": "changed",
        f"{shop.root}/notes.txt": "foreign",
    }
    shop.batchgen("verify", "batch", "--repair", "--changed", code=1)
    shop.run()
    shop.judge(3)
    assert shop.bill == 3
    assert shop.objects()[".previous/job-001.png~edited1"] == b"edited"


def test_objects_of_another_batch_below_a_prefix_are_not_foreign(shop: Shop) -> None:
    shop.write("one", output=", sidecar: true")
    shop.run()
    inner = shop.write("two", root=f"{shop.root}/inner", output=", sidecar: true")
    inner.write_text(inner.read_text().replace("name: batch", "name: other"))
    shop.run()
    shop.store.put("inner/job-001.json", b"{}")
    (line,) = shop.batchgen("verify", "batch", "--json").splitlines()
    assert json.loads(line)["path"] == f"{shop.root}/inner/job-001.json"


def test_rollback_puts_the_earlier_object_back(shop: Shop) -> None:
    shop.write("one", output=", sidecar: true")
    shop.run()
    first = shop.objects()["job-000.png"]
    shop.write("one, again", output=", sidecar: true")
    shop.run()
    second = shop.objects()["job-000.png"]
    assert "1 image is restored" in shop.batchgen("rollback", "batch")
    assert shop.objects() == {"job-000.png": first, ".previous/job-000.png~1": second}
    shop.judge(1)
    shop.batchgen("rollback", "batch")
    assert shop.objects()["job-000.png"] == second
    shop.judge(1)


def test_prune_deletes_objects_of_retired_jobs(shop: Shop) -> None:
    shop.write("one", "two", "three", output=", sidecar: true")
    shop.run()
    shop.store.put("job-002.png", b"edited")
    shop.write("one", output=", sidecar: true")
    shop.run()
    assert "changed since, and left alone" in shop.batchgen("prune", "batch", "--yes")
    assert set(shop.objects()) == {"job-000.png", "job-000.json", "job-002.png", "job-002.json"}


def test_images_move_to_the_bucket_and_back(shop: Shop) -> None:
    shop.write("one", "two", root="out")
    shop.run()
    shop.write("one", "two")
    shop.run()
    shop.judge(2)
    assert not list(shop.directory.rglob("*.png"))
    shop.write("one", "two", root="here")
    shop.run()
    assert len(list((shop.directory / "here").glob("*.png"))) == 2
    assert shop.objects() == {}
    assert shop.bill == 2


def test_an_image_in_the_way_of_a_move_stays(shop: Shop) -> None:
    shop.write("one")
    shop.run()
    shop.store.put("new/job-000.png", b"not ours")
    shop.write("one", root=f"{shop.root}/new")
    assert "already exists" in shop.run()
    assert shop.objects()["new/job-000.png"] == b"not ours"
    shop.judge(1)


def test_a_dataset_is_written_to_a_bucket(shop: Shop) -> None:
    shop.write("one", "two")
    shop.run()
    target = shop.root.replace("/out", "/train")
    shown = shop.batchgen("export", "batch", "--dataset", target, "--part-images", "1")
    assert f"2 images in 2 parts in {target}" in shown
    first = {one.name: one.e_tag for one in ObjectStore(target, shop.server.options).list()}
    assert {"00000.tar", "00001.tar", "SHA256SUMS"} < set(first)
    shop.batchgen("export", "batch", "--dataset", target, "--part-images", "1")
    shop.batchgen("export", "batch", "--dataset", "here", "--part-images", "1")
    for name in ("00000.tar", "00001.tar", "SHA256SUMS"):
        local = (shop.directory / "here" / name).read_bytes()
        assert ObjectStore(target, shop.server.options).read(name) == local


def test_reference_images_are_fetched_once(proxied: Shop, behavior: Behavior) -> None:
    image = proxied.directory / "mug.png"
    proxied.store.put("photos/mug.png", rig.image(image))
    url = f"{proxied.root}/photos/mug.png"
    proxied.write("one", root="out", extra=f"images: [{json.dumps(url)}]\n")
    proxied.run()
    gets = [one for one in behavior.requests if one.startswith("GET") and "mug.png" in one]
    assert len(gets) == 1
    proxied.run()
    assert [one for one in behavior.requests if one.startswith("GET")] == gets
    assert proxied.bill == 1
    proxied.store.put("photos/mug.png", rig.image(image, "blue"))
    proxied.run()
    assert proxied.bill == 2, "another image is another job"
    proxied.store.delete("photos/mug.png")
    assert "no such object" in proxied.run()
    assert proxied.bill == 2


def test_rows_are_read_from_a_bucket(proxied: Shop, behavior: Behavior) -> None:
    proxied.store.put("shop.csv", b"sku,title\nmug,a mug\ntote,a bag\n")
    table = f"{proxied.root}/shop.csv"
    path = proxied.write(
        root="out", extra=f"rows: {json.dumps(table)}\nprompt: Photo of {{{{ title }}}}\n"
    )
    path.write_text(path.read_text().replace("jobs:\n", ""))
    proxied.run()
    assert {one.name for one in proxied.directory.rglob("*.png")} == {"mug.png", "tote.png"}
    gets = [one for one in behavior.requests if one.startswith("GET")]
    assert "nothing sent" in proxied.run()
    assert [one for one in behavior.requests if one.startswith("GET")] == gets
    proxied.store.put("shop.csv", b"sku,title\nmug,a mug\nbowl,\n")
    assert f"{table}:3" in proxied.run(), "the line of an empty cell"
    assert proxied.bill == 3
    proxied.store.delete("shop.csv")
    assert "no such object" in proxied.run(code=2)
    proxied.batchgen("resume", "batch")
    proxied.batchgen("gallery", "batch", "--columns", "title")
    page = proxied.directory / "gallery-batch" / "index.html"
    assert "a mug" in page.read_text(encoding="utf-8")


def test_a_failed_job_is_exported_with_its_bucket(shop: Shop) -> None:
    shop.write("one", "forbidden-word")
    shop.run(code=1)
    assert f'dir: "{shop.root}"' in shop.batchgen("export", "batch", "--failed")


def test_reference_with_an_unusable_name_fails_its_job_alone(shop: Shop) -> None:
    rig.image(shop.directory / "photo.png")
    data = (shop.directory / "photo.png").read_bytes()
    shop.store.put("photos/a%20b #1.png", data)
    (shop.directory / "table.csv").write_text("sku\na%20b #1\n/b\nc/../d\n")
    (shop.directory / "batch.yaml").write_text(
        f"provider: {{name: local, base_url: {shop.served.base_url!r}}}\nrows: table.csv\n"
        f"prompt: mug {{{{ sku }}}}\nimages: ['{shop.root}/photos/{{{{ sku }}}}.png']\n"
    )
    shown = shop.batchgen("run", "batch.yaml", code=1)
    assert "not a usable name" in shown
    assert "1 of 3 jobs done" in shown
    assert shop.bill == 1


def test_prefix_that_a_console_created_takes_a_dataset(shop: Shop) -> None:
    """Consoles of services create an empty object whose name is that of the prefix."""
    shop.write("one")
    shop.run()
    bucket = shop.root.rpartition("/")[0]
    url = f"{shop.server.endpoint}/{bucket.partition('://')[2]}/train/"
    with urllib.request.urlopen(
        urllib.request.Request(url, b"", method="PUT"), timeout=rig.TIMEOUT_S
    ):
        pass
    assert "1 image in 1 part" in shop.batchgen("export", "batch", "--dataset", f"{bucket}/train")
