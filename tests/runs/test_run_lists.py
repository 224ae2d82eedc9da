"""What changed last night, and what a month costs: `report --list`, `export --run`, `cost`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import rig


@pytest.fixture(scope="module")
def nights(served: rig.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two runs: two images, then one of them replaced and one added."""
    directory = tmp_path_factory.mktemp("nights")
    rig.batchgen(
        "run", rig.manifest(directory, served.base_url, ["A mug", "A bowl"]), cwd=directory
    )
    changed = rig.manifest(directory, served.base_url, ["A mug", "A blue bowl", "A ship"])
    rig.batchgen("run", changed, cwd=directory)
    return directory


def lines(directory: Path, *arguments: str) -> list[dict[str, object]]:
    text = rig.batchgen(*arguments, cwd=directory).stdout
    return [json.loads(line) for line in text.splitlines()]


def test_report_list_shows_each_run(nights: Path) -> None:
    found = lines(nights, "report", "batch", "--list", "--json")
    assert [(row["run"], row["new"], row["replaced"], row["exit_code"]) for row in found] == [
        (2, 1, 1, 0),
        (1, 2, 0, 0),
    ]
    assert [row["charged"] for row in found] == ["0.075400", "0.075400"]
    head, second, first = rig.batchgen("report", "batch", "--list", cwd=nights).stdout.splitlines()
    assert head.split() == [
        "run",
        "started",
        "took",
        "new",
        "replaced",
        "charged",
        "possible",
        "exit",
    ]
    assert second.split()[0] == "2"
    assert first.split()[-3:] == ["$0.08", "$0.00", "0"]


def test_export_run_lists_what_a_run_made(nights: Path) -> None:
    made = lines(nights, "export", "batch", "--what", "images", "--run", "2")
    assert sorted((row["key"], row["run"], row["state"]) for row in made) == [
        ("job-001", 2, "saved"),
        ("job-002", 2, "saved"),
    ]
    assert all(row["saved_at"] and row["root"] == "out/batch" for row in made)
    before = lines(nights, "export", "batch", "--what", "images", "--run", "1")
    assert sorted((row["key"], row["state"]) for row in before) == [
        ("job-000", "saved"),
        ("job-001", "replaced"),
    ]
    assert len(lines(nights, "export", "batch", "--what", "attempts", "--run", "2")) == 2
    jobs = lines(nights, "export", "batch", "--what", "jobs", "--run", "2")
    assert [row["key"] for row in jobs] == ["job-001", "job-002"]


def test_export_refuses_an_unknown_run(nights: Path) -> None:
    refused = rig.batchgen("export", "batch", "--run", "9", cwd=nights, code=2)
    assert refused.stderr == "batch: the ledger has no run 9 of this batch\n"


def test_cost_by_month_projects_to_its_end(nights: Path) -> None:
    rig.batchgen("budget", "--month", "1000", cwd=nights)
    (found,) = lines(nights, "cost", "--by", "month", "--json")
    rows, forecast = found["rows"], found["forecast"]
    assert isinstance(rows, list)
    assert isinstance(forecast, dict)
    assert rows[0]["month"] == forecast["month"]
    assert forecast["spent"] == "0.150800"
    assert float(forecast["projected"]) >= 0.1508
    assert forecast["budget"] == "1000.000000"
    text = rig.batchgen("cost", "--by", "month", cwd=nights).stdout
    assert "by the end of the month at this pace, within the budget of $1,000.00" in text
    (of_batch,) = lines(nights, "cost", "batch", "--by", "month", "--json")
    assert of_batch["forecast"] is None
