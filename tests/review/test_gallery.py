"""`batchgen gallery`: the checks of its specification, in files and in Chromium."""

from __future__ import annotations

import csv
import io
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from playwright.sync_api import Browser, Page, expect

from batchgen.errors import SettingsError
from batchgen.images.formats import ImageFormat
from batchgen.images.strip import without_metadata
from batchgen.ledger.newest_decisions import Decision
from batchgen.review.picks import Target, match, read_picks
from tests.review.big import big_batch
from tests.review.browser import open_page
from tests.review.decide import decide, saved
from tests.support import rig
from tests.support.c2pa import sign

PRIVATE = ("photo", "gpt-image-2", "nano-banana", "0.0377", "k-000", "t.csv", "out/batch")


def make(directory: Path, *flags: str, code: int = 0) -> str:
    done = rig.batchgen("gallery", "batch", *flags, cwd=directory, code=code)
    return done.stdout + done.stderr


def opened(browser: Browser, directory: Path, width: int = 1280, height: int = 800) -> Page:
    page = (directory / "gallery-batch" / "index.html").as_uri()
    watched = open_page(browser, page, width=width, height=height)
    assert watched.complaints == []
    assert watched.hosts <= {""}, "a gallery asks no host"
    return watched.page


def replace_image(directory: Path, number: int, content: bytes, name: str | None = None) -> None:
    """Give an image other bytes, and another name, in the ledger and on disk."""
    old = f"k-{number:05d}.png"
    (directory / "out" / "batch" / old).unlink(missing_ok=True)
    (directory / "out" / "batch" / (name or old)).write_bytes(content)
    with closing(sqlite3.connect(directory / "batchgen.db")) as conn:
        conn.execute(
            "UPDATE images SET sha256 = ?, path = ? WHERE path = ?",
            (sha256(content).hexdigest(), name or old, old),
        )
        conn.commit()


