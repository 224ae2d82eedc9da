"""Whole runs: a real process against a real endpoint, looked at from outside."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from PIL import Image

from tests.support import rig

PROMPTS = [f"a mug, number {number}" for number in range(12)]


def test_a_run_ends_with_every_image_on_disk_and_the_bill_agrees(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    path = rig.manifest(tmp_path, served.base_url, PROMPTS)

    done = rig.batchgen("run", path, cwd=tmp_path)

    assert "12 of 12 jobs done" in done.stdout
    assert "next: batchgen status batch" in done.stdout
    images = sorted((tmp_path / "out" / "batch").glob("*.png"))
    assert [image.stem for image in images] == [f"job-{n:03d}" for n in range(12)]
    with Image.open(images[0]) as image:
        assert image.size == (1024, 640)
    rig.judge(tmp_path, served.bill()[before:], finished=True)
    assert rig.spooled(tmp_path) == []


def test_a_second_run_sends_nothing_and_says_so(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, PROMPTS[:3])
    rig.batchgen("run", path, cwd=tmp_path)
    posts = served.judge("stats")["posts"]

    done = rig.batchgen("run", path, cwd=tmp_path)

    assert "3 jobs were done already; nothing sent, nothing paid" in done.stdout
    assert served.judge("stats")["posts"] == posts


@pytest.mark.fault("Q18")
def test_only_a_changed_prompt_is_regenerated(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two", "three"])
    rig.batchgen("run", path, cwd=tmp_path)
    image = tmp_path / "out/batch/job-001.png"
    old = image.read_bytes()
    before = len(served.bill())

    rig.manifest(tmp_path, served.base_url, ["one", "two, but blue", "three"])
    rig.batchgen("run", path, cwd=tmp_path)

    assert [row["prompt"] for row in served.bill()[before:]] == ["two, but blue"]
    assert image.read_bytes() != old
    waiting = {"undecided": 0, "accepted": 0, "rejected": 0}
    assert rig.status(tmp_path)["images"] == {"saved": 3, "unpublished": waiting}


def test_another_format_leaves_no_stale_image(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)
    webp = "{size: 1024x640, output_format: webp}"
    rig.manifest(tmp_path, served.base_url, ["one"], options=webp)
    rig.batchgen("run", path, cwd=tmp_path)

    assert [file.name for file in (tmp_path / "out/batch").glob("job*")] == ["job-000.webp"]
    assert (tmp_path / "out/batch/.previous/job-000.png~1").exists()


def test_key_that_left_the_manifest_is_retired_with_its_image(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two"])
    rig.batchgen("run", path, cwd=tmp_path)
    rig.manifest(tmp_path, served.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)

    found = rig.status(tmp_path)
    assert found["retired"] == 1
    assert found["jobs"]["done"] == 1
    assert (tmp_path / "out/batch/job-001.png").exists()


def test_images_of_another_provider_need_overwrite(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    rig.batchgen("run", path, cwd=tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("name: local", "name: elsewhere, price: 0.05"), encoding="utf-8")

    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert "would replace 1 image that 'local' made" in refused.stderr
    assert "--overwrite" in refused.stderr


@pytest.mark.fault("D15")
def test_a_file_that_batchgen_did_not_write_is_never_overwritten(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    taken = tmp_path / "out/batch/job-000.png"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"somebody's own")

    posts = served.judge("stats")["posts"]
    done = rig.batchgen("run", path, cwd=tmp_path, code=1)

    assert taken.read_bytes() == b"somebody's own"
    assert "path_taken" in done.stdout
    assert rig.status(tmp_path)["jobs"]["failed"] == 1
    assert served.judge("stats")["posts"] == posts, "it was bought before it was looked at"
    taken.unlink()
    rig.batchgen("run", path, cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1


def test_a_renamed_key_does_not_replace_the_image_of_the_old_one(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    extra = "output: {path: 'image.{{ ext }}'}\n"
    path = rig.manifest(tmp_path, served.base_url, ["one"], extra=extra)
    rig.batchgen("run", path, cwd=tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("job-000", "renamed"), encoding="utf-8")
    posts = served.judge("stats")["posts"]
    refused = rig.batchgen("run", path, cwd=tmp_path, code=1)
    assert "image.png is not an image of this job" in refused.stdout
    assert served.judge("stats")["posts"] == posts
    rig.batchgen("run", path, "--overwrite", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 1


def test_only_takes_up_jobs_with_such_keys_and_leaves_the_others(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two", "three"])
    planned = rig.batchgen("plan", path, "--only", "job-00[12]", "--json", cwd=tmp_path)
    assert json.loads(planned.stdout)["requests"] == 2
    rig.batchgen("run", path, "--only", "job-001", cwd=tmp_path)
    found = rig.status(tmp_path)
    assert (found["jobs"]["done"], found["jobs"]["pending"], found["retired"]) == (1, 2, 0)
    rig.batchgen("resume", "batch", "--only", "*2", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 2


def bought(served: rig.Endpoint, *arguments: str | Path, cwd: Path, code: int = 0) -> int:
    """How many requests a run sends."""
    before = served.judge("stats")["posts"]
    rig.batchgen("run", *arguments, cwd=cwd, code=code)
    posts: int = served.judge("stats")["posts"] - before
    return posts


def test_refresh_and_since_regenerate_the_selected_images(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one", "two", "three"])
    assert bought(served, path, cwd=tmp_path) == 3
    assert bought(served, path, "--refresh", "30d", cwd=tmp_path) == 0
    assert bought(served, path, "--refresh", "always", "--only", "job-002", cwd=tmp_path) == 1
    assert bought(served, path, "--since", "2001-01-01", cwd=tmp_path) == 0
    assert bought(served, path, "--since", "2999-01-01", "--only", "job-00[01]", cwd=tmp_path) == 2
    refused = rig.batchgen("run", path, "--refresh", "daily", cwd=tmp_path, code=2)
    assert (
        "--refresh: not a valid value: 'daily'; expected changed, always or an age like 30d"
        in refused.stderr
    )


def test_interrupted_refresh_continues_where_it_stopped(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, [*"abcdef"], extra="refresh: always\n")
    assert bought(served, path, cwd=tmp_path) == 6
    assert bought(served, path, "--limit", "2", cwd=tmp_path) == 2
    assert bought(served, path, "--limit", "3", cwd=tmp_path) == 3
    assert bought(served, path, cwd=tmp_path) == 1
    assert bought(served, path, cwd=tmp_path) == 6, "the next renewal"


def test_resume_continues_without_the_manifest_file(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, PROMPTS[:5])
    rig.batchgen("run", path, "--limit", "2", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["pending"] == 3
    path.unlink()

    rig.batchgen("resume", "batch", cwd=tmp_path)

    assert rig.status(tmp_path)["jobs"]["done"] == 5


def test_the_budget_stops_a_run_and_a_higher_one_lets_it_go_on(
    served: rig.Endpoint, tmp_path: Path
) -> None:
    before = len(served.bill())
    path = rig.manifest(
        tmp_path, served.base_url, PROMPTS, limits="{concurrency: 8, max_cost: 0.20}"
    )
    done = rig.batchgen("run", path, "--yes", cwd=tmp_path, code=3)

    assert "budget" in done.stdout
    assert len(served.bill()) - before == 5  # 5 x 0.0377 = 0.1885
    assert rig.status(tmp_path)["jobs"]["pending"] == 7
    rig.batchgen("run", path, "--max-cost", "5", cwd=tmp_path)
    assert rig.status(tmp_path)["jobs"]["done"] == 12


def test_json_lines_end_with_the_status_object(served: rig.Endpoint, tmp_path: Path) -> None:
    path = rig.manifest(tmp_path, served.base_url, PROMPTS[:2])
    done = rig.batchgen("run", path, "--json", cwd=tmp_path)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["event"] for line in lines[:-1]} == {
        "attempt_started",
        "attempt_ended",
        "job_done",
    }
    assert lines[-1] == rig.status(tmp_path)
    assert lines[-1]["cost"]["charged"] == "0.075400"


@pytest.mark.fault("H02")
def test_failures_are_counted_by_reason(served: rig.Endpoint, tmp_path: Path) -> None:
    prompts = ["good", "forbidden-word one", "forbidden-word two"]
    path = rig.manifest(tmp_path, served.base_url, prompts)
    done = rig.batchgen("run", path, cwd=tmp_path, code=1)

    assert "2  blocked, moderation_blocked" in done.stdout
    found = rig.status(tmp_path)
    assert found["jobs"]["blocked"] == 2
    assert found["cost"]["charged"] == "0.037700"
    again = rig.batchgen("retry", "batch", "--blocked", "--only", "*001", cwd=tmp_path)
    assert "1 job is pending again" in again.stdout


@pytest.mark.fault("H03")
def test_a_bad_key_stops_at_once_and_fails_no_job(served: rig.Endpoint, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--key", "sk-right") as strict:
        path = rig.manifest(tmp_path, strict.base_url, PROMPTS)
        done = rig.batchgen("run", path, "--yes", cwd=tmp_path, code=3)
        assert strict.judge("stats")["posts"] <= 8
        assert strict.bill() == []
    assert "check the key" in done.stdout
    found = rig.status(tmp_path)
    assert found["jobs"]["pending"] == 12
    assert "check the key" in found["stopped"]


@pytest.mark.fault("H05")
@pytest.mark.fault("A01")
def test_empty_account_stops_the_run_until_a_top_up(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--balance", "0.20") as poor:
        path = rig.manifest(tmp_path, poor.base_url, PROMPTS)
        rig.batchgen("run", path, cwd=tmp_path, code=3)
        assert len(poor.bill()) == 5
        poor.judge("topup", {"dollars": "5.00"})
        rig.batchgen("run", path, cwd=tmp_path)
        rig.judge(tmp_path, poor.bill(), finished=True)
    assert rig.status(tmp_path)["jobs"]["done"] == 12


@pytest.mark.fault("N03")
def test_nothing_listens_and_the_run_says_so(tmp_path: Path) -> None:
    path = rig.manifest(
        tmp_path, "http://127.0.0.1:9/v1", PROMPTS, limits="{concurrency: 4, unreachable: 1}"
    )
    done = rig.batchgen("run", path, cwd=tmp_path, code=3)

    assert "unreachable" in done.stdout
    found = rig.status(tmp_path)
    assert found["jobs"]["pending"] == 12
    assert found["cost"]["maybe"] == "0.000000"


@pytest.mark.fault("Q02", "P15")
def test_second_run_of_a_batch_exits_at_once_unchanged(
    tmp_path: Path,
) -> None:
    with rig.endpoint(tmp_path / "state", "--latency", "10") as slow:
        path = rig.manifest(tmp_path, slow.base_url, PROMPTS[:4])
        with rig.start("run", path, "--json", cwd=tmp_path) as first:
            next(rig.events(first))
            before = (tmp_path / "batchgen.db").read_bytes()
            second = rig.batchgen("run", path, cwd=tmp_path, code=75)
            assert f"batch is being run by pid {first.pid} of" in second.stderr
            assert len(before) <= (tmp_path / "batchgen.db").stat().st_size
            _interrupt(first, signal.SIGINT, signal.SIGINT)
        assert slow.judge("stats")["posts"] <= 4


def _interrupt(process: rig.Started, *signals: signal.Signals) -> int:
    for left, number in reversed(list(enumerate(reversed(signals)))):
        process.send_signal(number)
        # The second signal means something else than the first only once that was taken.
        if left:
            for event in rig.events(process):
                if event.get("event") == "stopping":
                    break
    process.communicate(timeout=rig.TIMEOUT_S)
    return process.wait()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.fault("P01")),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.fault("P03")),
        pytest.param(signal.SIGHUP, 143, marks=pytest.mark.fault("P04")),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_the_first_signal_lets_what_is_in_flight_finish(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("we ignore it ourselves, as under nohup, and so does a run of ours")
    with rig.endpoint(tmp_path / "state", "--latency", "0.6") as slow:
        path = rig.manifest(tmp_path, slow.base_url, PROMPTS, limits="{concurrency: 4}")
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            next(rig.events(process))
            assert _interrupt(process, number) == code
        assert len(slow.bill()) <= 4
        rig.judge(tmp_path, slow.bill(), finished=False)
    found = rig.status(tmp_path)
    assert found["jobs"]["sending"] == found["jobs"]["uncertain"] == 0
    assert found["jobs"]["done"] == len(slow.bill())
    assert found["jobs"]["pending"] == 12 - len(slow.bill())


@pytest.mark.fault("P02")
def test_second_signal_ends_at_once_and_names_uncertain_jobs(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--latency", "30") as slow:
        path = rig.manifest(tmp_path, slow.base_url, PROMPTS, limits="{concurrency: 4}")
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            next(rig.events(process))
            assert _interrupt(process, signal.SIGINT, signal.SIGINT) == 130
        found = rig.status(tmp_path)
        assert found["jobs"]["sending"] == 0
        assert 1 <= found["jobs"]["uncertain"] <= 4
        assert found["attempts"]["maybe"] == found["jobs"]["uncertain"]
        listed = rig.batchgen("status", "batch", cwd=tmp_path).stdout
        assert "uncertain, interrupted" in listed


@pytest.mark.fault("B10")
def test_downloads_that_fail_never_cost_a_second_image(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--download-error", "0.25", "--seed", "3") as flaky:
        path = rig.manifest(tmp_path, flaky.base_url, PROMPTS)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(flaky.bill()) == 12
        rig.judge(tmp_path, flaky.bill(), finished=True)


@pytest.mark.fault("H15")
def test_a_rate_limit_is_waited_for_by_everybody(tmp_path: Path) -> None:
    switches = ("--rate", "240", "--burst", "2", "--retry-after")
    with rig.endpoint(tmp_path / "state", *switches) as limited:
        path = rig.manifest(tmp_path, limited.base_url, PROMPTS)
        rig.batchgen("run", path, cwd=tmp_path)
        assert len(limited.bill()) == 12
        throttled = rig.query(
            tmp_path / "batchgen.db", "SELECT count(*) FROM attempts WHERE outcome = 'throttled'"
        )[0][0]
        assert throttled > 0
        rig.judge(tmp_path, limited.bill(), finished=True)


def test_uncertain_job_is_rebought_within_the_allowance_only(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--bill-drop", "0.4", "--seed", "5") as dropping:
        path = rig.manifest(
            tmp_path, dropping.base_url, PROMPTS, limits='{concurrency: 4, max_waste: "0"}'
        )
        rig.batchgen("run", path, cwd=tmp_path, code=None)
        bill = dropping.bill()
        assert len(bill) == len({row["prompt"] for row in bill}), "bought twice with max_waste 0"
        rig.judge(tmp_path, bill, finished=False)
        found = rig.status(tmp_path)
        assert found["jobs"]["uncertain"] > 0
        assert found["attempts"]["maybe"] == found["jobs"]["uncertain"]

        dropping.judge("faults", {"bill-drop": 0})
        rig.batchgen("retry", "batch", "--uncertain", cwd=tmp_path)
        rig.batchgen("run", path, cwd=tmp_path)
        rig.judge(tmp_path, dropping.bill(), finished=True)
    assert rig.status(tmp_path)["jobs"]["done"] == 12


def test_changed_reference_image_is_regenerated(served: rig.Endpoint, tmp_path: Path) -> None:
    extra = "images: [photo.png, other.webp]\n"
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.png")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "other.webp")
    path = rig.manifest(tmp_path, served.base_url, ["put it on a table"], extra=extra)
    before = len(served.bill())
    rig.batchgen("run", path, cwd=tmp_path)
    rig.batchgen("run", path, cwd=tmp_path)
    assert len(served.bill()) - before == 1

    Image.new("RGB", (64, 64), "green").save(tmp_path / "photo.png")
    rig.batchgen("run", path, cwd=tmp_path)
    assert len(served.bill()) - before == 2
    rig.judge(tmp_path, served.bill()[before:], finished=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--max-cost", "abc"], "--max-cost: 'abc'"), (["--max-waste", "200%"], "--max-waste")],
)
def test_wrong_amount_is_reported_before_anything_is_planned(
    flags: list[str], message: str, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    refused = rig.batchgen("run", path, *flags, cwd=tmp_path, code=2)
    assert message in refused.stderr
    assert not (tmp_path / "batchgen.db").exists()


@pytest.mark.fault("XF1")
@pytest.mark.parametrize(
    ("flags", "failpoint", "code"),
    [
        (["--max-cost", "0.01"], "", 3),
        ([], "approved", -signal.SIGKILL),
    ],
    ids=["refused", "killed"],
)
def test_first_run_without_approval_leaves_no_ledger(
    flags: list[str], failpoint: str, code: int, served: rig.Endpoint, tmp_path: Path
) -> None:
    path = rig.manifest(tmp_path, served.base_url, ["one"])
    env = {"BATCHGEN_FAILPOINT": failpoint} if failpoint else {}
    posts = served.judge("stats")["posts"]
    rig.batchgen("run", path, *flags, cwd=tmp_path, env=env, code=code)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["batch.yaml", "batchgen.db.lock"]
    assert served.judge("stats")["posts"] == posts


def test_missing_key_is_reported_before_anything_is_planned(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("jobs: [a mug]\n", encoding="utf-8")
    refused = rig.batchgen("run", path, cwd=tmp_path, code=2)
    assert "CRAZYROUTER_API_KEY" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["m.yaml"]
