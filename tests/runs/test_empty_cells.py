"""Prompts with holes: empty cells are reported, refused in most rows, or filled from above."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import ManifestError
from batchgen.job import PlannedJob
from batchgen.manifest.loader import load_manifest
from batchgen.manifest.printed_variables import printed_names
from batchgen.planning.planner import Planner
from tests.support import rig

SHOP = """\
Handle,Title,Vendor,Option1 Value
mug,Blue mug,Acme,Red
mug,,,Green
mug,,,Blue
bag,,Weave,Small
bag,Bag,,Large
"""
PROMPT = 'prompt: "Studio photo of {{ title }}, {{ option1_value }}, by {{ vendor }}"\n'
KEY = 'key: "{{ handle }}/{{ option1_value }}"\n'


def plan(
    directory: Path, text: str, table: str, name: str = "p.csv"
) -> tuple[list[PlannedJob], str]:
    """Plan a manifest next to a table; return the jobs and the warnings."""
    (directory / name).write_text(table, encoding="utf-8")
    (directory / "cat.yaml").write_text(text, encoding="utf-8")
    planner = Planner(load_manifest(directory / "cat.yaml"), provider="local", default_model="m")
    jobs = list(planner)
    return jobs, "\n".join(map(str, planner.warnings))


@pytest.mark.fault("K26")
def test_case_26_is_refused_and_filled(tmp_path: Path) -> None:
    table = "Handle,Title,Vendor,Option1 Value\nmug,Blue mug,Acme,Red\nmug,,,Green\nmug,,,Blue\n"
    rows = "provider: local\nrows: {{file: p.csv, where: option1_value{}}}\n"
    with pytest.raises(ManifestError) as caught:
        plan(tmp_path, rows.format("") + KEY + PROMPT, table)
    first = str(caught.value.faults[0])
    assert "cat.yaml:4:9: prompt: {{ title }} is empty in 2 of 3 rows (p.csv:3, p.csv:4);" in first
    jobs, warnings = plan(tmp_path, rows.format(", fill: [title, vendor]") + KEY + PROMPT, table)
    assert [job.prompt for job in jobs] == [
        f"Studio photo of Blue mug, {option}, by Acme" for option in ("Red", "Green", "Blue")
    ]
    assert not warnings


@pytest.mark.fault("K26")
def test_holes_are_shown_by_plan_check_and_run(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,title\n1,Mug\n2,\n3,Cup\n4, \n", encoding="utf-8")
    manifest = tmp_path / "cat.yaml"
    manifest.write_text(
        "provider: local\nrows: p.csv\nprompt: 'photo of {{ title }}'\n", encoding="utf-8"
    )
    for command in ("check", "plan", "run"):
        done = rig.batchgen(command, manifest, cwd=tmp_path)
        assert "cat.yaml:3:9: prompt: {{ title }} is empty in 2 of 4 rows (p.csv:3, p.csv:5)" in (
            done.stderr
        )


def test_allowed_holes_are_not_reported(tmp_path: Path) -> None:
    text = "rows: {file: p.csv, allow_empty: [Title]}\nprompt: 'A {{ title }} cup'\n"
    jobs, warnings = plan(tmp_path, text, "id,title\n1,\n2,\n3,Mug\n")
    assert (len(jobs), warnings) == (3, "")


def test_rows_left_out_by_where_are_not_counted(tmp_path: Path) -> None:
    text = "rows: {file: p.csv, where: id != '9'}\nprompt: 'A {{ title }} cup'\n"
    _, warnings = plan(tmp_path, text, "id,title\n9,\n9,\n9,\n1,Mug\n")
    assert warnings == ""


def test_zero_and_false_are_no_holes(tmp_path: Path) -> None:
    rows = '{"id": 1, "n": 0}\n{"id": 2, "n": false}\n{"id": 3, "n": ""}\n'
    _, warnings = plan(tmp_path, "rows: p.jsonl\nprompt: 'A {{ n }}'\n", rows, "p.jsonl")
    assert "is empty in 1 of 3 rows (p.jsonl:3)" in warnings


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("a {{ title }} by {{ vendor }}", {"title", "vendor"}),
        ("{{ title | upper | trim }}", {"title"}),
        ("{{ row['Body (HTML)'] | striptags }}", {"body_html"}),
        ("{{ title.upper() }}", {"title"}),
        ("{{ title ~ ', ' ~ size }}", {"title", "size"}),
        ("{{ title or handle }}", set()),
        ("{{ title if title else 'x' }}", set()),
        ("{{ size if title else 'x' }}", {"size"}),
        ("{{ title | default('x', true) }}", set()),
        ("{{ title | default('x', boolean=true) }}", set()),
        ("{{ title | default('x') }}", {"title"}),
        ("{% if title %}{{ title }}{% endif %}", set()),
        ("{% if title %}{{ size }}{% endif %}", {"size"}),
        ("{% if not title %}x{% else %}{{ title }}{% endif %}", set()),
        ("{% if a %}{% elif title %}{{ title }}{% endif %}", set()),
        ("{% if row['Title'] %}{{ title }}{% endif %}", set()),
        ("{% for tag in tags %}{{ tag }}{% endfor %}", set()),
        ("{% set t = title or 'x' %}{{ t }}", set()),
        ("{{ title }}{% if title %}!{% endif %}", {"title"}),
    ],
)
def test_printed_names_are_those_without_a_way_out(template: str, names: set[str]) -> None:
    assert printed_names(template) == names


def test_fill_stays_within_a_product(tmp_path: Path) -> None:
    text = "rows: {file: p.csv, fill: [Title, vendor]}\n" + KEY + PROMPT
    jobs, warnings = plan(tmp_path, text, SHOP)
    assert [job.prompt.removeprefix("Studio photo of ") for job in jobs] == [
        "Blue mug, Red, by Acme",
        "Blue mug, Green, by Acme",
        "Blue mug, Blue, by Acme",
        ", Small, by Weave",
        "Bag, Large, by Weave",
    ]
    assert "{{ title }} is empty in 1 of 5 rows (p.csv:5)" in warnings


def test_filled_cells_are_seen_under_both_names(tmp_path: Path) -> None:
    text = "rows: {file: p.csv, fill: [title]}\n" + KEY + "prompt: \"{{ row['Title'] }}\"\n"
    jobs, _ = plan(tmp_path, text, SHOP)
    assert jobs[1].prompt == "Blue mug"


def test_fill_by_names_the_product_column(tmp_path: Path) -> None:
    table = "sku,style,title\n1,A,Mug\n2,A,\n3,B,Bag\n4,,\n"
    text = "rows: {file: p.csv, fill: [title], fill_by: Style}\nprompt: 'x {{ title }}'\n"
    jobs, _ = plan(tmp_path, text, table)
    assert [job.prompt for job in jobs] == ["x Mug", "x Mug", "x Bag", "x"]


def test_empty_product_cell_belongs_above_if_it_is_filled(tmp_path: Path) -> None:
    table = "sku,handle,title\n1,mug,Mug\n2,,\n3,bag,Bag\n"
    text = "rows: {file: p.csv, fill: [handle, title]}\nprompt: '{{ handle }} {{ title }}'\n"
    jobs, _ = plan(tmp_path, text, table)
    assert [job.prompt for job in jobs] == ["mug Mug", "mug Mug", "bag Bag"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("fill: [titel]", "rows.fill[0]: no column 'titel'; did you mean 'title'?"),
        ("fill: [title], fill_by: handel", "rows.fill_by: no column 'handel'; did you mean"),
        ("allow_empty: [vendr]", "rows.allow_empty[0]: no column 'vendr'; did you mean 'vendor'?"),
    ],
)
def test_unknown_columns_of_rows_options_are_errors(
    tmp_path: Path, rows: str, message: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        plan(tmp_path, f"rows: {{file: p.csv, {rows}}}\nprompt: x\n", SHOP)
    assert any(message in str(fault) for fault in caught.value.faults)


def test_fill_needs_a_product_column(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"rows\.fill: no column says which rows are one"):
        plan(tmp_path, "rows: {file: p.csv, fill: [title]}\nprompt: x\n", "sku,title\n1,\n")


CELL = st.sampled_from(["", " ", "a", "b"])


@given(st.lists(st.tuples(st.sampled_from("xyz"), CELL, CELL), min_size=1, max_size=12))
def test_fill_takes_only_values_of_the_same_product(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]]
) -> None:
    directory = tmp_path_factory.getbasetemp()
    table = "n,handle,a,b\n" + "".join(
        f"{number},{handle},{a},{b}\n" for number, (handle, a, b) in enumerate(cells)
    )
    text = (
        "rows: {file: p.csv, fill: [a, b], allow_empty: [a, b]}\nkey: '{{ n }}'\n"
        "prompt: '{{ handle }}|{{ a }}|{{ b }}|'\n"
    )
    jobs, _ = plan(directory, text, table)
    expected: list[str] = []
    above, product = ["", ""], ""
    for handle, *own in cells:
        above = above if handle == product else ["", ""]
        product = handle
        above = [value if value.strip() else kept for value, kept in zip(own, above, strict=True)]
        shown = [kept or value for value, kept in zip(own, above, strict=True)]
        expected.append(f"{handle}|{shown[0]}|{shown[1]}|")
    assert [job.prompt for job in jobs] == expected
