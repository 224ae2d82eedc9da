"""`output: {publish: on_accept}`: a new image waits until a person accepted it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from batchgen.ledger.batches import find_batch
from batchgen.ledger.database import open_for_writing
from batchgen.ledger.decisions import ImageChangedError, NewDecision, record_decisions
from batchgen.ledger.newest_decisions import Decision
from batchgen.system.failpoints import Point
from tests.faults.station import Station, station
from tests.review.browser import open_page, review, tile
from tests.review.decide import REVIEWER, decide, saved
from tests.support import rig

NOTHING = "nothing to send, nothing to pay"


@pytest.fixture(scope="module")
def runs() -> Iterator[Station]:
    with station() as started:
        yield started


class Shop:
    """A batch whose images wait for a person, and the directory that a shop reads."""

    def __init__(self, directory: Path, served: rig.Endpoint, runs: Station) -> None:
        self.directory = directory
        self.served = served
        self._runs = runs
        self.before = len(served.bill())

    def command(self, *arguments: str | Path, code: int = 0, point: Point | None = None) -> str:
        env = {} if point is None else {"BATCHGEN_FAILPOINT": point.value}
        ended = self._runs.run(*arguments, cwd=self.directory, env=env)
        assert ended.end.code == (code if point is None else -signal.SIGKILL), ended.output
        return ended.output

    def write(self, *prompts: str, output: str = "publish: on_accept, keep_previous: 5") -> Path:
        extra = f"output: {{{output}}}\n"
        return rig.manifest(self.directory, self.served.base_url, prompts, extra=extra)

    def make(self, *prompts: str, output: str = "publish: on_accept, keep_previous: 5") -> str:
        """Run a manifest of these prompts."""
        return self.command("run", self.write(*prompts, output=output), "--yes")

    def publish(self, prompt: str) -> bytes | None:
        """Make an image, accept and publish it; return what the shop has then."""
        self.make(prompt)
        self.accept(0)
        self.run()
        return self.shown()

    def run(self, *, point: Point | None = None) -> str:
        return self.command("run", "batch.yaml", "--yes", point=point)

    def plan(self) -> str:
        return self.command("plan", "batch.yaml")

    def accept(self, *numbers: int) -> None:
        decide(self.directory, Decision.ACCEPT, *(f"job-{n:03d}" for n in numbers))

    def reject(self, *numbers: int) -> None:
        decide(self.directory, Decision.REJECT, *(f"job-{n:03d}" for n in numbers))

    def final(self, number: int = 0) -> Path:
        return self.directory / f"out/batch/job-{number:03d}.png"

    def waiting(self, number: int = 0) -> Path:
        return self.directory / f"out/batch/.pending/job-{number:03d}.png"

    def shown(self, number: int = 0) -> bytes | None:
        """What the shop has."""
        return self.final(number).read_bytes() if self.final(number).exists() else None

    def kept(self) -> dict[str, bytes]:
        return rig.content(self.directory / "out/batch/.previous")

    def unpublished(self) -> dict[str, int]:
        found = json.loads(self.command("status", "batch", "--json"))
        counts: dict[str, int] = found["images"]["unpublished"]
        return counts

    def bought(self) -> int:
        return len(self.served.bill()) - self.before

    def has_its_files(self) -> None:
        """Compare the files with the ledger."""
        assert "all as they were saved" in self.command("verify", "batch")

    def is_whole(self) -> None:
        """Compare files, ledger and bill; no image may be bought twice."""
        self.has_its_files()
        rig.judge(self.directory, self.served.bill()[self.before :], finished=True)


@pytest.fixture
def shop(tmp_path: Path, served: rig.Endpoint, runs: Station) -> Shop:
    return Shop(tmp_path, served, runs)


def test_first_image_waits_until_it_is_accepted(shop: Shop) -> None:
    out = shop.make("a mug", "a bag")
    assert "2  new images wait for your decision: batchgen review batch" in out
    assert "next: batchgen review batch" in out
    assert (shop.shown(0), shop.shown(1)) == (None, None)
    first = shop.waiting(0).read_bytes()
    assert shop.unpublished() == {"undecided": 2, "accepted": 0, "rejected": 0}
    assert "2  new images wait for your decision" in shop.command("status", "batch")
    planned = shop.plan()
    assert NOTHING in planned
    assert "2  new images wait for your decision" in planned
    assert "2 images (2 not published), all as they were saved" in shop.command("verify", "batch")

    shop.accept(0)
    assert shop.unpublished() == {"undecided": 1, "accepted": 1, "rejected": 0}
    assert "1  accepted, published by the next run or review" in shop.command("status", "batch")
    shop.run()
    assert (shop.shown(0), shop.shown(1)) == (first, None)
    assert not shop.waiting(0).exists()
    assert shop.bought() == 2
    shop.is_whole()


def test_published_image_stays_until_the_new_one_is_accepted(shop: Shop) -> None:
    shop.make("a mug", "a bag")
    shop.accept(0, 1)
    shop.run()
    old = shop.shown()
    out = shop.make("a red mug", "a bag")
    assert "1  new image waits" in out
    assert "replaced" not in out
    assert shop.shown() == old
    second = shop.waiting().read_bytes()
    assert NOTHING in shop.plan()

    shop.reject(0)
    assert "1  rejected in review, to be regenerated" in shop.plan()
    shop.run()
    assert shop.shown() == old
    third = shop.waiting().read_bytes()
    assert third != second
    assert shop.kept() == {".pending/job-000.png~1": second}
    assert NOTHING in shop.plan(), "the new image is undecided"

    shop.accept(0)
    shop.run()
    assert shop.shown() == third
    assert shop.kept() == {".pending/job-000.png~1": second, "job-000.png~1": old}
    assert shop.bought() == 4
    shop.has_its_files()
    assert "1 image is restored" in shop.command("rollback", "batch")
    assert shop.shown() == old
    assert NOTHING in shop.plan()
    shop.has_its_files()


@pytest.mark.parametrize("sidecar", [False, True])
@pytest.mark.parametrize("point", [Point.KEPT, Point.PUBLISHING, Point.PUBLISHED])
def test_publication_killed_is_finished_by_the_next_run(
    point: Point, sidecar: bool, shop: Shop
) -> None:
    output = f"publish: on_accept, sidecar: {str(sidecar).lower()}"
    shop.make("a mug", output=output)
    shop.accept(0)
    shop.run()
    old = shop.shown()
    shop.make("a red mug", output=output)
    new = shop.waiting().read_bytes()
    shop.accept(0)
    shop.run(point=point)
    assert shop.shown() == (new if point is Point.PUBLISHED else old)
    shop.run()
    assert shop.shown() == new
    assert shop.kept() == {"job-000.png~1": old}
    assert not shop.waiting().exists()
    if sidecar:
        record = json.loads(shop.final().with_suffix(".json").read_text(encoding="utf-8"))
        assert record["sha256"] == sha256(new).hexdigest()
        assert not shop.waiting().with_suffix(".json").exists()
    assert shop.bought() == 2
    shop.is_whole()


@pytest.mark.parametrize("point", [Point.PLACING, Point.PLACED])
def test_run_killed_while_an_image_waits_leaves_the_shop_alone(point: Point, shop: Shop) -> None:
    old = shop.publish("a mug")
    shop.write("a red mug")
    shop.run(point=point)
    assert shop.shown() == old
    shop.run()
    assert shop.shown() == old
    assert shop.waiting().exists()
    assert shop.bought() == 2
    shop.is_whole()


def test_edited_file_of_the_shop_is_kept(shop: Shop) -> None:
    shop.publish("a mug")
    shop.final().write_bytes(b"retouched for an hour")
    shop.make("a red mug")
    new = shop.waiting().read_bytes()
    assert shop.shown() == b"retouched for an hour"
    shop.accept(0)
    shop.run()
    assert shop.shown() == new
    assert shop.kept() == {"job-000.png~edited1": b"retouched for an hour"}


def test_file_of_another_program_is_not_replaced(shop: Shop) -> None:
    shop.make("a mug")
    shop.final().write_bytes(b"theirs")
    shop.accept(0)
    out = shop.run()
    assert "job-000: not published: " in out
    assert "is not an image of this job; move it" in out
    assert shop.shown() == b"theirs"
    assert shop.unpublished()["accepted"] == 1
    shop.final().rename(shop.directory / "theirs")
    shop.run()
    assert shop.unpublished()["accepted"] == 0
    shop.is_whole()


def test_file_changed_while_it_waits_is_not_published(shop: Shop) -> None:
    shop.make("a mug")
    shop.accept(0)
    shop.waiting().write_bytes(b"retouched")
    assert "missing, or changed since it was saved" in shop.command("run", "batch.yaml", "--yes")
    assert shop.shown() is None
    assert shop.waiting().read_bytes() == b"retouched"


def test_decision_about_replaceable_image_is_refused(shop: Shop) -> None:
    shop.publish("a mug")
    image, digest = saved(shop.directory, "job-000")
    shop.make("a red mug")
    late = NewDecision(image=image, sha256=digest, decision=Decision.REJECT)
    with closing(open_for_writing(shop.directory / "batchgen.db")) as conn:
        batch = find_batch(conn, "batch").id
        with pytest.raises(ImageChangedError):
            record_decisions(conn, batch, [late], REVIEWER)
    assert shop.unpublished() == {"undecided": 1, "accepted": 0, "rejected": 0}


def test_prompt_changed_back_to_published_costs_nothing(shop: Shop) -> None:
    old = shop.publish("a mug")
    shop.make("a red mug")
    shop.write("a mug")
    assert NOTHING in shop.plan()
    shop.run()
    shop.reject(0)
    assert NOTHING in shop.plan(), "the published image is the one that is planned"
    shop.write("a red mug")
    assert "1  rejected in review" in shop.plan()
    assert shop.shown() == old
    assert shop.bought() == 2


def test_repair_of_published_image_leaves_waiting_one(shop: Shop) -> None:
    old = shop.publish("a mug")
    shop.make("a red mug")
    waiting = shop.waiting().read_bytes()
    shop.final().unlink()
    assert "missing: out/batch/job-000.png" in shop.command("verify", "batch", "--repair", code=1)
    shop.command("resume", "batch")
    assert shop.shown() == old
    assert shop.waiting().read_bytes() == waiting
    assert shop.unpublished()["undecided"] == 1
    shop.run()
    assert shop.bought() == 2
    shop.is_whole()


def test_path_and_format_of_a_waiting_image_change(shop: Shop) -> None:
    old = shop.publish("a mug")
    shop.make("a red mug")
    waiting = shop.waiting().read_bytes()
    shop.make("a red mug", output='publish: on_accept, path: "sub/{{ key }}.{{ ext }}"')
    root = shop.directory / "out/batch"
    assert rig.content(root) == {
        ".pending/sub/job-000.png": waiting,
        "sub/job-000.png": old,
    }
    shop.is_whole()
    shop.accept(0)
    shop.run()
    assert (root / "sub/job-000.png").read_bytes() == waiting
    path = shop.write("a red mug", output='publish: on_accept, path: "sub/{{ key }}.{{ ext }}"')
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("size: 1024x640", "size: 1024x640, output_format: webp"), "utf-8")
    shop.run()
    webp = (root / ".pending/sub/job-000.webp").read_bytes()
    assert (root / "sub/job-000.png").read_bytes() == waiting
    shop.accept(0)
    shop.run()
    assert (root / "sub/job-000.webp").read_bytes() == webp
    assert not (root / "sub/job-000.png").exists(), "it is kept below .previous/"
    shop.is_whole()


def test_at_once_publishes_new_images_and_leaves_waiting_ones(shop: Shop) -> None:
    shop.make("a mug", "a bag")
    shop.make("a red mug", "a bag", output="publish: at_once, keep_previous: 5")
    assert shop.shown(0) is not None
    assert not shop.waiting(0).exists()
    assert shop.shown(1) is None
    assert shop.waiting(1).exists()
    shop.is_whole()


def test_other_commands_know_of_images_that_wait(shop: Shop) -> None:
    shop.make("a mug", "a bag")
    shop.accept(0, 1)
    shop.run()
    shop.make("a red mug", "a bag")
    exported = [
        json.loads(line)
        for line in shop.command("export", "batch", "--what", "images").splitlines()
    ]
    assert {(row["path"], row["state"]) for row in exported} == {
        ("job-000.png", "saved"),
        ("job-001.png", "saved"),
        (".pending/job-000.png", "unpublished"),
    }
    assert "index.html: 2 images" in shop.command("gallery", "batch")
    assert "index.html: 1 image" in shop.command(
        "gallery", "batch", "--unpublished", "--before", "-o", "new"
    )
    assert len(list((shop.directory / "new/thumbs").iterdir())) == 2
    dataset = shop.command("export", "batch", "--dataset", "ds")
    assert "1 image in 1 part in ds" in dataset
    assert "1 left out: not published" in dataset
    metrics = shop.command("status", "batch", "--metrics")
    assert (
        'batchgen_images_unpublished{batch="batch",provider="local",decision="undecided"} 1'
        in metrics
    )

    shop.write("x", "a bag")
    path = shop.directory / "batch.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "job-000" not in line), encoding="utf-8")
    shop.run()
    listed = shop.command("prune", "batch")
    assert "out/batch/job-000.png (job job-000)" in listed
    assert "out/batch/.pending/job-000.png (job job-000, not published)" in listed
    shop.command("prune", "batch", "--yes")
    assert not shop.waiting(0).exists()
    assert shop.unpublished()["undecided"] == 0


def test_import_of_decisions_publishes(shop: Shop) -> None:
    shop.make("a mug", "a bag")
    (shop.directory / "picks.csv").write_text("key,decision\njob-001,accept\n", encoding="utf-8")
    out = shop.command("review", "batch", "--import", "picks.csv", "--by", "client")
    assert "batch: 1 image published" in out
    assert shop.shown(0) is None
    assert shop.shown(1) is not None
    shop.is_whole()


def test_accepted_image_is_published_while_a_run_continues(tmp_path: Path) -> None:
    extra = "output: {publish: on_accept}\n"
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.1") as quick:
        path = rig.manifest(tmp_path, quick.base_url, ["a mug"], extra=extra)
        rig.batchgen("run", path, cwd=tmp_path)
        before = len(quick.bill())
        quick.judge("faults", {"latency": 60})
        path = rig.manifest(tmp_path, quick.base_url, ["a mug", "a bag"], extra=extra)
        with rig.start("run", path, "--yes", cwd=tmp_path) as process:
            rig.wait_for(tmp_path, "SELECT 1 FROM attempts WHERE outcome = 'sending'", run=process)
            decide(tmp_path, Decision.ACCEPT, "job-000")
            final = tmp_path / "out/batch/job-000.png"
            while not final.exists():
                assert process.poll() is None, "the run ended before that"
                time.sleep(0.05)
            rig.wait_for(tmp_path, "SELECT 1 FROM images WHERE path = 'job-000.png'", run=process)
            process.kill()
        assert len(quick.bill()) == before


def ready(browser: Browser, url: str) -> Page:
    page = open_page(browser, url).page
    page.wait_for_selector(".tile[title] img")
    return page


def test_review_shows_current_and_new_and_publishes(browser: Browser, shop: Shop) -> None:
    shop.make("a mug", "a bag")
    shop.accept(0, 1)
    shop.run()
    current = saved(shop.directory, "job-000")
    old = shop.shown(0)
    shop.make("a red mug", "a blue bag")
    new = saved(shop.directory, "job-000")
    waiting = shop.waiting(0).read_bytes()
    with review(shop.directory) as server:
        page = ready(browser, server.url)
        expect(page.locator(".tile .badge.waiting")).to_have_count(2)
        page.keyboard.press("Enter")
        images = page.locator("#stage img")
        expect(images).to_have_count(2)
        assert [one.get_attribute("data-image") for one in images.all()] == [
            str(current[0]),
            str(new[0]),
        ]
        assert page.locator("#stage .tag").all_inner_texts() == ["Current", "New"]
        expect(page.locator("#info")).to_contain_text("Not published. Accept it to publish it.")
        assert shop.shown(0) == old, "looking publishes nothing"

        page.keyboard.press("a")
        page.wait_for_selector('.tile[title="job-000"][data-decision="a"]', state="attached")
        page.keyboard.press("Escape")
        expect(page.locator(f"{tile(page, 'job-000')} .badge.waiting")).to_have_count(0)
        assert shop.shown(0) == waiting
        assert shop.kept() == {"job-000.png~1": old}

        page.keyboard.press("Home")
        page.keyboard.press("u")
        expect(page.locator(".toast")).to_contain_text("a published image stays published")
    shop.is_whole()


def test_review_says_why_an_image_is_not_published(browser: Browser, shop: Shop) -> None:
    shop.make("a mug")
    shop.final().write_bytes(b"theirs")
    with review(shop.directory) as server:
        page = ready(browser, server.url)
        page.keyboard.press("Enter")
        page.keyboard.press("a")
        page.wait_for_selector('.tile[title="job-000"][data-decision="a"]', state="attached")
        info = page.locator("#info")
        for _ in range(60):  # the page asks again at each change only
            page.keyboard.press("Escape")
            page.keyboard.press("Enter")
            page.wait_for_selector("#info h3")
            if "is not an image of this job" in info.inner_text():
                break
            page.wait_for_timeout(500)
        expect(info).to_contain_text("is not an image of this job; move it")
        assert shop.shown() == b"theirs"
        shop.final().unlink()
        expect(page.locator(f"{tile(page, 'job-000')} .badge.waiting")).to_have_count(0)
    assert shop.shown() is not None
    shop.is_whole()
