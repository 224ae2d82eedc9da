"""Paid images whose download fails: fetched as long as they may exist, and never bought twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import rig
from tests.support.responses import RED, encoded, image, saved
from tests.support.scripted_server import Scripted, scripted

ALL_FAIL = {"download-forbid": 1}
NO_WAIT = '{concurrency: 4, max_waste: "100%", download_wait: 0}'


@pytest.fixture
def fresh_endpoint(tmp_path: Path) -> Iterator[rig.Endpoint]:
    with rig.endpoint(tmp_path / "state", "--fast-images") as endpoint:
        yield endpoint


def run_all_failing(served: rig.Endpoint, directory: Path, prompts: int = 1) -> Path:
    """Run a batch while no download succeeds; the image host is well again afterwards."""
    served.judge("faults", ALL_FAIL)
    path = rig.manifest(directory, served.base_url, ["a mug"] * prompts, limits=NO_WAIT)
    rig.batchgen("run", path, cwd=directory, code=1)
    served.judge("faults", {})
    return path


def run_days_later(path: Path, days: float, *, code: int) -> str:
    """Run the manifest with a clock that is days ahead."""
    return rig.run_changed(rig.set_clock(days), path, code=code)


def job_reason(directory: Path) -> str:
    (row,) = rig.query(directory / "batchgen.db", "SELECT reason FROM jobs")
    return str(row["reason"])


@pytest.mark.fault("XA1", "W05")
@pytest.mark.parametrize(
    "fault",
    [
        "download-forbid",
        "download-miss",
        "download-gone",
        "download-html",
        "download-empty",
        "download-truncate",
        "download-error",
    ],
)
def test_a_run_outlasts_a_failing_image_host(
    fault: str, fresh_endpoint: rig.Endpoint, tmp_path: Path
) -> None:
    requests = 2 if fault == "download-forbid" else 1  # a 403 is followed by one with the key
    fresh_endpoint.judge("faults", {fault: 1, "download_faults": 3 * requests})
    path = rig.manifest(tmp_path, fresh_endpoint.base_url, ["a mug", "a bag"])
    rig.batchgen("run", path, cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 2
    (tries,) = rig.query(tmp_path / "batchgen.db", "SELECT sum(tries) AS n FROM images")
    assert 3 - (requests == 2) <= tries["n"] <= 3  # both jobs may share the last two faults
    assert len(fresh_endpoint.bill()) == 2
    rig.judge(tmp_path, fresh_endpoint.bill(), finished=True)


@pytest.mark.fault("XA1")
@pytest.mark.parametrize("command", ["run", "resume"])
def test_the_next_run_downloads_what_waits(
    command: str, fresh_endpoint: rig.Endpoint, tmp_path: Path
) -> None:
    path = run_all_failing(fresh_endpoint, tmp_path, prompts=3)
    found = rig.status(tmp_path)
    assert found["jobs"]["paid"] == 3
    assert found["waiting"]["images"] == 3
    text = rig.batchgen("status", "batch", cwd=tmp_path).stdout
    assert "3 paid images wait for a download (1 try so far)" in text
    assert "HTTP 403" in text
    assert "3 paid images wait" in rig.batchgen("report", "batch", cwd=tmp_path, code=None).stdout
    rig.batchgen(command, path if command == "run" else "batch", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 3
    assert rig.status(tmp_path)["waiting"] is None
    assert len(fresh_endpoint.bill()) == 3
    rig.judge(tmp_path, fresh_endpoint.bill(), finished=True)


@pytest.mark.fault("XA1", "B09")
def test_a_day_without_the_image_fails_the_job(
    fresh_endpoint: rig.Endpoint, tmp_path: Path
) -> None:
    path = run_all_failing(fresh_endpoint, tmp_path)
    fresh_endpoint.judge("faults", ALL_FAIL)
    assert "HTTP 403" in run_days_later(path, 0.9, code=1)
    assert rig.status(tmp_path)["jobs"]["paid"] == 1
    output = run_days_later(path, 1.1, code=1)
    assert "image_lost: HTTP 403; 3 tries from 20" in output
    assert rig.status(tmp_path)["jobs"]["failed"] == 1
    rig.batchgen("resume", "batch", cwd=tmp_path, code=1)
    assert len(fresh_endpoint.bill()) == 1
    rig.judge(tmp_path, fresh_endpoint.bill(), finished=True)


@pytest.mark.fault("XA1")
def test_a_last_try_after_the_day_still_saves(fresh_endpoint: rig.Endpoint, tmp_path: Path) -> None:
    path = run_all_failing(fresh_endpoint, tmp_path)
    run_days_later(path, 3, code=0)
    assert rig.status(tmp_path)["jobs"]["done"] == 1
    rig.judge(tmp_path, fresh_endpoint.bill(), finished=True)


@pytest.fixture
def lost(fresh_endpoint: rig.Endpoint, tmp_path: Path) -> Path:
    """A manifest whose only image was given up; its URL works again."""
    path = run_all_failing(fresh_endpoint, tmp_path)
    fresh_endpoint.judge("faults", ALL_FAIL)
    run_days_later(path, 1.1, code=1)
    fresh_endpoint.judge("faults", {})
    return path


@pytest.mark.fault("XA1")
def test_retry_downloads_before_it_buys(
    fresh_endpoint: rig.Endpoint, lost: Path, tmp_path: Path
) -> None:
    dry = rig.batchgen("retry", "batch", "--dry-run", cwd=tmp_path).stdout
    assert "pending again" not in dry
    assert "1 lost image would be downloaded once more for free" in dry
    assert (
        "1 lost image is downloaded once more"
        in rig.batchgen("retry", "batch", cwd=tmp_path).stdout
    )
    rig.batchgen("resume", "batch", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1
    assert len(fresh_endpoint.bill()) == 1
    rig.judge(tmp_path, fresh_endpoint.bill(), finished=True)


@pytest.mark.fault("XA1")
def test_a_second_retry_buys(fresh_endpoint: rig.Endpoint, lost: Path, tmp_path: Path) -> None:
    fresh_endpoint.judge("faults", ALL_FAIL)
    rig.batchgen("retry", "batch", cwd=tmp_path)
    run_days_later(lost, 1.2, code=1)
    assert rig.status(tmp_path)["jobs"]["failed"] == 1
    assert len(fresh_endpoint.bill()) == 1
    fresh_endpoint.judge("faults", {})
    assert "estimated at $0.04" in rig.batchgen("retry", "batch", cwd=tmp_path).stdout
    rig.batchgen("resume", "batch", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1
    assert len(fresh_endpoint.bill()) == 2


@pytest.mark.fault("XA1")
def test_retry_buy_gives_up_the_download(fresh_endpoint: rig.Endpoint, tmp_path: Path) -> None:
    run_all_failing(fresh_endpoint, tmp_path)
    assert "no matching failed jobs" in rig.batchgen("retry", "batch", cwd=tmp_path).stdout
    moved = rig.batchgen("retry", "batch", "--buy", cwd=tmp_path).stdout
    assert "1 job is pending again, estimated at $0.04" in moved
    rig.batchgen("resume", "batch", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1
    assert len(fresh_endpoint.bill()) == 2


@pytest.mark.fault("XA1")
def test_verify_repair_covers_lost_images(
    fresh_endpoint: rig.Endpoint, lost: Path, tmp_path: Path
) -> None:
    shown = rig.batchgen("verify", "batch", "--json", cwd=tmp_path, code=1).stdout
    (found,) = [json.loads(line) for line in shown.splitlines()]
    assert (found["finding"], found["key"], found["downloadable"]) == ("lost", "job-000", True)
    text = rig.batchgen("verify", "batch", "--repair", cwd=tmp_path, code=1).stdout
    assert "1 lost" in text
    assert "1 are due again" in text
    rig.batchgen("resume", "batch", cwd=tmp_path)
    rig.batchgen("verify", "batch", cwd=tmp_path)
    assert len(fresh_endpoint.bill()) == 1
    rig.judge(tmp_path, fresh_endpoint.bill(), finished=True)


@pytest.mark.fault("XA1")
def test_a_wait_that_the_image_host_asks_for_is_kept(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"url": script.url("1.png")})
        script.files["1.png"] = 503
        script.get_reply_headers["Retry-After"] = "1800"
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"])
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        rig.batchgen("resume", "batch", cwd=tmp_path, code=1)
        assert script.gets == ["/1.png"]
        assert "not before 20" in rig.batchgen("status", "batch", cwd=tmp_path).stdout
        script.files["1.png"] = RED
        run_days_later(path, 0.1, code=0)
        assert len(script.posts) == 1


@pytest.mark.fault("XA11")
@pytest.mark.parametrize("coding", ["aws-chunked", "utf-8", "binary", ""])
def test_a_meaningless_coding_costs_no_image(coding: str, tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"url": script.url("1.png")})
        script.files["1.png"] = RED
        script.get_reply_headers["Content-Encoding"] = coding
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"])
        rig.batchgen("run", path, cwd=tmp_path)
        assert (len(script.posts), len(script.gets)) == (1, 1)
    assert saved(tmp_path) == {"job-000.png": RED}


def extra_item(script: Scripted, kind: str) -> dict[str, Any]:
    """An extra image that cannot be saved."""
    script.files["page.png"] = b"<html>maintenance</html>"
    return {
        "broken base64": {"b64_json": encoded(RED[:-20])},
        "404": {"url": script.url("gone.png")},
        "HTML": {"url": script.url("page.png")},
        "forbidden url": {"url": "http://10.0.0.1/1.png"},
    }[kind]


@pytest.mark.fault("XA7")
@pytest.mark.parametrize("kind", ["broken base64", "404", "HTML", "forbidden url"])
def test_a_broken_extra_image_only_warns(kind: str, tmp_path: Path) -> None:
    blue = image("blue")
    with scripted() as script:
        extra = extra_item(script, kind)
        script.response({"b64_json": encoded(RED)}, extra, {"b64_json": encoded(blue)})
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"], limits='{max_waste: "100%"}')
        done = rig.batchgen("run", path, cwd=tmp_path)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(script.posts) == 1
    assert saved(tmp_path) == {"job-000.png": RED, "job-000-extra-2.png": blue}
    assert "extra image 1 was not saved" in done.stderr
    assert rig.status(tmp_path)["jobs"]["done"] == 1


@pytest.mark.fault("XA7")
def test_a_broken_requested_image_decides(tmp_path: Path) -> None:
    with scripted() as script:
        script.response({"b64_json": encoded(RED[:-20])}, {"b64_json": encoded(RED)})
        path = rig.manifest(tmp_path, f"{script.base}/v1", ["a mug"], limits='{max_waste: "0"}')
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert rig.status(tmp_path)["jobs"]["failed"] == 1


@pytest.mark.fault("XA5")
@pytest.mark.parametrize("damage", ["directory gone", "file gone", "head damaged", "body cut"])
def test_a_missing_spool_file_is_held(damage: str, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--response", "b64_json") as served:
        path = rig.manifest(tmp_path, served.base_url, ["a mug"], limits='{max_waste: "100%"}')
        rig.batchgen("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": "received"}, code=-9)
        spool, kept = tmp_path / "batchgen.db.spool", tmp_path / "kept"
        shutil.copytree(spool, kept)
        for file in spool.iterdir():
            if damage in ("directory gone", "file gone"):
                file.unlink()
            elif file.suffix == ".answer":
                content = file.read_bytes()
                head = content.index(b"\n") + 1
                file.write_bytes(b"{" if damage == "head damaged" else content[: head + 40])
        if damage == "directory gone":
            spool.rmdir()
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        rig.batchgen("resume", "batch", cwd=tmp_path, code=1)
        assert job_reason(tmp_path).startswith("spool: ")
        assert "restore batchgen.db.spool/" in job_reason(tmp_path)
        assert rig.status(tmp_path)["jobs"]["paid"] == 1
        shutil.copytree(kept, spool, dirs_exist_ok=True)
        rig.batchgen("resume", "batch", cwd=tmp_path)
        assert len(served.bill()) == 1
        rig.judge(tmp_path, served.bill(), finished=True)


def video(directory: Path, base_url: str) -> Path:
    """Write a manifest of one video."""
    path = directory / "batch.yaml"
    path.write_text(
        "name: batch\nmodel: veo-3.1-fast\n"
        f"provider: {{name: local, base_url: '{base_url}', price: '0.40'}}\n"
        "options: {duration: 4, size: 720P}\nlimits: {poll: 0.01, max_waste: '0'}\n"
        "jobs:\n  - {key: mug, prompt: a mug}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.fault("XA6")
def test_a_task_is_asked_at_its_own_origin(tmp_path: Path) -> None:
    with (
        rig.endpoint(tmp_path / "a", "--task-latency", "0") as first,
        rig.endpoint(tmp_path / "b") as other,
    ):
        path = video(tmp_path, first.base_url)
        rig.batchgen("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": "received"}, code=-9)
        before = other.judge("stats")
        video(tmp_path, other.base_url)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert other.judge("stats") == before, "the key of the first endpoint was sent on"
        assert rig.status(tmp_path)["jobs"]["paid"] == 1
        assert first.base_url.removesuffix("/v1") in job_reason(tmp_path)
        video(tmp_path, first.base_url)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(first.bill()) == 1
        assert other.bill() == []
        rig.judge(tmp_path, first.bill(), finished=True)


@pytest.mark.fault("XA6", "W09")
def test_an_unknown_task_is_lost_only_after_a_day(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "a") as first:
        path = video(tmp_path, first.base_url)
        rig.batchgen("run", path, cwd=tmp_path, env={"BATCHGEN_FAILPOINT": "received"}, code=-9)
        (image,) = rig.query(tmp_path / "batchgen.db", "SELECT task FROM images")
        assert image["task"].startswith(first.base_url)
        port = first.base_url.removesuffix("/v1").rpartition(":")[2]
    with rig.endpoint(tmp_path / "b", "--port", port):
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        assert "does not know this task" in job_reason(tmp_path)
        assert rig.status(tmp_path)["jobs"]["paid"] == 1
        run_days_later(path, 1.1, code=1)
        assert job_reason(tmp_path).startswith("image_lost: ")
    with rig.endpoint(tmp_path / "a", "--port", port) as first:
        rig.batchgen("retry", "batch", cwd=tmp_path)
        assert rig.status(tmp_path)["jobs"]["paid"] == 1
        assert len(first.bill()) == 1
