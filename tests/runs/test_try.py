"""`try`: a sample of a manifest first, which counts as part of its batch."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.support import rig
from tests.support.terminal import Reply, at_terminal, screen

PROMPTS = ["a red mug", "a red mug on a table", "sailing ship in a storm", "a red mug and a hat"]


def test_try_makes_the_most_different_images(served: rig.Endpoint, tmp_path: Path) -> None:
    before = len(served.bill())
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS)
    done = rig.batchgen("try", manifest, "--sample", "2", cwd=tmp_path)
    assert "  out/batch/job-000.png\n  out/batch/job-002.png\n" in done.stdout
    assert done.stdout.endswith(f"next: batchgen run {manifest.name}   # makes the other images\n")
    assert done.stdout.count("next:") == 1
    assert rig.status(tmp_path)["jobs"]["done"] == 2
    rig.batchgen("run", manifest, cwd=tmp_path)
    assert [row["prompt"] for row in served.bill()[before:]].count("a red mug") == 1
    assert len(served.bill()) == before + 4
    rig.judge(tmp_path, served.bill()[before:], finished=True)


def test_try_of_all_jobs_proposes_no_further_run(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS[:2])
    done = rig.batchgen("try", manifest, "--json", cwd=tmp_path)
    images = [json.loads(line) for line in done.stdout.splitlines()][-2:]
    assert images == [{"image": f"out/batch/job-00{number}.png"} for number in range(2)]


def test_try_with_a_problem_makes_nothing_more(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, ["a forbidden-word", *PROMPTS])
    done = rig.batchgen("try", manifest, "--sample", "1", cwd=tmp_path, code=1)
    assert "1  blocked" in done.stdout
    assert "makes the other images" not in done.stdout
    assert done.stdout.count("next:") == 1


@pytest.mark.parametrize(("reply", "done"), [("y\n", 4), ("\n", 2)])
def test_try_asks_to_make_the_others(
    served: rig.Endpoint, tmp_path: Path, reply: str, done: int
) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS)
    question = "Make the other 2 images of batch too? [y/N]: "
    code, shown = at_terminal(
        "try", manifest, "--sample", "2", cwd=tmp_path, replies={question: reply}
    )
    assert code == 0, shown
    assert rig.status(tmp_path)["jobs"]["done"] == done


def test_try_with_rows_at_fault_asks_for_the_others(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("sku,title\na,mug\na,cup\nb,bag\nc,hat\n", encoding="utf-8")
    (tmp_path / "shop.yaml").write_text(
        'provider: local\nrows: shop.csv\nprompt: "A {{ title }}"\n', encoding="utf-8"
    )
    question = "Make the other 2 images of shop too? [y/N]: "
    code, shown = at_terminal(
        "try", "shop.yaml", "--sample", "1", cwd=tmp_path, replies={question: "y\n"}
    )
    assert code == 1, shown
    jobs = rig.status(tmp_path, "shop")["jobs"]
    assert (jobs["done"], jobs["failed"]) == (3, 1)


def test_try_offers_the_review_page_of_its_sample(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS)
    env, url = screen(tmp_path)
    pages = []

    def look() -> str:
        with urllib.request.urlopen(url.read_text(encoding="utf-8"), timeout=rig.TIMEOUT_S) as page:
            pages.append(page.read())
        return "n\n"

    replies: dict[str, Reply] = {
        "Open the review page of these images? [Y/n]: ": "\n",
        "Make the other 2 images of batch too? [y/N]: ": look,
    }
    code, shown = at_terminal(
        "try", manifest, "--sample", "2", cwd=tmp_path, replies=replies, env=env
    )
    assert code == 0, shown
    assert b"<title>" in pages[0]
    assert "job-000.png" not in shown
    assert "next: batchgen run batch.yaml" in shown


def test_try_prints_paths_when_the_page_is_declined(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS)
    env, url = screen(tmp_path)
    replies = {
        "Open the review page of these images? [Y/n]: ": "n\n",
        "Make the other 2 images of batch too? [y/N]: ": "n\n",
    }
    code, shown = at_terminal(
        "try", manifest, "--sample", "2", cwd=tmp_path, replies=replies, env=env
    )
    assert code == 0, shown
    assert "  out/batch/job-000.png" in shown
    assert not url.exists()


def test_try_over_ssh_prints_paths(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS)
    env, _ = screen(tmp_path)
    question = "Make the other 2 images of batch too? [y/N]: "
    code, shown = at_terminal(
        "try",
        manifest,
        "--sample",
        "2",
        cwd=tmp_path,
        replies={question: "n\n"},
        env=env | {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"},
    )
    assert code == 0, shown
    assert "  out/batch/job-000.png" in shown
    assert "Open the review page" not in shown


@pytest.mark.parametrize("is_flag", [True, False])
def test_try_spends_its_budget_once(served: rig.Endpoint, tmp_path: Path, is_flag: bool) -> None:
    before = len(served.bill())
    limits = "{concurrency: 8}" if is_flag else "{max_cost: 0.08}"
    flag = ["--max-cost", "0.08"] if is_flag else []
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=limits)
    question = "Make the other 2 images of batch too? [y/N]: "
    command = ("try", manifest, "--sample", "2", *flag)
    code, shown = at_terminal(*command, cwd=tmp_path, replies={question: "y\n"})
    assert code == 3, shown
    assert "the estimate of $0.08 is over the $0.0046 that are left for this run" in shown
    assert len(served.bill()) == before + 2


def test_refused_try_reports_only_the_refusal(served: rig.Endpoint, tmp_path: Path) -> None:
    manifest = rig.manifest(tmp_path, served.base_url, PROMPTS)
    done = rig.batchgen("try", manifest, "--max-cost", "0.01", cwd=tmp_path, code=3)
    assert done.stderr.splitlines()[-1].startswith("batch: budget: ")
    assert not done.stdout
    assert not (tmp_path / "batchgen.db").exists()
