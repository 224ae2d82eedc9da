"""Each command that prints results prints nothing but JSON with `--json`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchgen.ledger.newest_decisions import Decision
from tests.review.decide import decide
from tests.support import rig

A_LINE_PER_FINDING = {"prune", "rollback", "verify"}
"""Commands that print nothing if there is nothing to say."""


@pytest.fixture(scope="module")
def shop(served: rig.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a batch of which one image is done, one rejected and one blocked."""
    directory = tmp_path_factory.mktemp("shop")
    prompts = ["A mug", "A bowl", "A forbidden-word sign"]
    path = rig.manifest(directory, served.base_url, prompts)
    rig.batchgen("run", path, "--yes", cwd=directory, code=1)
    decide(directory, Decision.REJECT, "job-001", note="too dark")
    (directory / "picks.csv").write_text(
        "key,heart,comment\njob-000,1,\nnone,1,\n", encoding="utf-8"
    )
    return directory


def records(shop: Path, *arguments: str, code: int = 0) -> list[Any]:
    done = rig.batchgen(*arguments, "--json", cwd=shop, code=code)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "command",
    [
        "acknowledge batch --dry-run",
        "budget",
        "check batch.yaml",
        "cost batch --by model",
        "export batch",
        "export batch --what images",
        "gallery batch",
        "guide",
        "guide money",
        "init other.yaml",
        "models batch.yaml",
        "plan batch.yaml",
        "plan batch.yaml --show job-000",
        "plan batch.yaml --why job-000",
        "prices batch.yaml",
        "prune batch",
        "report batch",
        "report batch --list",
        "retry batch --blocked --dry-run",
        "rollback batch --only job-000",
        "run batch.yaml --dry-run",
        "status batch",
        "verify batch",
    ],
)
def test_command_prints_json_only(shop: Path, command: str) -> None:
    done = rig.batchgen(*command.split(), "--json", cwd=shop, code=None)
    assert done.returncode in (0, 1), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found or command.split()[0] in A_LINE_PER_FINDING


def test_why_says_group_and_decision_in_json(shop: Path) -> None:
    (found,) = records(shop, "plan", "batch.yaml", "--why", "job-001")
    assert (found["key"], found["group"], found["is_sent"]) == ("job-001", "rejected", True)
    assert found["why"].startswith("rejected in review by anna on ")
    assert found["decision"]["decision"] == "reject"
    assert found["decision"]["note"] == "too dark"
    assert found["attempt"]["price"] == "0.037700"
    (found,) = records(shop, "plan", "batch.yaml", "--why", "job-002")
    assert (found["group"], found["is_sent"], found["state"]) == ("blocked", False, "blocked")
    assert found["decision"] is None


def test_gallery_names_its_page_in_json(shop: Path) -> None:
    (found,) = records(shop, "gallery", "batch", "-o", "page.html")
    assert found == {"batch": "batch", "page": "page.html", "images": 2, "not_available": []}


def test_guide_has_its_topics_and_text_in_json(shop: Path) -> None:
    (found,) = records(shop, "guide")
    topics = {one["topic"]: one["summary"] for one in found["topics"]}
    (page,) = records(shop, "guide", "money")
    assert page["summary"] == topics["money"]
    assert page["text"].startswith("# Money\n")


def test_budget_has_what_is_spent_in_json(shop: Path) -> None:
    (found,) = records(shop, "budget")
    assert found["budgets"] == []
    assert found["spent"] == {"day": "0.075400", "month": "0.075400"}


def test_export_refuses_two_formats(shop: Path) -> None:
    for other in (("--failed",), ("--format", "csv")):
        done = rig.batchgen("export", "batch", "--json", *other, cwd=shop, code=2)
        assert "--json cannot be combined with --f" in done.stderr
    (found,) = records(shop, "export", "batch", "--dataset", "data")
    assert (found["batch"], found["dataset"], found["images"], found["parts"]) == (
        "batch",
        "data",
        2,
        1,
    )


def test_import_counts_decisions_in_json(shop: Path) -> None:
    arguments = ("review", "batch", "--import", "picks.csv", "--by", "client")
    (found,) = records(shop, *arguments, code=1)
    assert found == {
        "batch": "batch",
        "by": "client",
        "recorded": 1,
        "recorded_before": 0,
        "published": 0,
        "not_published": [],
        "unknown": [{"line": 3, "key": "none", "why": "the batch has no such image"}],
    }
    (again,) = records(shop, *arguments, code=1)
    assert (again["recorded"], again["recorded_before"]) == (0, 1)


def test_review_says_its_url_before_it_waits(shop: Path) -> None:
    command = [sys.executable, "-m", "batchgen", "review", "batch", "--json", "--by", "anna"]
    # A browser that a program did not request would be opened here.
    browser = shop / "browser"
    browser.write_text(f"#!/bin/sh\ntouch '{shop}/opened'\n", encoding="utf-8")
    browser.chmod(0o755)
    env = rig.environment({"DISPLAY": ":0", "BROWSER": str(browser), "SSH_CONNECTION": ""})
    with subprocess.Popen(
        command, cwd=shop, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        try:
            origin, _, token = found["url"].partition("/#")
            with httpx.Client(base_url=origin, trust_env=False) as client:
                made = client.post(
                    "/api/session", json={"token": found["token"]}, headers={"Origin": origin}
                )
                assert made.status_code == 200
                index = client.get("/api/index").json()
                assert client.get(found["run_url"]).status_code == 200
                assert client.get(found["compare_url"]).status_code == 200
        finally:
            process.terminate()
        rest, errors = process.communicate(timeout=rig.TIMEOUT_S)
    assert token == found["token"]
    assert len(index["ids"]) == found["images"] == 2
    assert (found["batch"], found["runs"], found["by"]) == ("batch", [1], "anna")
    assert found["ledger"] == str(shop / "batchgen.db")
    assert (rest, errors) == ("", "")
    assert not (shop / "opened").exists()
