"""`batchgen report --format html`: one file for a mail, in files and in Chromium."""

from __future__ import annotations

import base64
import io
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser

from batchgen.images.thumbnail import thumbnail_bytes
from batchgen.job import BatchId
from batchgen.ledger.attempts import settle_attempt
from batchgen.ledger.batches import BatchRow
from batchgen.ledger.budgets import Budget
from batchgen.ledger.ledger import Ledger
from batchgen.ledger.made_images import MadeImage
from batchgen.ledger.review import ImageFile
from batchgen.ledger.run_report import run_report
from batchgen.ledger.runs import end_run
from batchgen.money import Micros
from batchgen.report.run import Morning
from batchgen.review.image_files import ImageFiles
from batchgen.review.report_page import (
    MOST_IMAGE_BYTES,
    MOST_IMAGES,
    ReportSources,
    report_page,
)
from tests.review.big import big_batch
from tests.review.browser import open_page
from tests.support import rig
from tests.support.builders import LOST, REFUSED, enroll, first, planned, send, start

LONGEST_LINE = 998
"""RFC 5322, section 2.1.1."""


class Parts(HTMLParser):
    """The elements, images and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags = set[str]()
        self.images = list[tuple[str, bytes]]()
        self.links = list[str]()
        self.texts = list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = {name: value or "" for name, value in attrs}
        self.links += [values[name] for name in ("href", "src", "background") if name in values]
        if tag == "img":
            head, _, data = values["src"].partition(",")
            assert head == "data:image/jpeg;base64"
            self.images.append((values["alt"], base64.b64decode(data)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def report(directory: Path, *flags: str) -> Parts:
    return Parts(rig.batchgen("report", "shop", "--format", "html", *flags, cwd=directory).stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two runs: the second replaced one image, made one and left two problems."""
    directory = tmp_path_factory.mktemp("shop")
    manifest = directory / "shop.yaml"
    manifest.write_text(
        "provider: local\nrows: t.csv\nkey: '{{ id }}'\nprompt: 'A {{ title }}'\nrules: warn\n"
        "options: {size: '{{ size }}'}\nlimits: {max_cost: 1.00}\n",
        encoding="utf-8",
    )
    table = directory / "t.csv"
    rows = "id,title,size\nmug,mug,1024x1024\nbowl,bowl,1024x1024\n"
    table.write_text(rows, encoding="utf-8")
    rig.batchgen("run", manifest, cwd=directory)
    rows = rows.replace("bowl,bowl", "bowl,blue bowl")
    rows += "tote,tote,1024x1024\nsign,forbidden-word sign,1024x1024\nshelf,shelf,1920x1080\n"
    table.write_text(rows, encoding="utf-8")
    rig.batchgen("budget", "--month", "50", "--db", directory / "batchgen.db", cwd=directory)
    rig.batchgen("run", manifest, cwd=directory, code=1)
    return directory


def test_page_shows_before_and_after(shop: Path) -> None:
    page = report(shop)
    out = shop / "out" / "shop"
    expected = {
        "bowl, before": out / ".previous" / "bowl.png~1",
        "bowl, after": out / "bowl.png",
        "tote": out / "tote.png",
    }
    assert [name for name, _ in page.images] == list(expected)
    for name, content in page.images:
        assert content == thumbnail_bytes(expected[name], 280, "jpg")


def test_page_says_what_the_text_report_says(shop: Path) -> None:
    text = report(shop).text
    for part in (
        "1 failed, 1 blocked",
        "1 replaced 1 new 2 need you 3 of 5 done",
        "charged $0.08",
        "possible $0.00",
        "budget of the run $1.00",
        "budget for this month (UTC) $50.00",
        "run 1 charged $0.08",
        "1 failed, invalid_value: Invalid size '1920x1080'",
        "t.csv:6 shelf",
        "1 blocked, column title, all with the word 'forbidden-word'",
        "t.csv:5 sign",
        "batchgen export shop --failed",
        "writes a manifest of these jobs to fix and run",
    ):
        assert part in text


def test_older_run_shows_what_it_made(shop: Path) -> None:
    page = report(shop, "--run", "1")
    kept = shop / "out" / "shop" / ".previous" / "bowl.png~1"
    assert [name for name, _ in page.images] == ["mug", "bowl"]
    assert page.images[1][1] == thumbnail_bytes(kept, 280, "jpg")
    assert "batchgen report shop --run 1" in page.text