def without_thumbnails(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory except the shared thumbnails, which can be deleted."""
    found = rig.content(directory)
    return {name: found[name] for name in found if not name.startswith("batchgen.db.thumbs/")}


def test_check_01_opens_from_a_file_without_network(browser: Browser, fifty: Path) -> None:
    make(fifty)
    page = opened(browser, fifty)
    expect(page.locator("figure")).to_have_count(50)
    first = page.locator("figure img").first
    assert first.evaluate("one => one.decode().then(() => one.naturalWidth)") == 64
    page.locator("figure a").first.click()
    expect(page.locator("#view")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#about")).to_have_text("2")


def test_check_02_single_file_has_a_limit(fifty: Path, tmp_path: Path) -> None:
    make(fifty, "-o", "one.html")
    assert (fifty / "one.html").stat().st_size < 5_000_000
    many = tmp_path / "many"
    big_batch(many, 2_000)
    with closing(sqlite3.connect(many / "batchgen.db")) as conn:
        conn.execute("UPDATE images SET width = 1024, height = 1024")
        conn.commit()
    said = make(many, "--single", code=2)
    assert "2,000 images make a file of about" in said
    assert "at most 25 MB" in said
    assert not (many / "gallery-batch.html").exists()


@pytest.mark.parametrize("flags", [("-o", "one.html"), ("-o", "ONE.HTM"), ("--single",)])
def test_single_file_holds_no_full_images(fifty: Path, flags: tuple[str, ...]) -> None:
    before = rig.content(fifty)
    said = make(fifty, *flags, "--size", "full", code=2)
    assert f"{flags[-1]}: a single file holds no full images; expected --size 320 or 640" in said
    assert rig.content(fifty).keys() == before.keys()
    make(fifty, *flags, "--size", "640")
    assert len(without_thumbnails(fifty)) == len(before) + 1


@pytest.mark.timeout(900)
def test_check_03_ten_thousand_images_load_lazily(browser: Browser, tmp_path: Path) -> None:
    big_batch(tmp_path, 10_000)
    with rig.start("gallery", "batch", cwd=tmp_path) as process:
        assert process.wait(800) == 0
    assert (tmp_path / "gallery-batch" / "index.html").stat().st_size < 3_000_000
    page = opened(browser, tmp_path)
    loaded = "[...document.images].filter(one => one.complete && one.naturalWidth).length"
    assert page.evaluate(loaded) < 1_000
    page.keyboard.press("End")
    last = page.locator("figure img").last
    expect(last).to_be_in_viewport()
    assert last.evaluate("one => one.decode().then(() => one.naturalWidth)") == 64


@pytest.mark.parametrize("flags", [(), ("--single",), ("--size", "full"), ("--pick", "--before")])
def test_check_04_nothing_private_is_in_it(fifty: Path, flags: tuple[str, ...]) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x>photo secret</x>")
    info.add_text("prompt", "photo secret")
    buffer = io.BytesIO()
    Image.new("RGB", (80, 40), "blue").save(buffer, "PNG", pnginfo=info)
    replace_image(fifty, 0, buffer.getvalue())
    make(fifty, *flags)
    target = fifty / ("gallery-batch.html" if flags == ("--single",) else "gallery-batch")
    written = rig.content(target) if target.is_dir() else {target.name: target.read_bytes()}
    for name, content in written.items():
        for word in (*PRIVATE, str(fifty), "secret"):
            assert word not in name
            assert word.encode() not in content, f"{word} in {name}"


def test_check_05_what_is_requested_is_there_escaped(fifty: Path) -> None:
    with closing(sqlite3.connect(fifty / "batchgen.db")) as conn:
        conn.execute("UPDATE jobs SET prompt = '<b>photo</b> & more' WHERE id = 1")
        conn.execute("UPDATE attempts SET cost = 2000000 WHERE job_id = 2")
        conn.commit()
    make(fifty, "--show", "prompt,cost,model,key")
    text = (fifty / "gallery-batch" / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;photo&lt;/b&gt; &amp; more" in text
    assert "<b>photo</b>" not in text
    for word in ("$0.0377<", "$2.00<", "gpt-image-2", "k-00000"):
        assert word in text
    said = make(fifty, "--show", "secret", code=2)
    assert "expected key, prompt, cost, model" in said


def test_check_06_second_run_writes_the_same(fifty: Path) -> None:
    make(fifty)
    target = fifty / "gallery-batch"
    first = rig.content(target)
    times = {path: path.stat().st_mtime_ns for path in (target / "thumbs").iterdir()}
    make(fifty)
    assert rig.content(target) == first
    buffer = io.BytesIO()
    Image.new("RGB", (30, 30), "red").save(buffer, "PNG")
    replace_image(fifty, 3, buffer.getvalue())
    make(fifty)
    after = set((target / "thumbs").iterdir())
    assert len(after - times.keys()) == len(times.keys() - after) == 1
    assert all(path.stat().st_mtime_ns == times[path] for path in after & times.keys())


def test_check_07_killed_run_leaves_the_old_page_whole(tmp_path: Path) -> None:
    big_batch(tmp_path, 2_000)
    make(tmp_path, "--only", "k-0000*")
    target = tmp_path / "gallery-batch"
    before = rig.content(target)
    with rig.start("gallery", "batch", cwd=tmp_path) as process:
        while len(list((target / "thumbs").iterdir())) < 60:
            assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    left = rig.content(target)
    assert {name: left[name] for name in before} == before
    make(tmp_path)
    assert not [name for name in rig.content(target) if name.endswith(".part")]


def test_check_08_slider_moves_by_key_and_mouse(browser: Browser, fifty: Path) -> None:
    (fifty / "out" / "batch" / ".previous").mkdir()
    old = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(old, "PNG")
    (fifty / "out" / "batch" / ".previous" / "k-00000.png~1").write_bytes(old.getvalue())
    with closing(sqlite3.connect(fifty / "batchgen.db")) as conn:
        conn.execute(
            "INSERT INTO attempts (id, job_id, run_id, fingerprint, provider, model, started_at,"
            " outcome, billed, price) SELECT 'old', job_id, run_id, 'old', provider, model,"
            " started_at, outcome, billed, price FROM attempts WHERE id = 'a1'"
        )
        conn.execute(
            "INSERT INTO images (job_id, attempt_id, position, state, root, path, sha256, bytes,"
            " width, height, format) SELECT job_id, 'old', 0, 'replaced', root, path, ?, 1, 64, 64,"
            " 'png' FROM images WHERE id = 1",
            (sha256(old.getvalue()).hexdigest(),),
        )
        conn.commit()
    make(fifty, "--before")
    page = opened(browser, fifty)
    expect(page.locator("figure[data-before]")).to_have_count(1)
    page.locator("figure a").first.click()
    slider = page.locator("#shown input")
    slider.press("ArrowRight")
    assert slider.input_value() == "50.5"
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 40)
    assert 20 < float(slider.input_value()) < 30
    names = [one.get_attribute("src") for one in page.locator("#shown img").all()]
    digests = (sha256(old.getvalue()).hexdigest(), saved(fifty, "k-00000")[1])
    assert names == [f"thumbs/{one[:24]}-320.webp" for one in digests]


def test_check_09_accepted_ones_are_those_of_the_export(fifty: Path) -> None:
    decide(fifty, Decision.ACCEPT, "k-00003", "k-00007")
    decide(fifty, Decision.REJECT, "k-00004")
    make(fifty, "--decision", "accept", "--show", "key")
    text = (fifty / "gallery-batch" / "index.html").read_text(encoding="utf-8")
    command = ("export", "batch", "--what", "decisions", "--format", "csv")
    rows = csv.DictReader(io.StringIO(rig.batchgen(*command, cwd=fifty).stdout))
    accepted = [row["key"] for row in rows if row["decision"] == "accept"]
    assert accepted == ["k-00003", "k-00007"]
    assert text.count("<figure") == len(accepted)
    assert all(f'data-key="{key}"' in text for key in accepted)


@pytest.mark.parametrize("show", [(), ("--show", "key")])
def test_check_10_picks_come_back(browser: Browser, fifty: Path, show: tuple[str, ...]) -> None:
    make(fifty, "--pick", *show)
    page = opened(browser, fifty)
    page.locator(".heart").nth(1).click()
    page.locator(".choose input").nth(2).fill('too "dark", =SUM')
    page.locator(".choose input").nth(3).fill("=1+1")
    page.locator(".choose input").nth(4).fill("-5")
    page.reload()
    assert page.locator(".heart").nth(1).get_attribute("aria-pressed") == "true"
    assert page.locator(".choose input").nth(2).input_value() == 'too "dark", =SUM'
    with page.expect_download() as download:
        page.click("#save")
    picks = fifty / "picks.csv"
    download.value.save_as(picks)
    rows = list(csv.DictReader(io.StringIO(picks.read_text(encoding="utf-8"), newline="")))
    assert [(row["heart"], row["comment"]) for row in rows] == [
        ("1", ""),
        ("", 'too "dark", =SUM'),
        ("", "'=1+1"),
        ("", "-5"),
    ]
    assert {"key", "file", "heart", "comment"} <= rows[0].keys()
    with picks.open("a", encoding="utf-8", newline="") as stream:
        stream.write('"unknown","x","1","",""\r\n')
    arguments = ("review", "batch", "--import", picks, "--by", "client")
    done = rig.batchgen(*arguments, cwd=fifty, code=1)
    assert "4 decisions of client recorded" in done.stdout
    assert "unknown: the batch has no such image" in done.stderr
    assert "0 decisions of client" in rig.batchgen(*arguments, cwd=fifty, code=1).stdout
    found = rig.query(
        fifty / "batchgen.db",
        "SELECT key, decision, note FROM decisions JOIN jobs ON jobs.id = job_id ORDER BY key",
    )
    assert [tuple(row) for row in found] == [
        ("k-00001", "accept", ""),
        ("k-00002", "redo", 'too "dark", =SUM'),
        ("k-00003", "redo", "=1+1"),
        ("k-00004", "redo", "-5"),
    ]


def test_check_11_missing_images_are_counted(fifty: Path) -> None:
    (fifty / "out" / "batch" / "k-00002.png").unlink()
    replace_image(fifty, 4, b"no image")
    said = make(fifty, code=1)
    assert "50 images, 2 not available" in said
    assert "k-00002: the file is missing" in said
    text = (fifty / "gallery-batch" / "index.html").read_text(encoding="utf-8")
    assert text.count("not available") == 2


@contextmanager
def over_http(directory: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=os.fspath(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html"
        finally:
            server.shutdown()
            thread.join()


def test_check_12_odd_names_link_everywhere(browser: Browser, fifty: Path) -> None:
    names = ["grün é.png", "a b#c%20d?.png", "😀 & 'q' \".png"]
    for number, name in enumerate(names):
        path = fifty / "out" / "batch" / f"k-{number:05d}.png"
        replace_image(fifty, number, path.read_bytes(), name)
    make(fifty, "--size", "full", "--show", "key")
    target = fifty / "gallery-batch"
    with over_http(target) as url:
        for place in ((target / "index.html").as_uri(), url):
            page = open_page(browser, place).page
            for number in range(3):
                page.locator("figure a").nth(number).click()
                image = page.locator("#shown img")
                assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") == 64
                page.keyboard.press("Escape")
            page.context.close()


def test_check_13_prints_twenty_images_a_page(browser: Browser, fifty: Path) -> None:
    make(fifty, "--show", "key")
    page = opened(browser, fifty, width=794, height=1123)
    page.emulate_media(media="print")
    printed = page.pdf(format="A4", prefer_css_page_size=True)
    assert printed.count(b"/Type /Page\n") == 3
    boxes = [one.bounding_box() for one in page.locator("figure").all()[:8]]
    assert len({box["y"] for box in boxes if box}) == 2
    assert page.locator("figcaption").first.inner_text() == "k-00000"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_check_14_gallery_is_accessible(browser: Browser, fifty: Path, scheme: str) -> None:
    make(fifty, "--pick")
    uri = (fifty / "gallery-batch" / "index.html").as_uri()
    for width in (1440, 390):
        page = open_page(browser, uri, width=width, scheme=scheme).page
        found = Axe().run(page).response
        assert [one["id"] for one in found["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.context.close()


def test_check_15_gallery_writes_nothing_else(fifty: Path) -> None:
    def listing() -> dict[str, bytes]:
        found = without_thumbnails(fifty)
        return {name: found[name] for name in found if not name.startswith("gallery-")}

    before = listing()
    with closing(sqlite3.connect(fifty / "batchgen.db", isolation_level=None)) as conn:
        conn.execute("BEGIN IMMEDIATE")  # as a run that is about to write
        make(fifty)
        conn.execute("ROLLBACK")
    assert listing() == before


def test_files_of_others_are_left_alone(fifty: Path) -> None:
    for name in ("images/logo.png", "thumbs/mine.webp"):
        (fifty / name).parent.mkdir()
        (fifty / name).write_bytes(b"mine")
    make(fifty, "-o", ".", "--size", "full")
    make(fifty, "-o", ".", "--only", "k-00001")
    assert (fifty / "images/logo.png").read_bytes() == b"mine"
    assert (fifty / "thumbs/mine.webp").read_bytes() == b"mine"
    assert len(list((fifty / "thumbs").iterdir())) == 2
    for flags in (("-o", "site"), ("-o", "site/index.html")):
        (fifty / "site").mkdir(exist_ok=True)
        (fifty / "site/index.html").write_text("<h1>My shop</h1>", encoding="utf-8")
        assert "is not a gallery of batchgen" in make(fifty, *flags, code=2)
        assert (fifty / "site/index.html").read_text(encoding="utf-8") == "<h1>My shop</h1>"


def test_columns_of_the_table_are_captions(served: rig.Endpoint, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        'key,Title,photo\na,Blue mug,one\nb,"Bag, large",two\n', encoding="utf-8"
    )
    path = tmp_path / "batch.yaml"
    path.write_text(
        f"name: batch\nprovider: {{name: local, base_url: '{served.base_url}', api_key_env:"
        " CANARY_KEY}\nrows: t.csv\nprompt: '{{ photo }}'\n",
        encoding="utf-8",
    )
    rig.batchgen("run", path, cwd=tmp_path)
    make(tmp_path, "--columns", "Title")
    text = (tmp_path / "gallery-batch" / "index.html").read_text(encoding="utf-8")
    assert 'alt="Blue mug"' in text
    assert 'alt="Bag, large"' in text
    assert "no column 'color'; it has" in make(tmp_path, "--columns", "color", code=2)


@given(st.binary(max_size=200), st.sampled_from(list(ImageFormat)))
def test_stripping_odd_bytes_ends_in_an_error(data: bytes, kind: ImageFormat) -> None:
    head = {ImageFormat.PNG: b"\x89PNG\r\n\x1a\n", ImageFormat.JPEG: b"\xff\xd8"}.get(kind, b"RIFF")
    try:
        without_metadata(head + data, kind)
    except ValueError:
        return


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_stripping_keeps_every_pixel(kind: str) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "secret"
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    image.save(buffer, kind, exif=exif, lossless=True, comment=b"secret")
    data = buffer.getvalue()
    assert b"secret" in data
    stripped = without_metadata(data, ImageFormat(kind.lower()))
    assert b"secret" not in stripped
    with Image.open(io.BytesIO(data)) as old, Image.open(io.BytesIO(stripped)) as new:
        assert old.tobytes() == new.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_stripping_drops_the_statement_of_origin(kind: str) -> None:
    """A C2PA manifest may name the program, the account and the prompt."""
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 90).convert("RGB").save(buffer, kind, lossless=True)
    data = buffer.getvalue()
    image_format = ImageFormat(kind.lower())
    plain = without_metadata(data, image_format)
    assert without_metadata(sign(data), image_format) == plain
    with Image.open(io.BytesIO(data)) as old, Image.open(io.BytesIO(plain)) as new:
        assert old.tobytes() == new.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_stripping_drops_data_after_the_end(kind: str) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 90).convert("RGB").save(buffer, kind, lossless=True)
    data = buffer.getvalue()
    image_format = ImageFormat(kind.lower())
    assert without_metadata(data + b"secret", image_format) == without_metadata(data, image_format)


def test_stripping_drops_comments_between_scans() -> None:
    buffer = io.BytesIO()
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    image.save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    comment = b"\xff\xfe\x00\x08secret"
    stripped = without_metadata(data[:second] + comment + data[second:], ImageFormat.JPEG)
    assert b"secret" not in stripped
    with Image.open(io.BytesIO(data)) as old, Image.open(io.BytesIO(stripped)) as new:
        assert old.tobytes() == new.tobytes()


@given(st.binary(max_size=120))
def test_picks_of_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        picks = read_picks(b"key,heart,comment\n" + data, "picks.csv")
    except SettingsError:
        return
    found = match(picks, [])
    assert len(found.unknown) == len(picks)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"key": "a", "decision": "accept"}\n{"key', "p:2: not JSON"),
        ('{"key": "a", "decision": "redo", "note": "\\ud800"}', "p:1: not JSON"),
        ('{"key": "a", "heart": true}\n\n[]', "p:3: not a JSON object"),
        ('{"name": "a"}', "p:1: columns are name; expected key"),
    ],
)
def test_broken_json_lines_are_refused(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_picks(text.encode(), "p")


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.text("ab", max_size=2))))
def test_last_row_about_an_image_counts(rows: list[tuple[int, bool, str]]) -> None:
    targets = [
        Target(
            image=n, key=str(n), path="", sha256=f"{n}" * 64, decision=None, note=None, prompt=None
        )
        for n in range(4)
    ]
    text = "key,heart,comment\n" + "".join(f"{k},{'1' if h else ''},{c}\n" for k, h, c in rows)
    found = match(read_picks(text.encode(), "p"), targets)
    expected = {
        key: Decision.ACCEPT if heart else Decision.REDO
        for key, heart, comment in rows
        if heart or comment
    }
    assert {one.image: one.decision for one in found.decisions} == expected
