"""Tables of every kind, whole and damaged."""

from __future__ import annotations

import csv
import io
import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest import sqlite_rows
from batchgen.manifest.csv_rows import MAX_CELL_CHARS
from batchgen.manifest.lines import MAX_LINE_CHARS
from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault, normal_name

Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> str:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return write


def fault_of(source: str | FileRows | SqliteRows, base: Path) -> RowsFault:
    with pytest.raises(RowsFault) as caught:
        list(open_rows(source, base))
    return caught.value


def test_columns_go_by_their_own_and_by_their_normal_names(write: Write, tmp_path: Path) -> None:
    write("shop.csv", "Handle,Body (HTML),Image Src\nmug,<p>Mug</p>,a.jpg\n")
    (row,) = open_rows("shop.csv", tmp_path)
    assert (row.number, row.line, row.source) == (1, 2, "shop.csv:2")
    assert row.raw == {"Handle": "mug", "Body (HTML)": "<p>Mug</p>", "Image Src": "a.jpg"}
    assert row.values == {"handle": "mug", "body_html": "<p>Mug</p>", "image_src": "a.jpg"}


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("Body (HTML)", "body_html"),
        ("Image Src", "image_src"),
        ("Google Shopping / MPN", "google_shopping_mpn"),
        (" Title ", "title"),
        ("2nd name", "_2nd_name"),
        ("__x__", "x"),
        ("Größe", "größe"),
        ("Cafe\u0301", "caf\u00e9"),
        ("価格", "価格"),
        ("नाम", "नाम"),
        ("50 %", "_50"),
        ("%%", ""),
    ],
)
def test_normal_names(name: str, normal: str) -> None:
    assert normal_name(name) == normal


@given(st.text())
def test_a_normal_name_can_stand_in_a_template_and_is_its_own_normal_name(name: str) -> None:
    normal = normal_name(name)
    assert not normal or normal.isidentifier()
    assert normal_name(normal) == normal


def test_csv_values_stay_text(write: Write, tmp_path: Path) -> None:
    write("a.csv", "sku,on,size,none\n007,true,1e3,NULL\n")
    (row,) = open_rows("a.csv", tmp_path)
    assert row.values == {"sku": "007", "on": "true", "size": "1e3", "none": "NULL"}


def test_csv_reads_what_spreadsheets_write(write: Write, tmp_path: Path) -> None:
    text = '\ufeffname,text\r\n\r\none,"two\r\nlines, ""quoted"""\r\nlast,x\r\n,\r\n\r\n'
    write("a.csv", text)
    rows = list(open_rows("a.csv", tmp_path))
    assert [(row.number, row.line, row.values["name"]) for row in rows] == [
        (1, 3, "one"),
        (2, 5, "last"),
    ]
    assert rows[0].values["text"] == 'two\r\nlines, "quoted"'


@pytest.mark.parametrize(
    "text", ["name;size\nmug;1,5\n", "name\tsize\nmug\t1,5\n", '"a, b";size\nmug;1,5\n']
)
def test_csv_with_another_delimiter_is_understood(write: Write, tmp_path: Path, text: str) -> None:
    write("a.csv", text)
    (row,) = open_rows("a.csv", tmp_path)
    assert list(row.values.values()) == ["mug", "1,5"]


