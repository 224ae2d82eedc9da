"""Tables of SQLite."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.manifest import sqlite_rows
from batchgen.manifest.model import SqliteRows
from batchgen.manifest.rows import open_rows
from tests.support.tables import Write, fault_of


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
        ("select color from p", "query", "no such column: color"),
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
    ],
)
def test_bad_query_is_reported_in_words_of_sqlite(
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
    before = signal.signal(signal.SIGVTALRM, signal.default_int_handler)
    try:
        # Counts the time of this process, which is the time of the query.
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            open_rows(SqliteRows(sqlite="shop.db", query=endless), tmp_path)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_endless_query_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "MAX_SILENT_STEPS", 1_000_000)
    shop(tmp_path / "shop.db")
    endless = "with t(n) as (select 1 union all select n + 1 from t) select count(*) from t"
    fault = fault_of(SqliteRows(sqlite="shop.db", query=endless), tmp_path)
    assert (fault.key, "expected a query that ends" in fault.message) == ("query", True)


def test_file_of_another_kind_is_blamed_itself(write: Write, tmp_path: Path) -> None:
    write("shop.db", b"not a database, but long enough to be looked at" * 50)
    fault = fault_of(SqliteRows(sqlite="shop.db", query="select 1 from p"), tmp_path)
    assert fault.key == "sqlite"
