"""Why a job would be regenerated: pure differences, and from the command line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.planning.changes import MadeOf, differences, word_diff
from tests.support import rig

MADE = MadeOf(
    fingerprint="a",
    model="gpt-image-2",
    prompt="A red mug",
    options={"size": "1024x1024", "stream": True},
    images=("/p/a.png",),
    mask=None,
)


@pytest.mark.parametrize(
    ("planned", "lines"),
    [
        (replace(MADE, fingerprint="a", prompt="other"), []),
        (replace(MADE, fingerprint="b", model="x"), ["model: gpt-image-2 -> x"]),
        (
            replace(MADE, fingerprint="b", prompt="A blue mug"),
            ["prompt: A [-red-]{+blue+} mug"],
        ),
        (
            replace(MADE, fingerprint="b", options={"size": "1536x1024", "n": 1}),
            [
                "options.n: nothing -> 1",
                "options.size: 1024x1024 -> 1536x1024",
                "options.stream: true -> nothing",
            ],
        ),
        (replace(MADE, fingerprint="b", images=()), ["images: /p/a.png -> none"]),
        (replace(MADE, fingerprint="b", mask="m.png"), ["mask: nothing -> m.png"]),
        (
            replace(MADE, fingerprint="b"),
            ["the bytes of a reference image changed; the manifest did not"],
        ),
    ],
)
def test_each_difference_is_a_line(planned: MadeOf, lines: list[str]) -> None:
    assert differences(MADE, planned) == lines


def test_a_long_prompt_is_shown_around_its_change() -> None:
    words = [f"word{number}" for number in range(200)]
    changed = [*words[:100], "new", *words[101:]]
    diff = word_diff(" ".join(words), " ".join(changed))
    assert "[-word100-]{+new+}" in diff
    assert diff.startswith("…")
    assert diff.endswith("…")
    assert len(diff) < 250


TEXT = st.text("ab c.\n", max_size=20)


@given(TEXT, TEXT)
def test_a_diff_holds_all_that_came_and_went(before: str, after: str) -> None:
    diff = word_diff(before, after)
    assert (
        re.sub(r"\{\+.*?\+\}", "", diff, flags=re.DOTALL).replace("[-", "").replace("-]", "")
        == before
    )
    assert (
        re.sub(r"\[-.*?-\]", "", diff, flags=re.DOTALL).replace("{+", "").replace("+}", "") == after
    )


def test_plan_reports_why_a_job_runs(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["a red mug", "a forbidden-word"])

    def why(key: str, *options: str) -> str:
        return rig.batchgen("plan", path, "--why", key, *options, cwd=tmp_path).stdout

    assert "no image of it has been made yet" in why("job-000")
    rig.batchgen("run", path, cwd=tmp_path, code=1)
    assert "unchanged since the image of" in why("job-000")
    assert "is to be regenerated (refresh)" in why("job-000", "--refresh", "always")
    assert "job-001: blocked, " in why("job-001")
    rig.manifest(tmp_path, served.base_url, ["a blue mug", "x"], options="{size: 1536x1024}")
    expected = ["prompt: a [-red-]{+blue+} mug", "options.size: 1024x640 -> 1536x1024"]
    assert all(line in why("job-000") for line in expected)
    # A run that planned it and was stopped before it made it does not hide the change.
    rig.batchgen("run", path, "--only", "job-001", cwd=tmp_path)
    assert all(line in why("job-000") for line in expected)
    refused = rig.batchgen("plan", path, "--why", "unknown", cwd=tmp_path, code=2)
    assert "plans no job with the key 'unknown'" in refused.stderr
