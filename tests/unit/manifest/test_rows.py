"""Text tables, whole and damaged."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest.csv_records import MAX_CELL_CHARS
from batchgen.manifest.lines import MAX_LINE_CHARS
from batchgen.manifest.model import FileRows
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import ColumnNames, RowsFault, normal_name
from tests.support.tables import Write, fault_of


def test_columns_have_raw_and_normal_names(write: Write, tmp_path: Path) -> None:
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
def test_normal_name_is_valid_and_its_own_normal_name(name: str) -> None:
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
def test_csv_with_another_delimiter_is_read(write: Write, tmp_path: Path, text: str) -> None:
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
        ("a,b\n1,2\n1,2,3\n", 3, "3 cells, but the header has 2 columns"),
        ("a,b,\n1,2,\n1,2,3\n", 3, "3 cells, but the header has 2 columns"),
        ('a,b\n1,"2" x\n', 2, "text follows a closing quote"),
        ('a,b\n1,2\n3,"4\n', 3, "never closed"),
        ("a,b\n1,\0\n", 2, "NUL"),
        ("", 0, "is empty"),
        ("\n\n", 0, "is empty"),
        (f"a,b\n1,{'x' * (MAX_CELL_CHARS + 1)}\n", 2, "expected a closing quote"),
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
def test_lines_are_counted_at_any_line_end_and_chunk(
    write: Write, tmp_path: Path, end: str
) -> None:
    for shift in range(3):
        header = "name" + "s" * shift
        lines = [header, *(f'"{number}{end}{"x" * 20}"' for number in range(3_000))]
        write("a.csv", end.join(lines))
        rows = list(open_rows("a.csv", tmp_path))
        assert [row.line for row in rows] == list(range(2, 6_002, 2))
        assert rows[-1].values[header] == f"2999{end}{'x' * 20}"


def test_file_without_line_breaks_is_refused(write: Write, tmp_path: Path) -> None:
    write("a.tsv", "name\n" + "x" * MAX_LINE_CHARS)
    fault = fault_of("a.tsv", tmp_path)
    assert fault.line == 2
    assert "a line of more than" in fault.message


def test_all_wrong_rows_are_reported_and_the_others_read(write: Write, tmp_path: Path) -> None:
    write("a.csv", "a,b\n1,2,3\n1,2\n1,2,3,\n3,4\n")
    faults: list[RowsFault] = []
    rows = list(open_rows("a.csv", tmp_path, report=faults.append))
    assert [row.values["a"] for row in rows] == ["1", "3"]
    assert [fault.line for fault in faults] == [2, 4]


def test_ragged_rows_are_filled_with_one_notice(write: Write, tmp_path: Path) -> None:
    write("p.csv", "id,title,desc\nA1,Mug,x,\nA2,Cup\nA3\nA4,Bowl,y,,,\n")
    table = open_rows("p.csv", tmp_path)
    assert [tuple(row.cells) for row in table] == [
        ("A1", "Mug", "x"),
        ("A2", "Cup", ""),
        ("A3", "", ""),
        ("A4", "Bowl", "y"),
    ]
    (notice,) = table.reading.notices
    assert (notice.line, notice.message[:32]) == (3, "2 rows have fewer cells than the")


def test_strict_rows_refuse_short_rows(write: Write, tmp_path: Path) -> None:
    write("p.csv", "id,title\nA1\n")
    assert fault_of(FileRows(file="p.csv", strict=True), tmp_path).line == 2


def test_equal_columns_are_numbered(write: Write, tmp_path: Path) -> None:
    write("p.csv", "id,Link,link,id_1,id\n1,2,3,4,5\n")
    table = open_rows("p.csv", tmp_path)
    (row,) = table
    assert row.values == {"id_2": "1", "link_1": "2", "link_2": "3", "id_1": "4", "id_3": "5"}
    assert row.raw == {"id_2": "1", "Link": "2", "link": "3", "id_1": "4", "id_3": "5"}
    assert table.reading.columns
    assert table.reading.columns.ambiguous == {
        "id": ("id_2", "id_3"),
        "link": ("link_1", "link_2"),
    }


@given(st.lists(st.sampled_from(["a", "A", "a_1", "a 2", "b", "%"]), min_size=1, max_size=8))
def test_every_column_has_a_name_of_its_own(names: list[str]) -> None:
    columns = ColumnNames(names)
    assert len(set(columns.raw)) == len(names)
    named = [name for name in columns.normal if name]
    assert len(set(named)) == len(named)
    assert not columns.ambiguous.keys() & {*named}


def test_columns_without_a_name_are_numbered(write: Write, tmp_path: Path) -> None:
    write("pandas.csv", ",title,,\n0,Mug,,\n")
    (row,) = open_rows("pandas.csv", tmp_path)
    assert row.values == {"column_1": "0", "title": "Mug"}


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


def test_quoted_tsv_cell_may_hold_tabs_and_lines(write: Write, tmp_path: Path) -> None:
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
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "psv", "jsonl", "json"])
def test_any_bytes_give_rows_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"t.{ending}"
    path.write_bytes(data)
    with suppress(RowsFault):
        for row in open_rows(path.name, path.parent):
            assert len(row.names) == len(row.cells)


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


def test_missing_file_is_reported_with_its_path(tmp_path: Path) -> None:
    assert str(tmp_path / "gone.csv") in fault_of("gone.csv", tmp_path).message


def test_unknown_kind_of_file_lists_the_known_ones(tmp_path: Path) -> None:
    assert ".txt, .jsonl, .ndjson, .json" in fault_of("rows.xlsx", tmp_path).message


def test_table_that_is_not_read_to_its_end_is_closed(write: Write, tmp_path: Path) -> None:
    write("a.csv", "a\n1\n2\n")
    rows = open_rows("a.csv", tmp_path)
    assert next(rows).number == 1
    rows.close()
    (tmp_path / "a.csv").unlink()
