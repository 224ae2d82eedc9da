"""Plain rows become the jobs that the general way makes of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batchgen.errors import ManifestError
from batchgen.job import PlannedJob
from batchgen.manifest.loader import load_manifest
from batchgen.manifest.table import Row
from batchgen.planning.expansion import JobMaker
from batchgen.planning.plain_rows import PlainRows
from batchgen.planning.planner import Planner

CELLS = st.one_of(
    st.sampled_from(["", " ", "a", "mug-1", " mug ", "é", "e\u0301", "a b", "a\nb", "\\N", "🙂"]),
    st.sampled_from(
        ["CON", "con.txt", "lpt1/x", "clockwork", "\ufdd0", "\u200b", "%s %", "{{ x }}"]
    ),
    st.sampled_from(["x/y", "x//y", "/x", "-x", ".x", "a.png", "_", "null"]),
    st.integers(197, 201).map("0".__mul__),
)
HEADS = ("id,title,body", "key,title,index", "title,row,body", "sku,title,handle", "title,title,id")
MANIFESTS = (
    'prompt: "{{ title }}"\n',
    'prompt: "100 % {{ title }}, {{ body }}"\nkey: "{{ id }}-{{ title }}"\n',
    'prompt: "{{ title }}"\noutput: {path: "{{ title }}/{{ key }}.{{ ext }}"}\n',
    'prompt: "{{ key }}: {{ title }}"\nmodel: other\noptions: {size: 7x7}\n',
    'prompt: "{{ title }}"\nkey: "{{ index }}"\noutput: {path: "all/{{ title }}.{{ ext }}"}\n',
    'prompt: "{{ title }} of {{ name }}"\noutput: {path: "{{ title }}"}\n',
    'prompt: "{{ title }}"\nkey: "{{ key }}"\n',
)
ROWS = "name: shop\nrows: {{file: rows.csv{more}}}\n"


class Planned:
    """What a planner makes of a manifest: jobs, faults and warnings."""

    def __init__(self, manifest: Path) -> None:
        planner = Planner(load_manifest(manifest), provider="p", default_model="m")
        self.jobs: list[PlannedJob] = []
        self.faults: list[str] = []
        try:
            for job in planner:
                self.jobs.append(job)
        except ManifestError as error:
            self.faults = [str(fault) for fault in error.faults]
        self.texts = [str(fault) for fault in (*planner.warnings, *planner.rows.all())]
        self.counts = (planner.rows.rows, planner.rows.left_out, planner.rows.at_fault)


def both_ways(manifest: Path) -> tuple[Planned, Planned, int]:
    """Return what is planned in both ways, and how many rows were plain."""
    plain = list[PlannedJob | None]()
    with pytest.MonkeyPatch.context() as patch:
        make = PlainRows.job

        def counted(self: PlainRows, row: Row) -> PlannedJob | None:
            plain.append(make(self, row))
            return plain[-1]

        patch.setattr(PlainRows, "job", counted)
        quick = Planned(manifest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobMaker, "plain_rows", lambda *_: None)
        general = Planned(manifest)
    return quick, general, sum(job is not None for job in plain)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(HEADS),
    st.sampled_from(MANIFESTS),
    st.sampled_from(["", ", where: title != 'a'", ", allow_empty: [title]", ", fill: [title]"]),
    st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=8),
)
@example(HEADS[0], MANIFESTS[0], "", [("one", "a", ""), ("two", "b", "c")])
def test_plain_rows_equal_the_general_way(
    tmp_path: Path, head: str, text: str, more: str, rows: list[tuple[str, str, str]]
) -> None:
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([head.split(","), *rows])
    manifest = tmp_path / "catalog.yaml"
    manifest.write_text(ROWS.format(more=more) + text, encoding="utf-8")
    quick, general, _ = both_ways(manifest)
    assert vars(quick) == vars(general)


@pytest.mark.parametrize(
    ("text", "head", "plain"),
    [
        (MANIFESTS[0], "id,title", 1),
        (MANIFESTS[2], "id,title", 1),
        (MANIFESTS[0], "no,title", 1),
        (MANIFESTS[3], "id,title", 0),
        (MANIFESTS[0] + "count: 2\n", "id,title", 0),
        (MANIFESTS[0] + "matrix: {view: [front]}\n", "id,title", 0),
        (MANIFESTS[0] + "images: [a.png]\n", "id,title", 0),
    ],
)
def test_rows_that_only_fill_texts_are_plain(
    tmp_path: Path, text: str, head: str, plain: int
) -> None:
    """The first row is not: the provider's rules look at a prompt longer than any before."""
    (tmp_path / "rows.csv").write_text(f"{head}\nx1,mug\nx2,bag\nx3, \n", encoding="utf-8")
    (tmp_path / "catalog.yaml").write_text(ROWS.format(more="") + text, encoding="utf-8")
    assert both_ways(tmp_path / "catalog.yaml")[2] == plain


def test_repeated_lines_of_a_list_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a mug\na bag\na mug\n", encoding="utf-8")
    manifest = tmp_path / "catalog.yaml"
    manifest.write_text('rows: rows.txt\nprompt: "{{ prompt }}"\n', encoding="utf-8")
    quick, general, plain = both_ways(manifest)
    assert plain == 1
    assert vars(quick) == vars(general)
    first, _, again = (job.key for job in quick.jobs)
    assert again == f"{first}-2"