@pytest.mark.fault("M23")
def test_a_cell_of_a_megabyte_is_read(write: Write, tmp_path: Path) -> None:
    prompt = "x" * (MAX_CELL_CHARS - 10)
    write("a.csv", f"prompt\n{prompt}\n")
    (row,) = open_rows("a.csv", tmp_path)
    assert row.values["prompt"] == prompt


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a,b\n1,2\n1\n", 3, "1 cell, but the header has 2 columns"),
        ("a,b\n1,2,3\n", 2, "3 cells"),
        ("a,,c\n1,,3\n1,2,3\n", 3, "column 2 holds a value but has no name"),
        ("a,b,a\n1,2,3\n", 1, "two columns are called 'a'"),
        ("Body (HTML),body html\n1,2\n", 1, "are both 'body_html'"),
        ('a,b\n1,"2" x\n', 2, "text follows a closing quote"),
        ('a,b\n1,2\n3,"4\n', 3, "never closed"),
        ("a,b\n1,\0\n", 2, "NUL"),
        ("", 0, "is empty"),
        ("\n\n", 0, "is empty"),
        (f"a\n{'x' * (MAX_CELL_CHARS + 1)}\n", 2, "is a quote left open?"),
    ],
)
def test_a_damaged_csv_names_the_line(
    write: Write, tmp_path: Path, text: str, line: int, words: str
) -> None:
    write("a.csv", text)
    fault = fault_of("a.csv", tmp_path)
    assert (fault.file, fault.line, fault.key) == ("a.csv", line, None)
    assert words in fault.message


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them_and_wherever_a_chunk_ends(
    write: Write, tmp_path: Path, end: str
) -> None:
    for shift in range(3):
        header = "name" + "s" * shift
        lines = [header, *(f'"{number}{end}{"x" * 20}"' for number in range(3_000))]
        write("a.csv", end.join(lines))
        rows = list(open_rows("a.csv", tmp_path))
        assert [row.line for row in rows] == list(range(2, 6_002, 2))
        assert rows[-1].values[header] == f"2999{end}{'x' * 20}"


def test_a_file_without_line_breaks_is_no_table(write: Write, tmp_path: Path) -> None:
    write("a.tsv", "name\n" + "x" * MAX_LINE_CHARS)
    fault = fault_of("a.tsv", tmp_path)
    assert fault.line == 2
    assert "a line of more than" in fault.message


@pytest.mark.fault("M13")
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_another_encoding_is_told_with_the_byte(write: Write, tmp_path: Path, name: str) -> None:
    write(name, "name\n" + "x\n" * 5000 + "é\n" + "Caf\u00e9\n")
    broken = (tmp_path / name).read_bytes()[:-3] + b"\xe9\n"
    write(name, broken)
    fault = fault_of(name, tmp_path)
    assert fault.line == 5003
    assert f"byte 0xe9 at offset {len(broken) - 2:,}" in fault.message
    write(name, "name\nx\n".encode("utf-16"))
    assert "UTF-16" in fault_of(name, tmp_path).message


def test_all_wrong_rows_are_reported_and_the_others_read(write: Write, tmp_path: Path) -> None:
    write("a.csv", "a,b\n1\n1,2\n1,2,3\n3,4\n")
    faults: list[RowsFault] = []
    rows = list(open_rows("a.csv", tmp_path, report=faults.append))
    assert [row.values["a"] for row in rows] == ["1", "3"]
    assert [fault.line for fault in faults] == [2, 4]


def test_quotes_inside_a_tsv_cell_are_text(write: Write, tmp_path: Path) -> None:
    lines = [
        '"BE NICE" on a wall\tsign',
        'a wall with "BE NICE"\t"quoted" note',
        'six inches: 6"\t""',
    ]
    write("a.tsv", "prompt\tnote\n" + "\n".join(lines) + "\n")
    rows = list(open_rows("a.tsv", tmp_path))
    assert [row.values["prompt"] for row in rows] == [line.split("\t")[0] for line in lines]
    assert [row.values["note"] for row in rows] == ["sign", '"quoted" note', ""]


def test_a_tsv_cell_quoted_as_a_whole_may_hold_tabs_and_lines(write: Write, tmp_path: Path) -> None:
    write("a.tsv", 'a\tb\tc\n1\t"x ""y""\n\tz\r\n"\t3\n4\t5\t"6\n7"\n8\t9\t10\n')
    rows = list(open_rows("a.tsv", tmp_path))
    assert [tuple(row.values.values()) for row in rows] == [
        ("1", 'x "y"\n\tz\r\n', "3"),
        ("4", "5", "6\n7"),
        ("8", "9", "10"),
    ]
    assert [row.line for row in rows] == [2, 5, 7]


