"""Errors of a plan, of its rows and of its columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import ManifestError
from batchgen.manifest.loader import load_manifest
from batchgen.planning.planner import Planner
from tests.support.plans import STRICT, Plan, faults_of


def test_a_column_that_no_row_has_is_one_fault(plan: Plan) -> None:
    table = "id,title\n" + "".join(f"{n},mug\n" for n in range(1234))
    (fault,) = faults_of(plan, "rows: t.csv\nprompt: 'A {{ titel }}'\n", t_csv=table)
    assert str(fault).endswith("catalog.yaml:2:9: prompt: no column 'titel'; did you mean 'title'?")


def test_a_row_counts_once_however_many_jobs_it_has(plan: Plan) -> None:
    text = STRICT + "matrix: {view: [a, b, c]}\nprompt: 'A {{ 1 // (id | int) }}'\n"
    (fault,) = faults_of(plan, text, t_csv="id\n0\n0\n0\n")
    assert fault.message.endswith("(and 2 more rows)")


def test_no_key_of_an_api_gets_into_a_message(plan: Plan) -> None:
    text = STRICT + "prompt: x\nimages: ['{{ id }}']\n"
    secret = "sk-CANARY0123456789abcdef"
    (fault,) = faults_of(plan, text, t_csv=f"id\n{secret}\n")
    assert secret not in str(fault)


def test_good_jobs_come_first_and_all_faults_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,n\n1,1\n2,0\n3\n4,x\n5,0\n", encoding="utf-8")
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"{STRICT}prompt: 'A {{{{ 6 // (n | int(6)) }}}}'\n", encoding="utf-8")
    jobs = iter(Planner(load_manifest(manifest), provider="local", default_model="m"))
    assert [next(jobs).key, next(jobs).key] == ["1", "4"]
    with pytest.raises(ManifestError) as caught:
        next(jobs)
    assert [(fault.line, fault.message) for fault in caught.value.faults] == [
        (3, "the template fails: integer division or modulo by zero (and 1 more row)"),
        (4, "1 cell, but the header has 2 columns"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("jobs:\n  - A mug\n  - A {{ x\n", 3, "jobs[1]", "line 1 of the template"),
        ("jobs:\n  - A mug\n  - A {{ x }}\n", 3, "jobs[1]", "no column 'x'"),
        ("jobs:\n  - prompt: \"{{ ' ' }}\"\n", 2, "jobs[0].prompt", "the prompt is empty"),
        (
            "jobs:\n  - A\n  - {prompt: B, key: \"{{ ' ' }}\"}\n",
            3,
            "jobs[1].key",
            "the key is empty",
        ),
        ("prompt: A\nimages: [gone.png]\n", 2, "images[0]", "reference image not found"),
        ("prompt: A\nimages: [.]\n", 2, "images[0]", "is not a regular file"),
        ("prompt: A\nmask: ' '\n", 2, "mask", "is empty"),
        ("prompt: A\noutput: {dir: 'x/{{ y }}'}\n", 2, "output.dir", "must not be a template"),
        (
            "prompt: A\nstorage: {endpoint: 'https://x'}\noutput: {dir: 'gs://b/x'}\n",
            2,
            "storage.endpoint",
            "got output.dir gs://b/x; expected the URL in the environment variable GOOGLE_BASE_URL",
        ),
        (
            "prompt: A\nstorage: {region: eu}\noutput: {dir: 'az://b/x'}\n",
            2,
            "storage.region",
            "is for s3:// only",
        ),
        ("prompt: A\noutput: {path: ' .png'}\n", 2, "output.path", "the path has no file name"),
        ("prompt: A\nmatrix: {key: [1]}\n", 2, "matrix", "cannot be the name of a variable"),
        ("prompt: A\nmatrix: {a b: [1], A-b: [1]}\n", 2, "matrix", "are both 'a_b'"),
        ("jobs:\n- {prompt: A, values: {x: 1}, matrix: {x: [1]}}\n", 2, "jobs[0].matrix", "'x' is"),
        ("jobs:\n- {prompt: A, values: {x y: 1, X-Y: 2}}\n", 2, "jobs[0].values", "'x_y'"),
        ("prompt: A\noptions: {size: '{{ x'}\n", 2, "options.size", "template"),
        ("rows: t.csv\nprompt: x\noptions: {size: '{{ i }}'}\n", 3, "options.size", "column 'i'"),
        (
            "rows: t.csv\nprompt: x\nmatrix: {id: [1]}\n",
            3,
            "matrix",
            "'id' is also the name of a column",
        ),
        ("prompt: A\nrows: gone.csv\n", 2, "rows", "no such file"),
        ("prompt: A\nrows: {file: gone.csv}\n", 2, "rows.file", "no such file"),
        ("prompt: A\nrows: {file: t.csv, where: 'a b'}\n", 2, "rows.where", "unexpected"),
        (
            "prompt: A\nrows: {sqlite: t.csv, query: select 1 from p}\n",
            2,
            "rows.sqlite",
            "not a database",
        ),
    ],
)
def test_errors_of_the_manifest_have_their_place(
    plan: Plan, text: str, line: int, path: str, words: str
) -> None:
    (fault,) = faults_of(plan, text, t_csv="id\n1\n" * 99)
    assert (Path(fault.file).name, fault.line, fault.path) == ("catalog.yaml", line, path)
    assert words in fault.message


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("prompt: '{{ empty or empty }}'", "prompt", "the prompt is empty"),
        ("prompt: x\nkey: '{{ long }}'", "key", "at most 200"),
        ("prompt: x\nimages: ['photos/{{ id }}.jpg']", "images[0]", "photos/7.jpg"),
        (
            "prompt: x\nkey: x\noutput: {path: '{{ empty }}'}",
            "output.path",
            "the path has no file name",
        ),
        ("prompt: \"{{ '\\\\ud800' }}\"", "prompt", "surrogate"),
    ],
)
def test_errors_of_a_row_have_its_line(plan: Plan, text: str, path: str, words: str) -> None:
    table = f"id,empty,long\n7,,{'x' * 1000}\n"
    (fault,) = faults_of(plan, f"{STRICT}{text}\n", t_csv=table)
    assert (fault.file, fault.line, fault.path) == ("t.csv", 2, path)
    assert words in fault.message


def test_rows_without_lines_are_named_by_number(plan: Plan) -> None:
    (fault,) = faults_of(
        plan,
        "rows: {file: t.json, strict: true}\nprompt: '{{ a }}'\n",
        t_json='[{"a": "x"}, {"a": null}]',
    )
    assert (fault.file, fault.line, fault.path) == ("t.json", 0, "row 2: prompt")


def test_a_where_that_names_no_column_is_one_fault(plan: Plan) -> None:
    (fault,) = faults_of(
        plan, "rows: {file: t.csv, where: titel}\nprompt: x\n", t_csv="title\na\nb\n"
    )
    assert str(fault).endswith(
        "catalog.yaml:1:28: rows.where: no column 'titel'; did you mean 'title'?"
    )


def test_it_stops_early_and_says_so(plan: Plan) -> None:
    table = "id\n" + "".join(f"{n}\n" for n in range(1000))
    text = STRICT + "prompt: x\nimages: ['{{ id }}.png']\n"
    faults = faults_of(plan, text, max_faults=5, t_csv=table)
    assert len(faults) == 6
    assert any("more than 5 errors" in fault.message for fault in faults)


def test_a_matrix_beyond_all_measure_is_refused(plan: Plan) -> None:
    numbers = list(range(100))
    text = f"prompt: x\nmatrix: {{a: {numbers}, b: {numbers}, c: {numbers}, d: {numbers}}}\n"
    (fault,) = faults_of(plan, text)
    assert "100,000,000 jobs" in fault.message


def test_all_unknown_names_are_reported_at_once(plan: Plan) -> None:
    text = (
        "rows: {file: t.csv, where: 'pricee > 1', fill: [nope]}\n"
        "key: '{{ skuu }}'\n"
        "prompt: >\n  {{ titel }} {{ color }}\n  {{ row['Price'] }} {{ x | default('a') }}\n"
        "images: ['{{ image }}']\n"
        "output: {path: '{{ key }}/{{ nme }}.{{ ext }}'}\n"
        "jobs:\n  - {prompt: '{{ a }} {{ b }} {{ c }}', values: {a: 1}}\n"
    )
    found = [str(fault).split(";")[0] for fault in faults_of(plan, text, t_csv="sku,price\n1,2\n")]
    assert [one.partition("catalog.yaml:")[2] for one in found] == [
        "1:28: rows.where: no column 'pricee'",
        "1:49: rows.fill[0]: no column 'nope'",
        "2:6: key: no column 'skuu'",
        "3:9: prompt: no column 'Price'",
        "3:9: prompt: no column 'color'",
        "3:9: prompt: no column 'titel'",
        "6:10: images[0]: no column 'image'",
        "7:16: output.path: no column 'nme'",
        "9:14: jobs[0].prompt: no column 'b'",
        "9:14: jobs[0].prompt: no column 'c'",
    ]


def test_unknown_names_are_reported_without_a_row(plan: Plan) -> None:
    (fault,) = faults_of(plan, "rows: t.csv\nprompt: '{{ titel }}'\n", t_csv="id,title\n")
    assert "no column 'titel'" in fault.message


@pytest.mark.parametrize(
    ("prompt", "is_error"),
    [("{{ id }} {{ link_2 }}", False), ("{{ id }} {{ link }}", True), ("{{ row['Link'] }}", True)],
)
def test_equal_columns_are_an_error_where_used(plan: Plan, prompt: str, is_error: bool) -> None:
    text, table = f'rows: t.csv\nprompt: "{prompt}"\n', "id,Link,Link\n1,a,b\n"
    if not is_error:
        assert [job.prompt for job in plan(text, t_csv=table)] == ["1 b"]
        return
    (fault,) = faults_of(plan, text, t_csv=table)
    assert "2 columns are called" in fault.message
    assert "expected one of " in fault.message


def test_equal_key_columns_need_a_key(plan: Plan) -> None:
    (fault,) = faults_of(plan, "rows: t.csv\nprompt: x\n", t_csv="id,id\n1,2\n")
    assert "expected a key such as key: '{{ id_1 }}'" in fault.message
    (job,) = plan("rows: t.csv\nprompt: x\nkey: '{{ id_2 }}'\n", t_csv="id,id\n1,2\n")
    assert job.key == "2"


def test_table_is_summarized(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("id;title\n1;Größe\n2\n3;x\n".encode("cp1252"))
    manifest = tmp_path / "m.yaml"
    manifest.write_text("rows: {file: t.csv, where: 'id != \"3\"'}\nprompt: a\n", encoding="utf-8")
    planner = Planner(load_manifest(manifest), provider="local", default_model="m")
    assert planner.rows.summary() is None
    assert len(list(planner)) == 2
    summary = "t.csv: semicolon-separated, cp1252, 2 columns, 3 rows, 1 left out by where"
    assert planner.rows.summary() == summary
    encoding, short = map(str, planner.warnings)
    assert "t.csv: not UTF-8: byte 0xf6 at offset 13; read as cp1252" in encoding
    assert "t.csv:3: 1 row has fewer cells than the header" in short


def test_repeated_line_of_a_table_list_is_numbered(plan: Plan) -> None:
    jobs = plan("rows: t.txt\nprompt: '{{ line }}'\n", t_txt="a cat\na dog\na cat\na cat\n")
    assert [job.key for job in jobs] == [
        "a-cat-56d6590fccf1",
        "a-dog-7b8df1ad17a3",
        "a-cat-56d6590fccf1-2",
        "a-cat-56d6590fccf1-3",
    ]
    assert [job.kind.is_variant for job in jobs] == [False, False, True, True]
