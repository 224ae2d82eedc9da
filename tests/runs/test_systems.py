"""Every system of the provider as whole runs: from a manifest to files, a ledger and one bill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import rig

JOBS = 4


SWITCHES = ("--fast-images", "--task-latency", "0.2")


def run(directory: Path, endpoint: rig.Endpoint, model: str, options: str, route: str) -> int:
    """One batch of four jobs; the exit code."""
    routes = f", routes: {{{model}: {route}}}" if route else ""
    jobs = "".join(f"  - {{key: job-{number}, prompt: a mug {number}}}\n" for number in range(JOBS))
    path = directory / "batch.yaml"
    path.write_text(
        f"name: batch\nmodel: {model}\noptions: {options}\nlimits: {{poll: 0.1}}\n"
        f"provider: {{name: local, base_url: '{endpoint.base_url}'{routes}}}\njobs:\n{jobs}",
        encoding="utf-8",
    )
    return rig.batchgen("run", path, cwd=directory, code=None).returncode


SYSTEMS: dict[str, tuple[str, str, str, dict[str, Any], str]] = {
    "a stream": ("gpt-image-2", "{stream: true, partial_images: 1}", "", {}, "png"),
    "a stream with images inside": (
        "gpt-image-2",
        "{stream: true, output_format: webp}",
        "",
        {"response": "b64_json"},
        "webp",
    ),
    "an ignored stream": ("gpt-image-2", "{stream: true}", "", {"stream-ignore": 1}, "png"),
    "grok": ("grok-4-image", "{aspect_ratio: '16:9', resolution: 2k}", "", {}, "jpeg"),
    "qwen": ("qwen-image-max", "{size: 1024x1024}", "", {}, "png"),
    "nano-banana": ("nano-banana-2", "{resolution: 2K, output_format: jpg}", "", {}, "jpeg"),
    "gemini": ("nano-banana-pro", "{resolution: 4K}", "gemini", {}, "png"),
    "gemini's data URIs": ("nano-banana", "{}", "gemini", {"gemini-response": "data-uri"}, "png"),
    "gemini's urls": ("nano-banana", "{}", "gemini", {"gemini-response": "url"}, "png"),
    "veo": ("veo-3.1-fast", "{size: 1080P, duration: 4}", "", {}, "mp4"),
    "veo's older responses": ("veo-3.1", "{size: 720P}", "", {"task-response": "old"}, "mp4"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_works_from_manifest_to_bill(
    system: str, tuned: rig.Endpoint, tmp_path: Path
) -> None:
    model, options, route, switches, form = SYSTEMS[system]
    tuned.judge("faults", switches)
    before = len(tuned.bill())
    assert run(tmp_path, tuned, model, options, route) == 0
    bill = tuned.bill()[before:]
    rig.judge(tmp_path, bill, finished=True)
    (row,) = rig.query(
        tmp_path / "batchgen.db", "SELECT sum(estimate) AS estimated, sum(charged) AS c FROM runs"
    )
    assert row["estimated"] == row["c"] == sum(line["micros"] for line in bill) > 0
    files = rig.query(tmp_path / "batchgen.db", "SELECT DISTINCT format FROM images")
    assert [file["format"] for file in files] == [form]
    assert len(list((tmp_path / "out").rglob(f"job-*.{form.replace('jpeg', 'jp*g')}"))) == JOBS


STREAM = ("gpt-image-2", "{stream: true}", "")
GEMINI = ("nano-banana", "{}", "gemini")
VIDEO = ("veo-3.1", "{size: 720P}", "")
FAULTS: dict[str, tuple[tuple[str, str, str], str, bool]] = {
    "stream-error": (STREAM, "uncertain", False),
    "bill-stream-error": (STREAM, "uncertain", True),
    "bill-stream-cut": (STREAM, "uncertain", True),
    "block": (GEMINI, "blocked", False),
    "bill-empty": (GEMINI, "failed", True),
    "task-fail": (VIDEO, "failed", False),
    "bill-task-fail": (VIDEO, "failed", True),
    "bill-drop": (VIDEO, "uncertain", True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failing_system_is_reported_as_it_is_billed(
    fault: str, tuned: rig.Endpoint, tmp_path: Path
) -> None:
    system, state, billed = FAULTS[fault]
    tuned.judge("faults", {fault: 1})
    before = len(tuned.bill())
    run(tmp_path, tuned, *system)
    tuned.wait_until_idle()
    bill = tuned.bill()[before:]
    rig.judge(tmp_path, bill, finished=False)
    counts = rig.status(tmp_path)["jobs"]
    assert counts[state] > 0
    assert counts["done"] == 0
    assert (sum(line["micros"] for line in bill) > 0) is billed
