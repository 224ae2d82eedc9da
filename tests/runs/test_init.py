"""`init`: a first manifest, by options or by questions at a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchgen.manifest.loader import SCHEMA_ID, json_schema
from tests.support import rig
from tests.support.terminal import at_terminal

CSV = "sku,Title,price\na1,Mug,3\nb2,Bowl,4\n"


def test_init_writes_a_manifest_and_its_schema(tmp_path: Path) -> None:
    done = rig.batchgen("init", cwd=tmp_path)
    text = (tmp_path / "batch.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=batchgen.schema.json\n")
    assert "wrote batch.yaml" in done.stdout
    schema = json.loads((tmp_path / "batchgen.schema.json").read_text(encoding="utf-8"))
    assert schema == json_schema()
    assert schema["$id"] == SCHEMA_ID
    assert rig.batchgen("check", cwd=tmp_path).stdout == "batch.yaml: no faults, 3 jobs\n"


def test_init_with_a_table_makes_an_image_per_row(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text(CSV, encoding="utf-8")
    done = rig.batchgen("init", "shop.yaml", "--rows", "products.csv", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "manifest": "shop.yaml",
        "schema": "batchgen.schema.json",
        "provider": "local",
        "rows": "products.csv",
    }
    planned = rig.batchgen("check", "shop.yaml", "--json", cwd=tmp_path)
    assert json.loads(planned.stdout)["jobs"] == 2
    text = (tmp_path / "shop.yaml").read_text(encoding="utf-8")
    assert "{{ sku }}" in text
    assert "photo of {{ title }}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--provider", "openia"), "expected one of local, crazyrouter, openai; did you mean"),
        (("--rows", "missing.csv"), "missing.csv: no such file"),
    ],
)
def test_init_refuses_what_it_does_not_know(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in rig.batchgen("init", *arguments, cwd=tmp_path, code=2).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("provider", "rows", "expected"),
    [
        ("crazyrouter", "products.csv", ["provider: crazyrouter", 'rows: "products.csv"']),
        ("", "", ["provider: local", "jobs:"]),
        ("openia\nopenai", "", ["provider: openai", "jobs:"]),
    ],
)
def test_init_asks_at_a_terminal(
    tmp_path: Path, provider: str, rows: str, expected: list[str]
) -> None:
    (tmp_path / "products.csv").write_text(CSV, encoding="utf-8")
    questions = {
        "Provider: local, crazyrouter, openai [local]: ": f"{provider}\n",
        "Table": f"{rows}\n",
    }
    code, shown = at_terminal("init", cwd=tmp_path, replies=questions)
    assert code == 0, shown
    text = (tmp_path / "batch.yaml").read_text(encoding="utf-8")
    assert all(one in text for one in expected)


def test_check_json_lists_each_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("jobs: [a]\nlimit: {}\n", encoding="utf-8")
    (tmp_path / "good.yaml").write_text("provider: local\njobs: [a]\n", encoding="utf-8")
    done = rig.batchgen("check", "bad.yaml", "good.yaml", "--json", cwd=tmp_path, code=2)
    bad, good = (json.loads(line) for line in done.stdout.splitlines())
    assert good == {
        "manifest": "good.yaml",
        "jobs": 1,
        "rows_at_fault": 0,
        "unfetched": 0,
        "table": None,
        "errors": [],
    }
    assert bad["jobs"] is None
    (error,) = bad["errors"]
    assert (error["file"], error["line"], error["path"]) == ("bad.yaml", 2, "limit")
    assert "limits" in error["message"]
