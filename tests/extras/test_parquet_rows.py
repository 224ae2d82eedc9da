"""Rows from parquet files."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.manifest.model import FileRows
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table import RowsFault
from tests.support import canary, rig
from tests.support.extras import require

require("pyarrow")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def rows(path: Path) -> list[dict[str, object]]:
    return [dict(row.values) for row in open_rows(FileRows(file=path.name), path.parent)]


def test_rows_have_normal_names_and_plain_values(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.parquet",
        {
            "Body (HTML)": ["<p>", None],
            "price": [Decimal("9.90"), None],
            "day": [date(2026, 11, 28), None],
            "at": [datetime(2026, 11, 28, 6, tzinfo=UTC), None],
            "tags": [["a", "b"], []],
            "weight": [1.5, float("nan")],
            "count": [3, 0],
            "is_new": [True, False],
        },
    )
    first, second = rows(path)
    assert first == {
        "body_html": "<p>",
        "price": "9.90",
        "day": "2026-11-28",
        "at": "2026-11-28T06:00:00+00:00",
        "tags": ["a", "b"],
        "weight": 1.5,
        "count": 3,
        "is_new": True,
    }
    assert second["weight"] is None
    json.dumps(second)


def test_embedded_images_are_not_read(tmp_path: Path) -> None:
    image = [{"bytes": b"\x89PNG", "path": "a.png"}]
    path = write(tmp_path / "x.parquet", {"image": image, "raw": [b"x"], "text": ["a mug"]})
    assert rows(path) == [{"text": "a mug"}]


def test_rows_are_read_beyond_one_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"n": list(range(2_500))})
    found = list(open_rows(FileRows(file="x.parquet"), tmp_path))
    assert [row.values["n"] for row in found] == list(range(2_500))
    assert (found[-1].number, found[-1].source) == (2_500, "x.parquet row 2500")
    assert path.exists()


@settings(max_examples=60)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_damaged_file_is_a_fault(noise: bytes, place: int) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": ["x", "y"]}), sink)
    data = bytearray(sink.getvalue())
    data[place : place + len(noise)] = noise
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x.parquet")
        path.write_bytes(data)
        try:
            found = rows(path)
        except RowsFault as fault:
            found = []
            blamed = fault.key
        else:
            blamed = "file"
        assert blamed == "file"
        assert all(isinstance(row, dict) for row in found)


def test_columns_with_one_normal_name_are_numbered(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"Title": ["a"], "title": ["b"]})
    assert rows(tmp_path / "x.parquet") == [{"title_1": "a", "title_2": "b"}]


def test_a_run_takes_its_rows_from_parquet(served: rig.Endpoint, tmp_path: Path) -> None:
    write(tmp_path / "shop.parquet", {"sku": ["mug", "tote"], "title": ["a mug", "a bag"]})
    path = tmp_path / "shop.yaml"
    path.write_text(
        f"provider: {{name: local, base_url: {served.base_url!r},"
        f" api_key_env: {canary.VARIABLE}}}\n"
        "rows: {file: shop.parquet, where: \"title != 'x'\"}\nprompt: Photo of {{ title }}\n"
    )
    rig.batchgen("run", path, cwd=tmp_path)
    assert sorted(one.name for one in (tmp_path / "out" / "shop").iterdir()) == [
        "mug.png",
        "tote.png",
    ]
