"""Tables of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest.json_values import RepeatedKeys, parse
from batchgen.manifest.lines import MAX_LINE_CHARS
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault
from tests.support.tables import Write, fault_of, values


def test_jsonl_keeps_types_and_reports_bad_lines(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", b'\xef\xbb\xbf{"ID": 7, "Tags": ["a"], "x": null}\n\n{"id": 8}\n[1]\n{"id":\n')
    faults: list[RowsFault] = []
    rows = list(open_rows("a.jsonl", tmp_path, report=faults.append))
    assert [row.values for row in rows] == [{"id": 7, "tags": ["a"], "x": None}, {"id": 8}]
    assert [(row.number, row.source) for row in rows] == [(1, "a.jsonl:1"), (2, "a.jsonl:3")]
    assert [fault.line for fault in faults] == [4, 5]
    assert faults[0].message == "expected an object {...}, got a list"
    assert "not valid JSON" in faults[1].message


def test_jsonl_line_that_is_not_utf8_fails_alone(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", b'{"a": "x"}\n{"a": "\xf8\xe9 \xd8"}\n{"a": "caf\xc3\xa9"}\n')
    faults: list[RowsFault] = []
    rows = list(open_rows("a.jsonl", tmp_path, report=faults.append))
    assert [row.values["a"] for row in rows] == ["x", "café"]
    assert "not UTF-8: byte 0xf8 at offset 7 of this line" in faults[0].message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-le"])
def test_jsonl_of_powershell_is_read(write: Write, tmp_path: Path, encoding: str) -> None:
    write("a.jsonl", '{"a": "é"}\r\n{"a": "b"}\r\n'.encode(encoding))
    assert values("a.jsonl", tmp_path) == [{"a": "é"}, {"a": "b"}]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("12345678901234567890123", "12345678901234567890123"),
        ("-12345678901234567890123", "-12345678901234567890123"),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775808", -9223372036854775808),
        ("-9223372036854775809", "-9223372036854775809"),
        ("1.5", 1.5),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_long_integers_keep_their_digits(
    write: Write, tmp_path: Path, number: str, expected: object
) -> None:
    write("a.jsonl", f'{{"id": {number}, "a": [{{"b": {number}}}]}}\n')
    assert values("a.jsonl", tmp_path) == [{"id": expected, "a": [{"b": expected}]}]
    write("a.json", f'[{{"id": {number}}}]')
    assert values("a.json", tmp_path) == [{"id": expected}]


_scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(-9, 9)
_keys = st.text(max_size=4)
_documents = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=8,
)


@given(_documents)
def test_json_is_parsed_as_the_standard_library_does(document: object) -> None:
    def expected(value: object) -> object:
        if isinstance(value, dict):
            return {key: expected(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [expected(inner) for inner in value]
        is_long = type(value) is int and not -(1 << 63) <= value < 1 << 64
        return str(value) if is_long else value

    for ascii_only in (True, False):
        data = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "replace")
        assert parse(data).value == expected(json.loads(data))


@given(st.lists(st.tuples(_keys, _scalars), max_size=5))
def test_repeated_keys_are_always_noticed(pairs: list[tuple[str, object]]) -> None:
    body = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    found = parse(f"{{{body}}}".encode("utf-8", "replace")).value
    assert isinstance(found, RepeatedKeys) == (len(dict(pairs)) < len(pairs))


def test_repeated_column_is_numbered_and_an_inner_key_refused(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", '{"id": 1, "a": "x \\" y", "id": 2}\n{"id": 1, "a": {"b": 1, "b": 2}}\n')
    faults: list[RowsFault] = []
    rows = list(open_rows("a.jsonl", tmp_path, report=faults.append))
    assert [row.values for row in rows] == [{"id_1": 1, "a": 'x " y', "id_2": 2}]
    assert [(fault.line, "a key twice" in fault.message) for fault in faults] == [(2, True)]


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_of_python_are_null(write: Write, tmp_path: Path, constant: str) -> None:
    write("a.jsonl", f'{{"a": {constant}, "b": "NaN"}}\n')
    assert values("a.jsonl", tmp_path) == [{"a": None, "b": "NaN"}]


MUGS = [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]


@pytest.mark.parametrize(
    "document",
    [
        '{"sku": "a", "n": 1}\n{"sku": "b", "n": 2}\n',
        '\x1e{"sku": "a", "n": 1}\n\x1e{"sku": "b", "n": 2}\n',
        '[\n{"sku": "a", "n": 1},\n{"sku": "b", "n": 2}\n]',
        '{"sku": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}',
        '{"0": {"sku": "a", "n": 1}, "1": {"sku": "b", "n": 2}}',
        '{"columns": ["sku", "n"], "index": [0, 1], "data": [["a", 1], ["b", 2]]}',
        '{"sku": ["a", "b"], "n": [1, 2]}',
        '{"schema": {"fields": []}, "data": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]}',
    ],
)
def test_shapes_of_data_scripts_are_read(write: Write, tmp_path: Path, document: str) -> None:
    # One object on one line is one row of JSON lines.
    is_list = document.lstrip("\x1e").startswith(("[", '{"sku": "a"'))
    for name in ("a.json", "a.jsonl") if is_list else ("a.json",):
        write(name, document)
        assert values(name, tmp_path) == MUGS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_texts_are_prompts(write: Write, tmp_path: Path, name: str) -> None:
    write(name, '["a mug", "a bag"]' if name == "a.json" else '"a mug"\n"a bag"\n')
    assert [row["prompt"] for row in values(name, tmp_path)] == ["a mug", "a bag"]


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


def test_json_row_of_another_kind_is_named(write: Write, tmp_path: Path) -> None:
    write("a.json", '[{"a": 1}, 2]')
    assert fault_of("a.json", tmp_path).path == "row 2"


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("name", "wrap"), [("a.json", "[{}]"), ("a.json", '{{"items": [{}]}}'), ("a.jsonl", "[{}]")]
)
def test_document_on_one_line_may_be_long(
    write: Write, tmp_path: Path, name: str, wrap: str, encoding: str, end: str
) -> None:
    row = json.dumps({"sku": "mug", "text": "x" * MAX_LINE_CHARS})
    write(name, (wrap.format(row) + end).encode(encoding))
    assert [row["sku"] for row in values(name, tmp_path)] == ["mug"]


def test_long_line_of_jsonl_is_a_fault(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", json.dumps({"sku": "mug", "text": "x" * MAX_LINE_CHARS}) + "\n{}\n")
    assert "a line of more than 16,777,216 bytes" in fault_of("a.jsonl", tmp_path).message