def test_page_loads_and_runs_nothing(shop: Path) -> None:
    text = rig.batchgen("report", "shop", "--format", "html", cwd=shop).stdout
    page = Parts(text)
    assert not page.tags & {"script", "link", "iframe", "object", "form", "svg", "video"}
    assert all(link.startswith("data:image/jpeg") for link in page.links)
    assert not re.search(r"url\(|@import|@font-face|flex|display: ?grid", text)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= LONGEST_LINE


def test_file_replaces_an_earlier_report_only(shop: Path, tmp_path: Path) -> None:
    page = tmp_path / "last-night.html"
    for _ in range(2):
        said = rig.batchgen("report", "shop", "-o", page, cwd=shop).stdout
        assert said.startswith(f"{page}: report of run 2 (")
    assert Parts(page.read_text(encoding="ascii")).images
    page.write_text("<h1>My shop</h1>", encoding="utf-8")
    refused = rig.batchgen("report", "shop", "-o", page, cwd=shop, code=2).stderr
    assert "is not a report of batchgen" in refused
    assert page.read_text(encoding="utf-8") == "<h1>My shop</h1>"
    text = tmp_path / "report.txt"
    rig.batchgen("report", "shop", "-o", text, cwd=shop)
    assert text.read_text(encoding="utf-8").startswith("shop, run 2: 1 made, 1 replaced")
    assert "exists already" in rig.batchgen("report", "shop", "-o", text, cwd=shop, code=2).stderr
    missing = Path("/proc/none/a.html")
    assert "cannot be written" in (
        rig.batchgen("report", "shop", "-o", missing, cwd=shop, code=2).stderr
    )


def test_list_of_runs_is_a_page_too(shop: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.html"
    rig.batchgen("report", "shop", "--list", "-o", path, cwd=shop)
    text = Parts(path.read_text(encoding="ascii")).text
    assert "shop: 2 runs" in text
    assert text.index("run started took new replaced charged possible exit 2 20") > 0


def test_missing_images_are_named_in_the_page(shop: Path, tmp_path: Path) -> None:
    copied = tmp_path / "shop"
    for name, content in rig.content(shop).items():
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes(content)
    (copied / "out" / "shop" / ".previous" / "bowl.png~1").unlink()
    (copied / "out" / "shop" / "tote.png").write_bytes(b"edited")
    with closing(sqlite3.connect(copied / "batchgen.db")) as conn:
        conn.execute(
            "UPDATE images SET root = 'az://shop/x' WHERE state = 'saved' AND path LIKE 'bowl%'"
        )
        conn.commit()
    page = report(copied)
    assert page.images == []
    assert "the file is not kept any more: bowl.png" in page.text
    assert "the bucket cannot be opened" in page.text
    assert "the file was changed after batchgen saved it: tote.png" in page.text


def test_page_shows_forty_images_and_counts_the_rest(tmp_path: Path) -> None:
    big_batch(tmp_path, 50, name="shop")
    page = report(tmp_path)
    assert len(page.images) == MOST_IMAGES
    assert "and 10 more new" in page.text
    assert "warning: size differs" in page.text


NO_BATCH = BatchRow(
    id=BatchId(1),
    name="b",
    provider="local",
    manifest_path="b.yaml",
    manifest="",
    manifest_sha256="",
)
"""A batch without buckets."""


def sources(directory: Path, images: list[MadeImage]) -> ReportSources:
    return ReportSources(
        images=images,
        budgets=[Budget(period="day", max_cost=Micros(5_000_000), used=Micros(1_000_000))],
        files=ImageFiles(directory / "batchgen.db", NO_BATCH, directory),
    )


def noise(directory: Path, number: int) -> MadeImage:
    """Return an image that hardly compresses."""
    path = directory / "out" / f"{number}.png"
    path.parent.mkdir(exist_ok=True)
    Image.effect_noise((300, 300), 200).convert("RGB").save(path)
    digest = sha256(path.read_bytes()).hexdigest()
    file = ImageFile(
        id=number, root="out", path=path.name, sha256=digest, format="png", state="saved"
    )
    return MadeImage(key=f"k{number}", source="", is_new=True, file=file, before=None, warnings=())


def test_thumbnails_have_a_limit_in_total(ledger: Ledger, tmp_path: Path) -> None:
    run = start(ledger, enroll(ledger, [planned(0)]))
    found = replace(run_report(ledger.conn, "b", run), new=MOST_IMAGES)
    morning = Morning(report=found, suspects=(), next_step="look")
    images = [noise(tmp_path, number) for number in range(MOST_IMAGES)]
    text = report_page(morning, sources(tmp_path, images))
    shown = len(Parts(text).images)
    assert 10 < shown < MOST_IMAGES
    assert f"and {MOST_IMAGES - shown} more new" in Parts(text).text
    assert len(text) < MOST_IMAGE_BYTES + 100_000


def test_video_and_damaged_image_are_named(ledger: Ledger, tmp_path: Path) -> None:
    run = start(ledger, enroll(ledger, [planned(0)]))
    morning = Morning(
        report=run_report(ledger.conn, "b", run), suspects=(), next_step="batchgen look"
    )
    damaged = tmp_path / "out" / "2.png"
    good = noise(tmp_path, 2)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    digest = sha256(damaged.read_bytes()).hexdigest()
    images = [
        replace(good, file=replace(good.file, format="mp4", path="clip.mp4")),
        replace(good, file=replace(good.file, sha256=digest)),
    ]
    page = report_page(morning, sources(tmp_path, images))
    assert "a video: clip.mp4" in page
    assert "the file cannot be decoded: 2.png" in page
    assert str(tmp_path) not in page


@pytest.fixture
def hostile(ledger: Ledger, tmp_path: Path) -> str:
    """A report of a stopped run with an uncertain job and texts that look like HTML."""
    nasty = planned(1)._replace(key="<b>\u202ekey</b>", source="a&b.csv:3")
    batch = enroll(ledger, [planned(0), nasty])
    run = start(ledger, batch, waste=0)
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), LOST)
    refusal = replace(REFUSED, message="<script>alert(1)</script> \u00fc \U0001f600 " + "x" * 900)
    settle_attempt(ledger, send(ledger, run, first(ledger, batch)), refusal)
    end_run(ledger, run, stopped="<img src=x> the key is wrong", exit_code=3)
    morning = Morning(
        report=run_report(ledger.conn, "b", None), suspects=(), next_step="batchgen look   # <i>"
    )
    return report_page(morning, sources(tmp_path, []))


