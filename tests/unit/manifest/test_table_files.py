"""Encodings and compression of tables."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from batchgen.manifest import table_bytes
from batchgen.manifest.legacy_encodings import plausible_readings
from batchgen.manifest.lines import first_bad_byte
from batchgen.manifest.model import FileRows
from batchgen.manifest.rows import open_rows
from batchgen.manifest.table_bytes import TableFile
from batchgen.manifest.table_encoding import check_encoding
from tests.support.tables import Write, fault_of, values

TABLE = "sku,title\nA1,Mug\n"


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    "data",
    [
        gz(TABLE.encode()),
        gz(b"sku,title\n") + gz(b"A1,Mug\n"),
        zstd(TABLE.encode()),
        zstd(b"sku,title\n") + zstd(b"A1,Mug\n"),
        gz(TABLE.encode("utf-16")),
        TABLE.encode(),
    ],
)
@pytest.mark.parametrize("name", ["p.csv.gz", "p.csv.zst", "p.csv", "P.CSV.GZ"])
def test_content_decides_about_compression(
    write: Write, tmp_path: Path, name: str, data: bytes
) -> None:
    write(name, data)
    (row,) = open_rows(name, tmp_path)
    assert (row.values, row.source) == ({"sku": "A1", "title": "Mug"}, f"{name}:2")


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst", "json.gz", "txt.zst", "tsv.gz"])
def test_every_kind_may_be_compressed(write: Write, tmp_path: Path, ending: str) -> None:
    text = '[{"prompt": "a mug"}]\n' if ending.startswith("json") else "prompt\na mug\n"
    data = text.encode()
    write(f"p.{ending}", zstd(data) if ending.endswith("zst") else gz(data))
    assert [row["prompt"] for row in values(f"p.{ending}", tmp_path)] == ["a mug"]


@pytest.mark.parametrize("pack", [gz, zstd])
def test_cut_file_is_never_a_shorter_table(write: Write, tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    whole = pack(b"sku\n" + b"".join(b"%d\n" % number for number in range(50_000)))
    for size in (len(whole) - 1, len(whole) // 2, 12):
        write("p.csv", whole[:size])
        assert "cannot be decompressed" in fault_of("p.csv", tmp_path).message


@pytest.mark.parametrize("pack", [gz, zstd])
def test_expansion_is_limited(
    write: Write, tmp_path: Path, pack: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(pack)
    monkeypatch.setattr(table_bytes, "MIN_LIMIT_BYTES", 1 << 20)
    write("p.csv", pack(b"sku\n" + b"a\n" * 4_000_000))
    assert "expands to more than" in fault_of("p.csv", tmp_path).message
    write("p.csv", pack(b"sku\n" + b"a\n" * 100_000))
    assert len(values("p.csv", tmp_path)) == 100_000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"<!DOCTYPE html><html><body>Sign in", "a web page"),
        (b"\n <html>", "a web page"),
        (b"PAR1rest", "Parquet"),
        (b"SQLite format 3\0rest", "rows: {sqlite"),
        (gz(gz(b"a\n1\n")), "compressed twice"),
        (gz(b"PK\x03\x04rest"), "Excel workbook"),
        (b"\x28\xb5\x2f\xfdgarbage", "cannot be decompressed"),
        (b"\x1f\x8bgarbage!", "cannot be decompressed"),
    ],
)
def test_other_files_are_named(write: Write, tmp_path: Path, data: bytes, words: str) -> None:
    write("p.csv", data)
    assert words in fault_of("p.csv", tmp_path).message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_marked_and_plain_unicode_is_found(write: Write, tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    write("p.csv", (mark + "sku;title\nA1;Größe\n").encode(encoding))
    assert values("p.csv", tmp_path) == [{"sku": "A1", "title": "Größe"}]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Crème brûlée à la française"),
        ("cp1252", "Tasse bleue – édition d’été"),  # noqa: RUF001
        ("cp1252", "Müller Straße, Größe: grün"),
        ("cp1252", "skål blå grønn"),
        ("cp1252", "Lámpara pequeña para niños, tamaño único, fácil"),
        ("cp1250", "Kubek żółty źrebię łąka"),
        ("cp1250", "Hrnek žlutý, příliš žluťoučký kůň"),
        ("cp1251", "Кружка синяя для кофе"),
        ("koi8-r", "Кружка синяя Лампа"),
        ("cp866", "Кружка синяя"),
        ("mac_roman", "Größe grün"),
        ("cp850", "Café crème"),
        ("cp1254", "Çiçekli fincan ağaç ışık gümüş"),  # noqa: RUF001
        ("cp1257", "Puodelis mėlynas šviesus ąžuolas"),
        ("cp932", "陶器のマグカップ 表示"),
        ("euc_jp", "陶器のマグカップ"),
        ("gb18030", "蓝色陶瓷马克杯 白色背景 我们的产品"),
        ("euc_kr", "파란색 머그컵 흰색 배경"),
    ],
)
def test_legacy_encoding_is_found_with_a_notice(
    write: Write, tmp_path: Path, encoding: str, text: str
) -> None:
    write("p.csv", f'sku,title\nA1,"{text}"\n'.encode(encoding))
    table = open_rows("p.csv", tmp_path)
    assert [row.values["title"] for row in table] == [text]
    (notice,) = table.reading.notices
    assert f"set rows: {{encoding: {table.reading.encoding}}}" in notice.message


@pytest.mark.fault("M13")
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_ambiguous_encoding_must_be_named(write: Write, tmp_path: Path, name: str) -> None:
    data = ("name\n" + "x\n" * 5000 + "é\n").encode() + b"Espa\xf1a\n"
    write(name, data)
    fault = fault_of(name, tmp_path)
    assert fault.line == 5003
    assert f"byte 0xf1 at offset {len(data) - 3:,}" in fault.message
    write(name, b"name\nEspa\xf1a\n")
    assert "such as cp1250 ('Espańa') or cp1252 ('España')" in fault_of(name, tmp_path).message
    assert values(FileRows(file=name, encoding="windows-1252"), tmp_path) == [{"name": "España"}]


@given(st.text("aeioáéíóúñüçÀÉ –’€", min_size=1, max_size=12))  # noqa: RUF001
def test_encoding_is_never_wrong_about_western_words(text: str) -> None:
    """With a word that only one encoding can read, the others are never chosen."""
    data = f"{text} Crème brûlée à façade Ærø Größe".encode("cp1252")
    tokens = [token for token in data.split() if not token.isascii()]
    found = plausible_readings(tokens)
    if len(found) == 1:
        assert data.decode(found[0].encoding) == data.decode("cp1252")


def test_declared_encoding_is_obeyed(write: Write, tmp_path: Path) -> None:
    write("p.csv", "sku,title\nA1,Größe\n".encode())
    latin = FileRows(file="p.csv", encoding="latin-1")
    assert values(latin, tmp_path)[0]["title"] == "GrÃ¶Ã\x9fe"
    fault = fault_of(FileRows(file="p.csv", encoding="ascii"), tmp_path)
    assert (fault.line, "not ascii: byte 0xc3 at offset 15" in fault.message) == (2, True)


@pytest.mark.parametrize("name", ["idna", "rot13", "unicode_escape", "nonsense", "base64", "utf-7"])
def test_only_encodings_of_text_are_accepted(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name such as"):
        check_encoding(name)


@given(st.text(st.characters(codec="utf-8")), st.binary(min_size=1, max_size=4))
def test_first_bad_byte_is_that_of_the_decoder(
    tmp_path_factory: pytest.TempPathFactory, good: str, bad: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "p.csv"
    data = b"x\n" + good.encode() + bad
    path.write_bytes(data)
    expected = None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        expected = (data[error.start], error.start, line)
    assert first_bad_byte(TableFile(path, "p.csv"), "utf-8") == expected


def test_home_directory_is_expanded(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write("p.csv", TABLE)
    assert values("~/p.csv", Path("/nowhere"))[0]["sku"] == "A1"
    assert re.search("no such file", fault_of("~/q.csv", Path("/nowhere")).message)