def test_a_tsv_cell_left_open_is_a_fault_of_its_line(write: Write, tmp_path: Path) -> None:
    write("a.tsv", 'a\tb\n1\t2\n"Help, she cried\t2\n3\t4\n')
    assert fault_of("a.tsv", tmp_path).line == 3


_cells = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))


@given(st.lists(st.tuples(_cells, _cells), min_size=1, max_size=5))
@pytest.mark.parametrize(("ending", "dialect"), [("csv", "excel"), ("tsv", "excel-tab")])
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    ending: str,
    dialect: str,
    table: list[tuple[str, str]],
) -> None:
    table = [cells for cells in table if any(cells)]
    text = io.StringIO(newline="")
    csv.writer(text, dialect, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *table])
    path = tmp_path_factory.mktemp("table") / f"t.{ending}"
    path.write_bytes(text.getvalue().encode())
    rows = [tuple(row.values.values()) for row in open_rows(path.name, path.parent)]
    assert rows == table


@given(st.binary(max_size=200))
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_any_bytes_give_rows_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"t.{ending}"
    path.write_bytes(data)
    with suppress(RowsFault):
        list(open_rows(path.name, path.parent))


def test_jsonl_keeps_types_and_tells_bad_lines(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", b'\xef\xbb\xbf{"ID": 7, "Tags": ["a"], "x": null}\n\n{"id": 8}\n[1]\n{"id":\n')
    faults: list[RowsFault] = []
    rows = list(open_rows("a.jsonl", tmp_path, report=faults.append))
    assert [row.values for row in rows] == [{"id": 7, "tags": ["a"], "x": None}, {"id": 8}]
    assert [(row.number, row.source) for row in rows] == [(1, "a.jsonl:1"), (2, "a.jsonl:3")]
    assert [fault.line for fault in faults] == [4, 5]
    assert "a list where an object was expected" in faults[0].message
    assert "not valid JSON" in faults[1].message


def test_jsonl_that_is_not_utf8_says_so(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", b'{"a": "caf\xe9"}\n')
    assert "not UTF-8: byte 0xe9" in fault_of("a.jsonl", tmp_path).message


@pytest.mark.parametrize("wrap", [False, True])
def test_json_is_a_list_of_objects_or_holds_one(write: Write, tmp_path: Path, wrap: bool) -> None:
    rows = [{"Name": "mug"}, {"Name": "bag"}]
    write("a.json", json.dumps({"total": 2, "items": rows, "tags": []} if wrap else rows))
    found = list(open_rows("a.json", tmp_path))
    assert [(row.number, row.line, row.source) for row in found] == [
        (1, 0, "a.json row 1"),
        (2, 0, "a.json row 2"),
    ]
    assert [row.values["name"] for row in found] == ["mug", "bag"]


@pytest.mark.parametrize("document", ["{}", "3", '{"a": [{}], "b": [{}]}'])
def test_json_without_rows_is_a_fault(write: Write, tmp_path: Path, document: str) -> None:
    write("a.json", document)
    assert "holds no rows" in fault_of("a.json", tmp_path).message


def test_json_row_that_is_no_object_is_named(write: Write, tmp_path: Path) -> None:
    write("a.json", '[{"a": 1}, 2]')
    assert fault_of("a.json", tmp_path).path == "row 2"


def shop(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table p (id integer, title text, pic blob)")
        connection.executemany(
            "insert into p values (?, ?, ?)", [(n, f"mug {n}", None) for n in range(1, 1203)]
        )
        connection.commit()


def test_sqlite_rows_keep_types_and_order(tmp_path: Path) -> None:
    shop(tmp_path / "shop.db")
    query = "select id, title as 'The Title', pic from p order by id desc"
    rows = list(open_rows(SqliteRows(sqlite="shop.db", query=query), tmp_path))
    assert len(rows) == 1202
    assert rows[0].values == {"id": 1202, "the_title": "mug 1202", "pic": None}
    assert rows[2].source == "shop.db row 3"


@pytest.mark.parametrize(
    ("query", "key", "words"),
    [
        ("select colour from p", "query", "no such column: colour"),
        ("update sqlite_master set name = 'x'", "query", "may not be modified"),
        ("selekt 1", "query", "syntax error"),
        ("select 1; select 2", "query", "one statement"),
        ("delete from p", "query", "may only read"),
        ("begin", "query", "may only read"),
        ("pragma table_info(p)", "query", "may only read"),
        ("vacuum into 'copy.db'", "query", "may only read"),
        ("attach 'new.db' as x", "query", "may only read"),
        ("select load_extension('x')", "query", "may only read"),
        ("select zeroblob(900000000)", "query", "too big"),
        ("-- nothing", "query", "one SELECT"),
        ("select id, title as ID from p", "query", "name one with AS"),
    ],
)
def test_a_wrong_query_is_told_in_sqlites_words(
    tmp_path: Path, query: str, key: str, words: str
) -> None:
    shop(tmp_path / "shop.db")
    fault = fault_of(SqliteRows(sqlite="shop.db", query=query), tmp_path)
    assert fault.key == key
    assert words in fault.message
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("select json_extract('{\"a\": 3}', '$.a') as x", 3),
        (
            "with t(n) as (select 1 union select n + 1 from t where n < 9) select max(n) from t",
            9,
        ),
        ("select count(*) from f where f match 'mug'", 1),
    ],
)
def test_queries_that_read_are_allowed(tmp_path: Path, query: str, value: int) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("create virtual table f using fts5(title)")
        connection.execute("insert into f values ('blue mug')")
        connection.commit()
    (row,) = open_rows(SqliteRows(sqlite="shop.db", query=query), tmp_path)
    assert list(row.cells) == [value]


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="no timers of processor time")
def test_endless_query_ends_on_ctrl_c(tmp_path: Path) -> None:
    shop(tmp_path / "shop.db")
    endless = "with t(n) as (select 1 union all select n + 1 from t) select count(*) from t"
    rows = open_rows(SqliteRows(sqlite="shop.db", query=endless), tmp_path)
    before = signal.signal(signal.SIGVTALRM, signal.default_int_handler)
    try:
        # Counts the time of this process, which is the time of the query.
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            next(rows)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_endless_query_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "MAX_SILENT_STEPS", 1_000_000)
    shop(tmp_path / "shop.db")
    endless = "with t(n) as (select 1 union all select n + 1 from t) select count(*) from t"
    fault = fault_of(SqliteRows(sqlite="shop.db", query=endless), tmp_path)
    assert (fault.key, "expected a query that ends" in fault.message) == ("query", True)