def test_texts_of_others_are_shown_as_text(hostile: str) -> None:
    page = Parts(hostile)
    assert not page.tags & {"script", "img", "i"}
    assert "<script>alert(1)</script> \u00fc \U0001f600" in page.text
    assert "<b>\u202ekey</b>" in page.text
    assert "a&b.csv:3" in page.text
    assert "stopped: <img src=x> the key is wrong" in page.text
    assert hostile.isascii()


def test_uncertain_requests_have_price_and_name(hostile: str, ledger: Ledger) -> None:
    text = Parts(hostile).text
    (attempt,) = ledger.conn.execute("SELECT id FROM attempts WHERE billed = 'maybe'").fetchone()
    assert "1 uncertain (charged $0.00, possible $0.04)" in text
    assert "batchgen retry b --uncertain rebuys them for $0.04" in text
    assert attempt in text
    assert "Stopped, 1 failed, 1 uncertain" in text
    assert "budget for today (UTC) $5.00 $4.00 left" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_readable_on_a_phone(browser: Browser, shop: Path, scheme: str) -> None:
    path = shop / "page.html"
    rig.batchgen("report", "shop", "-o", path, cwd=shop)
    rig.batchgen("report", "shop", "--list", "-o", shop / "runs.html", cwd=shop)
    for name, width in (("page.html", 390), ("page.html", 1024), ("runs.html", 390)):
        watched = open_page(browser, (shop / name).as_uri(), width=width, scheme=scheme)
        page = watched.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        loaded = "[...document.images].every(one => one.complete && one.naturalWidth)"
        assert page.evaluate(loaded)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
        assert dark == (scheme == "dark")
        assert [one["id"] for one in Axe().run(page).response["violations"]] == []
        assert watched.complaints == []
        assert watched.hosts <= {""}
        page.context.close()


def test_thumbnails_of_a_report_are_kept(shop: Path) -> None:
    report(shop)
    kept = {path: path.stat().st_mtime_ns for path in (shop / "batchgen.db.thumbs").rglob("*.jpg")}
    assert kept
    report(shop)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with Image.open(io.BytesIO(next(iter(kept)).read_bytes())) as image:
        assert max(image.size) == 280
