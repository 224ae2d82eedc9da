"""Comparisons: `gallery --compare`, and the compare view of the review page."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from batchgen.errors import SettingsError
from batchgen.ledger.gallery import GalleryImage
from batchgen.ledger.review import ImageFile
from batchgen.planning.job_context import Cell
from batchgen.review.comparison import MOST_COLUMNS, compare
from tests.review.browser import open_page, review, tile
from tests.support import rig

MANIFEST = """\
name: batch
provider: local
rows: t.csv
key: "{{ id }}/{{ model }}/{{ view }}"
matrix: {model: [gpt-image-2, nano-banana], view: [front, side]}
prompt: "A {{ title }}, {{ view }} view"
rules: warn
options: {quality: "{{ 'high' if model == 'gpt-image-2' else omit }}"}
jobs: [{key: alone, prompt: A window}]
"""
TABLE = "id,title\nmug,mug\nbag,linen bag\nsign,forbidden-word sign\n"


class Grid(HTMLParser):
    """The cells of the table of a page, as texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows = list[list[str]]()
        self._is_cell = self._is_code = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._is_cell = True
        self._is_code = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._is_cell = False
            self.rows[-1][-1] = " ".join(self.rows[-1][-1].split())

    def handle_data(self, data: str) -> None:
        if self._is_cell and not self._is_code:
            self.rows[-1][-1] += f" {data}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a batch over two models and two views; all jobs of one row are blocked."""
    directory = tmp_path_factory.mktemp("models")
    (directory / "batch.yaml").write_text(MANIFEST, encoding="utf-8")
    (directory / "t.csv").write_text(TABLE, encoding="utf-8")
    rig.batchgen("run", "batch.yaml", "--yes", cwd=directory, code=1)
    return directory


def grid(directory: Path, axes: str, *flags: str, output: str = "grid") -> Grid:
    rig.batchgen("gallery", "batch", "--compare", axes, "-o", output, *flags, cwd=directory)
    return Grid((directory / output / "index.html").read_text(encoding="utf-8"))


def plain(rows: list[list[str]]) -> list[list[str]]:
    """Return the rows without the durations."""
    return [[re.sub(r" ?\b[\d.]+s\b", "", cell).strip() for cell in row] for row in rows]


def test_models_are_columns_with_cost_and_seconds(models: Path) -> None:
    found = grid(models, "model")
    assert plain(found.rows) == [
        ["model", "gpt-image-2", "nano-banana"],
        ["average", "4 images $0.0377", "4 images $0.02145"],
        *(
            [f"view: {view} A {title}, {view} view", "gpt-image-2 $0.0377", "nano-banana $0.02145"]
            for title in ("mug", "linen bag")
            for view in ("front", "side")
        ),
    ]
    assert all(re.search(r"\$0\.0377 \d+(\.\d)?s$", row[1]) for row in found.rows[1:])


def test_two_axes_have_two_head_rows(models: Path) -> None:
    found = plain(grid(models, "view,model").rows)
    assert found[0] == ["view", "front", "side"]
    assert found[1] == ["model", *("gpt-image-2", "nano-banana") * 2]
    assert [row[0] for row in found[3:]] == ["1", "2"]
    assert found[3][1] == "front, gpt-image-2 A mug, front view $0.0377"
    page = (models / "grid" / "index.html").read_text(encoding="utf-8")
    assert '<th scope="colgroup" colspan="2" dir="auto">front</th>' in page


def test_images_outside_the_matrix_follow(models: Path) -> None:
    grid(models, "model", "--show", "key")
    page = (models / "grid" / "index.html").read_text(encoding="utf-8")
    _, _, rest = page.partition("Not in the comparison")
    assert rest.count("<figure") == 1
    assert 'data-key="alone"' in rest
    grid(models, "model", "--only", "mug/*")
    page = (models / "grid" / "index.html").read_text(encoding="utf-8")
    assert "Not in the comparison" not in page


def test_missing_image_has_its_state(models: Path, tmp_path: Path) -> None:
    for name, content in rig.content(models).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    text = MANIFEST.replace("A {{ title }}", "A {{ title if model == 'nano-banana' else 'x' }}")
    (tmp_path / "batch.yaml").write_text(text, encoding="utf-8")
    rig.batchgen("run", "batch.yaml", "--yes", cwd=tmp_path, code=1)
    rows = plain(grid(tmp_path, "model").rows)
    assert [row for row in rows if row[2] == "blocked"] == [
        [f"view: {view} A x, {view} view", "gpt-image-2 $0.0377", "blocked"]
        for view in ("front", "side")
    ]


def test_show_decides_what_a_grid_says(models: Path) -> None:
    found = grid(models, "model", "--show", "", "--columns", "title", "--only", "mug/*")
    assert found.rows == [
        ["model", "gpt-image-2", "nano-banana"],
        ["mug · view: front", "gpt-image-2", "nano-banana"],
        ["mug · view: side", "gpt-image-2", "nano-banana"],
    ]
    page = (models / "grid" / "index.html").read_text(encoding="utf-8")
    assert "$" not in page.partition("<script>")[0].partition("<main")[2]


def test_unknown_axis_is_refused_with_those_that_exist(models: Path) -> None:
    def said(*flags: str) -> str:
        done = rig.batchgen("gallery", "batch", *flags, "-o", "none", cwd=models, code=2)
        assert not (models / "none").exists()
        return done.stderr

    assert "--compare: the matrix has no axis 'modle'; did you mean 'model'?" in (
        said("--compare", "modle")
    )
    assert "there are: model, view" in said("--compare", "quality")
    assert "no image to show has the axis" in said("--compare", "model", "--only", "alone")