def test_a_file_that_is_no_database_is_blamed_itself(write: Write, tmp_path: Path) -> None:
    write("shop.db", b"not a database, but long enough to be looked at" * 50)
    fault = fault_of(SqliteRows(sqlite="shop.db", query="select 1 from p"), tmp_path)
    assert fault.key == "sqlite"


@pytest.mark.parametrize(
    "source",
    [
        "gone.csv",
        FileRows(file="gone.jsonl"),
        FileRows(file="directory.csv"),
        "x" * 5000 + ".csv",
        "a\0.csv",
    ],
)
def test_a_missing_file_is_the_manifests_fault(tmp_path: Path, source: str | FileRows) -> None:
    (tmp_path / "directory.csv").mkdir()
    assert fault_of(source, tmp_path).key == "file"


def test_a_missing_file_is_told_with_the_path_that_was_tried(tmp_path: Path) -> None:
    assert str(tmp_path / "gone.csv") in fault_of("gone.csv", tmp_path).message


def test_an_unknown_kind_of_file_lists_those_that_are_known(tmp_path: Path) -> None:
    assert ".csv, .tsv, .jsonl" in fault_of("rows.xlsx", tmp_path).message


def test_a_table_that_is_not_read_to_its_end_is_closed(write: Write, tmp_path: Path) -> None:
    write("a.csv", "a\n1\n2\n")
    rows = open_rows("a.csv", tmp_path)
    assert next(rows).number == 1
    rows.close()
    (tmp_path / "a.csv").unlink()
