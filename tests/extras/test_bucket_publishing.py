"""`output: {publish: on_accept}` in a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.job import JobId
from batchgen.ledger.newest_decisions import Decision
from batchgen.ledger.path_owners import PathHistory
from batchgen.ledger.unpublished import Publication
from batchgen.output import bucket_publishing
from batchgen.output.bucket_publishing import publish_object
from batchgen.output.final_names import Conflict
from batchgen.storage import object_store
from batchgen.storage.stores import Stores
from batchgen.system.failpoints import Point
from tests.review.browser import review
from tests.review.decide import decide
from tests.support import rig
from tests.support.bucket_shop import Shop
from tests.support.extras import require
from tests.support.old_store import Behavior

require("obstore", "moto")

WAITS = ", publish: on_accept, keep_previous: 5"
FINAL, PENDING = "job-000.png", ".pending/job-000.png"


def make(shop: Shop, *prompts: str, output: str = WAITS) -> str:
    shop.write(*prompts, output=output)
    return shop.run("--yes")


def accept(shop: Shop, *numbers: int) -> None:
    decide(shop.directory, Decision.ACCEPT, *(f"job-{n:03d}" for n in numbers or (0,)))


def publish(shop: Shop, prompt: str, output: str = WAITS) -> bytes:
    """Make an image, accept and publish it; return what the bucket has then."""
    make(shop, prompt, output=output)
    accept(shop)
    shop.run("--yes")
    return shop.objects()[FINAL]


def unpublished(shop: Shop) -> dict[str, int]:
    found = json.loads(shop.batchgen("status", "batch", "--json"))
    counts: dict[str, int] = found["images"]["unpublished"]
    return counts


def is_whole(shop: Shop) -> None:
    """Compare objects and ledger."""
    assert "all as they were saved" in shop.batchgen("verify", "batch")


def test_object_waits_until_it_is_accepted(shop: Shop) -> None:
    out = make(shop, "a mug", "a bag")
    assert "2  new images wait for your decision" in out
    first = shop.objects()
    assert set(first) == {PENDING, ".pending/job-001.png"}
    assert "2 images (2 not published), all as they were saved" in shop.batchgen("verify", "batch")
    accept(shop)
    assert unpublished(shop) == {"undecided": 1, "accepted": 1, "rejected": 0}
    assert set(shop.objects()) == set(first), "the page or a run publishes"
    shop.run("--yes")
    assert shop.objects() == {
        FINAL: first[PENDING],
        ".pending/job-001.png": first[".pending/job-001.png"],
    }
    assert shop.bill == 2
    shop.judge(2)
    is_whole(shop)


def test_published_object_stays_until_the_new_one_is_accepted(shop: Shop) -> None:
    old = publish(shop, "a mug")
    make(shop, "a red mug")
    assert shop.objects()[FINAL] == old
    second = shop.objects()[PENDING]
    decide(shop.directory, Decision.REJECT, "job-000")
    shop.run("--yes")
    third = shop.objects()[PENDING]
    assert shop.objects() == {
        FINAL: old,
        PENDING: third,
        ".previous/.pending/job-000.png~1": second,
    }
    accept(shop)
    shop.run("--yes")
    assert shop.objects() == {
        FINAL: third,
        ".previous/job-000.png~1": old,
        ".previous/.pending/job-000.png~1": second,
    }
    assert shop.bill == 3
    is_whole(shop)
    assert "1 image is restored" in shop.batchgen("rollback", "batch")
    assert shop.objects()[FINAL] == old
    is_whole(shop)


@pytest.mark.parametrize("sidecar", [False, True])
@pytest.mark.parametrize("point", [Point.KEPT, Point.PUBLISHING, Point.NAMED, Point.PUBLISHED])
def test_killed_publication_is_finished_by_the_next_run(
    point: Point, sidecar: bool, shop: Shop
) -> None:
    output = f", publish: on_accept, sidecar: {str(sidecar).lower()}"
    old = publish(shop, "a mug", output)
    make(shop, "a red mug", output=output)
    new = shop.objects()[PENDING]
    accept(shop)
    shop.run("--yes", code=-9, point=point)
    is_named = point in (Point.NAMED, Point.PUBLISHED)
    assert shop.objects()[FINAL] == (new if is_named else old)
    shop.run("--yes")
    objects = shop.objects()
    if sidecar:
        record = json.loads(objects.pop("job-000.json"))
        assert record["sha256"] == hashlib.sha256(new).hexdigest()
    assert objects == {FINAL: new, ".previous/job-000.png~1": old}
    assert shop.bill == 2
    shop.judge(1)
    is_whole(shop)


@pytest.mark.parametrize("point", [Point.NAMED, Point.PUBLISHED])
def test_killed_first_publication_is_finished(point: Point, shop: Shop) -> None:
    make(shop, "a mug")
    first = shop.objects()[PENDING]
    accept(shop)
    shop.run("--yes", code=-9, point=point)
    assert shop.objects()[FINAL] == first
    shop.run("--yes")
    assert shop.objects() == {FINAL: first}
    assert shop.bill == 1
    is_whole(shop)


@pytest.mark.parametrize("point", [Point.PLACING, Point.PLACED])
def test_run_killed_while_an_object_waits(point: Point, shop: Shop) -> None:
    old = publish(shop, "a mug")
    shop.write("a red mug", output=WAITS)
    shop.run("--yes", code=-9, point=point)
    assert shop.objects()[FINAL] == old
    shop.run("--yes")
    assert set(shop.objects()) == {FINAL, PENDING}
    assert shop.objects()[FINAL] == old
    assert shop.bill == 2
    is_whole(shop)


def test_edited_object_of_the_shop_is_kept(shop: Shop) -> None:
    publish(shop, "a mug")
    shop.store.put(FINAL, b"retouched for an hour")
    make(shop, "a red mug")
    new = shop.objects()[PENDING]
    accept(shop)
    shop.run("--yes")
    assert shop.objects() == {FINAL: new, ".previous/job-000.png~edited1": b"retouched for an hour"}


def test_object_of_another_program_is_not_replaced(shop: Shop) -> None:
    make(shop, "a mug")
    shop.store.put(FINAL, b"theirs")
    accept(shop)
    out = shop.run("--yes")
    assert f"job-000: not published: {shop.root}/{FINAL} is not an image of this job" in out
    assert shop.objects()[FINAL] == b"theirs"
    assert unpublished(shop)["accepted"] == 1
    shop.store.delete(FINAL)
    shop.run("--yes")
    assert set(shop.objects()) == {FINAL}
    is_whole(shop)


def test_object_changed_while_it_waits_is_not_published(shop: Shop) -> None:
    make(shop, "a mug")
    accept(shop)
    shop.store.put(PENDING, b"retouched")
    assert "missing, or changed since it was saved" in shop.run("--yes")
    assert shop.objects() == {PENDING: b"retouched"}


def test_lost_response_to_the_final_put_is_one_version(proxied: Shop, behavior: Behavior) -> None:
    old = publish(proxied, "a mug")
    make(proxied, "a red mug")
    new = proxied.objects()[PENDING]
    accept(proxied)
    behavior.only, behavior.lose_responses = f"out/{FINAL}", 1
    proxied.run("--yes")
    assert proxied.objects() == {FINAL: new, ".previous/job-000.png~1": old}
    is_whole(proxied)


def test_waiting_object_follows_its_path(shop: Shop) -> None:
    make(shop, "a mug")
    waiting = shop.objects()[PENDING]
    make(shop, "a mug", output=f'{WAITS}, path: "sub/{{{{ key }}}}.{{{{ ext }}}}"')
    assert shop.objects() == {".pending/sub/job-000.png": waiting}
    accept(shop)
    shop.run("--yes")
    assert shop.objects() == {"sub/job-000.png": waiting}
    assert shop.bill == 1
    is_whole(shop)


@pytest.mark.parametrize("published", [False, True])
def test_images_move_to_the_bucket_and_are_published(published: bool, shop: Shop) -> None:
    shop.write("a mug", output=WAITS, root="out/here")
    shop.run("--yes")
    if published:
        accept(shop)
        shop.run("--yes")
        shop.write("a red mug", output=WAITS, root="out/here")
        shop.run("--yes")
    here = shop.directory / "out/here"
    waiting = (here / PENDING).read_bytes()
    old = (here / FINAL).read_bytes() if published else None
    shop.write("a red mug" if published else "a mug", output=WAITS)
    shop.run("--yes")
    assert shop.objects() == {PENDING: waiting} | ({} if old is None else {FINAL: old})
    accept(shop)
    shop.run("--yes")
    assert shop.objects()[FINAL] == waiting
    assert PENDING not in shop.objects()
    assert shop.bill == 1 + published
    is_whole(shop)


def test_import_of_decisions_publishes_objects(shop: Shop) -> None:
    make(shop, "a mug", "a bag")
    (shop.directory / "picks.csv").write_text("key,decision\njob-001,accept\n", encoding="utf-8")
    out = shop.batchgen("review", "batch", "--import", "picks.csv", "--by", "client")
    assert "batch: 1 image published" in out
    assert set(shop.objects()) == {PENDING, "job-001.png"}
    is_whole(shop)


def test_object_is_published_while_a_run_continues(shop: Shop, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.1") as quick:
        shop.served, shop.before = quick, 0
        make(shop, "a mug")
        quick.judge("faults", {"latency": 60})
        shop.write("a mug", "a bag", output=WAITS)
        command = ("run", "batch.yaml", "--yes")
        with rig.start(*command, cwd=shop.directory, env=shop.env) as process:
            rig.wait_for(
                shop.directory, "SELECT 1 FROM attempts WHERE outcome = 'sending'", run=process
            )
            accept(shop)
            rig.wait_for(
                shop.directory, f"SELECT 1 FROM images WHERE path = '{FINAL}'", run=process
            )
            assert set(shop.objects()) == {FINAL}
            process.kill()
        assert len(quick.bill()) == 1


def test_review_server_publishes_objects(shop: Shop) -> None:
    old = publish(shop, "a mug")
    make(shop, "a red mug")
    new = shop.objects()[PENDING]
    with review(shop.directory, env=shop.env) as server:
        accept(shop)
        rig.wait_for(
            shop.directory,
            f"SELECT 1 FROM images WHERE path = '{FINAL}' AND state = 'replaced'",
            run=server.process,
        )
    assert shop.objects() == {FINAL: new, ".previous/job-000.png~1": old}
    is_whole(shop)


def publication(shop: Shop, data: bytes, *hashes: bytes) -> Publication:
    known = frozenset(hashlib.sha256(one).hexdigest() for one in hashes)
    return Publication(
        image=1,
        job=JobId(1),
        key="job-000",
        batch="batch",
        root=shop.root,
        pending=PENDING,
        path=FINAL,
        sha256=hashlib.sha256(data).hexdigest(),
        keep_previous=1,
        sidecar=False,
        replaced=(),
        known=PathHistory(is_own=bool(hashes), hashes=known),
    )


def stores(shop: Shop) -> Stores:
    return Stores(shop.directory, lambda: {"s3": dict(shop.server.options)})


def at_publishing(monkeypatch: pytest.MonkeyPatch, does: Callable[[], object]) -> None:
    """Do something once, when the final name is about to be taken."""
    left = [does]

    def hit(point: Point) -> None:
        if point is Point.PUBLISHING and left:
            left.pop()()

    monkeypatch.setattr(bucket_publishing, "hit", hit)


def test_object_that_changes_meanwhile_is_kept(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.store.put(FINAL, b"old")
    shop.store.put(PENDING, b"new")
    at_publishing(monkeypatch, lambda: shop.store.put(FINAL, b"edited just now"))
    publish_object(stores(shop), publication(shop, b"new", b"old"))
    assert shop.objects() == {
        FINAL: b"new",
        ".previous/job-000.png~1": b"old",
        ".previous/job-000.png~edited1": b"edited just now",
    }


def test_object_that_appears_meanwhile_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.store.put(PENDING, b"new")
    at_publishing(monkeypatch, lambda: shop.store.put(FINAL, b"theirs"))
    with pytest.raises(Conflict):
        publish_object(stores(shop), publication(shop, b"new"))
    assert shop.objects() == {FINAL: b"theirs", PENDING: b"new"}


def test_claim_of_a_killed_large_put_is_taken_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (bucket_publishing, object_store):
        monkeypatch.setattr(module, "MULTIPART_BYTES", 2)
    shop.store.put(PENDING, b"large")
    shop.store.put(FINAL, b"")
    publish_object(stores(shop), publication(shop, b"large"))
    assert shop.objects() == {FINAL: b"large"}
