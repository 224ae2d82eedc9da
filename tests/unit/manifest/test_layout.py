"""Delimiters, headers and what programs write around them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest.layout import find_layout
from batchgen.manifest.model import FileRows
from batchgen.manifest.rows import open_rows
from tests.support.tables import Write, values


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ('id;Name*;Categories (x,y,z,y);Price\n1;Mug;"a,b";3\n', ";"),
        ("sku|title|price\nA1|Mug, blue|3\n", "|"),
        ("sku\ttitle\nA1\tMug; blue, big\n", "\t"),
        ("sku,title\nA1,Mug; blue\nA2,Cup; red\n", ","),
        ("name;size\nmug;1,5\nbag;2,5\n", ";"),
        ("prompt\na mug, white\na bag, blue, on a hook\n", None),
        ('"a,b";c\n1;2\n', ";"),
        ("id,title,desc\nA1,Mug,x,\nA2,Cup\n", ","),
        ("a;b;c,d\n", ";"),
        ("", None),
    ],
)
def test_delimiter_is_what_splits_evenly(text: str, delimiter: str | None) -> None:
    assert find_layout(text, ".csv", None, is_whole=True).delimiter == delimiter


_words = st.text("abc xyz", min_size=1, max_size=5)


@given(
    st.sampled_from(",;\t|"),
    st.integers(2, 6).flatmap(
        lambda width: st.lists(
            st.lists(_words, min_size=width, max_size=width), min_size=2, max_size=8
        )
    ),
    st.sampled_from(["x, y", "x; y", "plain"]),
)
def test_delimiter_of_even_rows_is_found(mark: str, rows: list[list[str]], last: str) -> None:
    if mark in last:
        last = "plain"
    lines = [mark.join([*cells, last]) for cells in rows]
    lines[0] = mark.join([*rows[0], "last"])
    assert find_layout("\n".join(lines), ".csv", None, is_whole=True).delimiter == mark


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("a green bench and a blue bowl\na blue bench\n", "one prompt per line"),
        ("a cat, oil painting\na dog, oil painting\n", "one prompt per line"),
        ("1girl,solo\n2girls,city\n", "one prompt per line"),
        ("a cat; watercolor\na dog; watercolor\n", "one prompt per line"),
        ("id\ttitle\nA1\tMug\n", "tab-separated"),
        ("id|title\nA1|Mug\n", "pipe-separated"),
        ("sku,title\nA1,Mug\n", "comma-separated"),
        ("prompt\na mug\n", "one column"),
        ("Prompts\na mug, blue\n", "one column"),
    ],
)
def test_text_file_is_a_table_or_a_list(
    write: Write, tmp_path: Path, text: str, layout: str
) -> None:
    write("p.txt", text)
    assert open_rows("p.txt", tmp_path).reading.layout == layout


def test_list_of_prompts_has_a_row_per_line(write: Write, tmp_path: Path) -> None:
    write("p.txt", "\ufeffa green bench\r\n\r\n  a blue bench  \r\n")
    rows = list(open_rows("p.txt", tmp_path))
    assert [row.values for row in rows] == [
        {"line": "a green bench", "prompt": "a green bench"},
        {"line": "a blue bench", "prompt": "a blue bench"},
    ]
    assert [row.source for row in rows] == ["p.txt:1", "p.txt:3"]


def test_declared_delimiter_makes_a_table(write: Write, tmp_path: Path) -> None:
    write("p.txt", "a~b\n1~2,3\n")
    assert values(FileRows(file="p.txt", delimiter="~"), tmp_path) == [{"a": "1", "b": "2,3"}]
    write("p.csv", "a,b|c\n1,2|3\n")
    assert values(FileRows(file="p.csv", delimiter="pipe"), tmp_path) == [{"a_b": "1,2", "c": "3"}]


AMAZON_LABELS = "Seller SKU\tTitle\tImage\n"
SETTINGS = "settings=attributeRow=4&dataRow=6&x=1\tVersion=2021\n"
AMAZON_NAMES = "item_sku\titem_name\tmain_image_url\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sep=;\nitem_sku;item_name\nA1;Mug\n", 3),
        ('"sep=|"\r\nitem_sku|item_name\r\nA1|Mug\r\n', 3),
        (f"TemplateType=home\tVersion=2014\t\n{AMAZON_LABELS}{AMAZON_NAMES}A1\tMug\tx\n", 4),
        (f"TemplateType=x\tVersion=2\n\r\n{AMAZON_LABELS}{AMAZON_NAMES}A1\tMug\tx\n", 5),
        (f"{SETTINGS}{AMAZON_LABELS}a\tb\tc\n{AMAZON_NAMES}B\texample\t\nA1\tMug\tx\n", 6),
        ("#INFO,Version=1.0,Template=fx\n#INFO,,\nitem_sku,item_name,x\nA1,Mug,\n", 4),
        ('"# Required | an id","# Required | a name, short"\nitem_sku,item_name\nA1,Mug\n', 3),
        ("\n\nitem_sku,item_name\nA1,Mug\n", 4),
    ],
)
def test_lines_before_the_header_are_skipped(
    write: Write, tmp_path: Path, text: str, line: int
) -> None:
    write("p.txt", text)
    (row,) = open_rows("p.txt", tmp_path)
    assert (row.values["item_sku"], row.values["item_name"], row.line) == ("A1", "Mug", line)


def test_numbered_column_is_not_a_comment(write: Write, tmp_path: Path) -> None:
    write("p.csv", "#,name\n1,Mug\n")
    assert values("p.csv", tmp_path) == [{"name": "Mug"}]


def test_row_names_of_r_are_a_column(write: Write, tmp_path: Path) -> None:
    write("p.csv", '"sku","title"\n"1","A1","Mug"\n"2","A2","Cup"\n')
    assert values("p.csv", tmp_path) == [
        {"row_name": "1", "sku": "A1", "title": "Mug"},
        {"row_name": "2", "sku": "A2", "title": "Cup"},
    ]
    write("p.csv", "sku,title\nA1,Mug,\nA2,Cup,\n")
    assert values("p.csv", tmp_path)[0] == {"sku": "A1", "title": "Mug"}


def test_backslash_escapes_a_quote_only_where_it_must(write: Write, tmp_path: Path) -> None:
    write("p.csv", 'id,t\n1,"a 6\\" pipe, \\"new\\""\n2,"x"\n')
    assert [row["t"] for row in values("p.csv", tmp_path)] == ['a 6" pipe, "new"', "x"]
    write("p.csv", 'id,t\n1,"C:\\"\n2,"say ""x"""\n')
    assert [row["t"] for row in values("p.csv", tmp_path)] == ["C:\\", 'say "x"']


def test_nulls_and_guarded_zeros_are_undone(write: Write, tmp_path: Path) -> None:
    write("p.csv", 'id,t,u\n"=""00123""",\\N,=a\n="004",x,"=""a""b"\n')
    assert values("p.csv", tmp_path) == [
        {"id": "00123", "t": "", "u": "=a"},
        {"id": "004", "t": "x", "u": '="a"b'},
    ]