def test_batch_without_matrix_has_no_comparison(fifty: Path) -> None:
    done = rig.batchgen("gallery", "batch", "--compare", "model", cwd=fifty, code=2)
    assert done.stderr == ("--compare: the manifest has no matrix; expected one to compare by\n")


def test_missing_table_is_named(models: Path, tmp_path: Path) -> None:
    for name, content in rig.content(models).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "t.csv").unlink()
    done = rig.batchgen("gallery", "batch", "--compare", "model", cwd=tmp_path, code=2)
    assert done.stderr.startswith("--compare: batch.yaml:3:7: rows:")
    assert "t.csv" in done.stderr


def test_single_file_holds_a_grid(models: Path) -> None:
    flags = ("--compare", "view", "--single", "--pick", "-o", "one.html")
    rig.batchgen("gallery", "batch", *flags, cwd=models)
    page = (models / "one.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 9
    assert page.count('class="heart"') == 9
    head, _, data = page.partition('src="data:image/webp;base64,')
    assert head
    assert base64.b64decode(data.partition('"')[0]).startswith(b"RIFF")


def image(number: int, key: str, *, prompt: str = "p") -> GalleryImage:
    file = ImageFile(id=number, root="o", path="p", sha256="s", format="png", state="saved")
    return GalleryImage(
        file=file,
        before=None,
        width=1,
        height=1,
        key=key,
        source="b.yaml",
        prompt=prompt,
        model="m",
        cost=30_000 * number,
        seconds=float(number),
    )


def test_variations_share_a_cell() -> None:
    cells = {
        f"{value}-{copy}": Cell(source="b.yaml", values={"a": value})
        for value in (1, True, "x y")
        for copy in (1, 2)
    }
    images = [image(number, key) for number, key in enumerate(cells, 1)]
    found = compare(images, cells, ["a"], {})
    assert found.columns == [("1",), ("true",), ("x y",)]
    (row,) = found.rows
    assert [[one.key for one in cell.images] for cell in row.cells] == [
        ["1-1", "1-2"],
        ["True-1", "True-2"],
        ["x y-1", "x y-2"],
    ]
    assert row.prompt == "p"
    assert [(total.cost, total.seconds) for total in found.totals] == [
        ("$0.045", "1.5s"),
        ("$0.105", "3.5s"),
        ("$0.165", "5.5s"),
    ]


def test_rows_differ_by_line_and_other_axes() -> None:
    cells = {
        f"{source}{a}{b}": Cell(source=source, values={"a": a, "b": b})
        for source in ("t:1", "t:2")
        for a in (1, 2)
        for b in (3, 4)
    }
    shown = [image(n, key) for n, key in enumerate(cells, 1) if not key.startswith("t:23")]
    del shown[-1]
    found = compare(shown, cells, ["b"], {"t:224": "failed"})
    assert [(row.source, row.others) for row in found.rows] == [
        ("t:1", "a: 1"),
        ("t:1", "a: 2"),
        ("t:2", "a: 1"),
        ("t:2", "a: 2"),
    ]
    assert [cell.note for cell in found.rows[-1].cells] == ["", "failed"]
    both = compare(shown, cells, ["b", "a"], {})
    assert both.heads == [[("3", 2), ("4", 2)], [("1", 1), ("2", 1), ("1", 1), ("2", 1)]]
    assert [row.source for row in both.rows] == ["t:1", "t:2"]


def test_too_many_columns_are_refused() -> None:
    cells = {str(n): Cell(source="t", values={"a": n}) for n in range(MOST_COLUMNS + 1)}
    with pytest.raises(SettingsError, match=f"51 columns; expected at most {MOST_COLUMNS}"):
        compare([image(1, "1")], cells, ["a"], {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_grid_scrolls_within_the_page(browser: Browser, models: Path, scheme: str) -> None:
    rig.batchgen("gallery", "batch", "--compare", "model,view", "-o", "seen", cwd=models)
    for width in (1440, 390):
        watched = open_page(
            browser, (models / "seen" / "index.html").as_uri(), width=width, scheme=scheme
        )
        page = watched.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        head = page.locator("thead th[scope=col]").first
        label = page.locator("tbody th").first
        page.evaluate("document.querySelector('main').scrollTo(200, 200)")
        box, side = head.bounding_box(), label.bounding_box()
        assert box is not None
        assert side is not None
        assert box["y"] < 200
        assert side["x"] == 0
        assert [one["id"] for one in Axe().run(page).response["violations"]] == []
        page.locator("figure a").first.click()
        about = page.locator("#about")
        expect(about).to_contain_text("gpt-image-2, front · A mug, front view · $0.0377")
        page.keyboard.press("ArrowRight")
        expect(about).to_contain_text("gpt-image-2, side")
        assert watched.complaints == []
        assert watched.hosts <= {""}
        page.context.close()


def test_compare_view_shows_model_cost_and_seconds(browser: Browser, models: Path) -> None:
    with review(models, "--since", "2020-01-01") as server:
        page = open_page(browser, server.url).page
        page.wait_for_selector(f"{tile(page, 'mug/gpt-image-2/front')} img")
        page.click(tile(page, "mug/gpt-image-2/front"))
        page.keyboard.press("c")
        cells = page.locator(".compare-cell .label")
        expect(cells).to_have_count(4)
        texts = [one.inner_text() for one in cells.all()]
    assert re.search(r"gpt-image-2, \$0\.0377, \d", texts[0])
    assert sum("nano-banana, $0.0215, " in text or "$0.0214" in text for text in texts) == 2
