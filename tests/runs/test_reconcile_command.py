"""`batchgen reconcile`: real runs, a real endpoint's log, and its bill as the judge."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support import rig, wire

TOKEN = "CANARY-access-token-0123456789"
JOBS = 24


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[rig.Endpoint]:
    """An endpoint that bills some requests and drops their responses."""
    with rig.endpoint(
        tmp_path / "endpoint", "--fast-images", "--bill-drop", "0.25", "--seed", "5"
    ) as endpoint:
        yield endpoint


def run(directory: Path, endpoint: rig.Endpoint, *, waste: str = "0", jobs: int = JOBS) -> None:
    """Run a batch to its end, with uncertain jobs left."""
    path = rig.manifest(
        directory,
        endpoint.base_url,
        [f"image {number}" for number in range(jobs)],
        limits=f'{{concurrency: 16, max_waste: "{waste}"}}',
    )
    rig.batchgen("run", path, cwd=directory, code=None)
    endpoint.wait_until_idle()


def reconcile(directory: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = rig.batchgen("reconcile", "batch", "--json", *arguments, cwd=directory, code=code)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def billed(endpoint: rig.Endpoint) -> int:
    return sum(row["micros"] for row in endpoint.bill())


def micros(text: str) -> int:
    whole, decimals = text.split(".")
    return int(whole + decimals)


def money(directory: Path) -> tuple[int, int]:
    cost = rig.status(directory)["cost"]
    return micros(cost["charged"]), micros(cost["maybe"])


def dropped(endpoint: rig.Endpoint) -> int:
    return sum(row["status"] == "dropped" for row in endpoint.bill())


@pytest.mark.parametrize("waste", ["0", "100%"])
def test_lost_responses_that_are_billed_are_charged_to_the_cent(
    flaky: rig.Endpoint, tmp_path: Path, waste: str
) -> None:
    run(tmp_path, flaky, waste=waste)
    lost, before = dropped(flaky), rig.status(tmp_path)
    assert lost >= 3
    assert money(tmp_path)[1] > 0
    posts = flaky.judge("stats")["posts"]

    found = reconcile(tmp_path, "--settle", "0")

    assert found["agrees"]
    assert len(found["billed"]) == lost
    assert money(tmp_path) == (billed(flaky), 0)
    rig.judge(tmp_path, flaky.bill(), finished=True)
    assert rig.status(tmp_path)["jobs"] == before["jobs"], "a lost image is not there for it"
    assert found["jobs"]["charged_and_held"] == before["jobs"]["uncertain"]
    assert flaky.judge("stats")["posts"] == posts, "something was sent"

    again = reconcile(tmp_path, "--settle", "0")
    assert again["agrees"]
    assert again["billed"] == []


def test_lost_responses_without_a_charge_are_pending_again(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--break", "0.25") as endpoint:
        run(tmp_path, endpoint)
        lost = rig.status(tmp_path)["jobs"]["uncertain"]
        assert lost >= 3
        found = reconcile(tmp_path, "--settle", "60", code=1)
        assert {one["why"] for one in found["unproven"]} == {"young"}
        assert len(found["unproven"]) == lost
        assert rig.status(tmp_path)["jobs"]["uncertain"] == lost

        done = rig.batchgen("reconcile", "batch", "--settle", "0", cwd=tmp_path)
        assert f"{lost}  were uncertain and are not charged" in done.stdout
        assert f"{lost} jobs pending again" in done.stdout
        assert "next: batchgen resume batch" in done.stdout
        assert money(tmp_path) == (billed(endpoint), 0)

        endpoint.judge("faults", {})
        rig.batchgen("resume", "batch", cwd=tmp_path)
        assert rig.status(tmp_path)["jobs"]["done"] == JOBS
        assert len(endpoint.bill()) == JOBS, "each image is paid for once"
        rig.judge(tmp_path, endpoint.bill(), finished=True)


def test_short_settle_window_finds_charges_known_before(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", "--latency", "3") as endpoint:
        prompts = ["a mug", "a cup", "a hat"]
        path = rig.manifest(
            tmp_path, endpoint.base_url, prompts, limits="{max_waste: 0, deadline: 1}"
        )
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        endpoint.wait_until_idle()
        assert len(reconcile(tmp_path)["billed"]) == len(prompts)

        again = reconcile(tmp_path, "--settle", "0")

        assert again["agrees"], again
        assert money(tmp_path) == (billed(endpoint), 0)


def test_indistinguishable_requests_stay_unproven(tmp_path: Path) -> None:
    switches = ("--bill-drop", "0.2", "--break", "0.2", "--seed", "5")
    with rig.endpoint(tmp_path / "endpoint", "--fast-images", *switches) as endpoint:
        run(tmp_path, endpoint)
        before = money(tmp_path)
        lost = rig.status(tmp_path)["jobs"]["uncertain"]
        assert 0 < dropped(endpoint) < lost
        found = reconcile(tmp_path, "--settle", "0", code=1)
    why = {one["why"] for one in found["unproven"]}
    assert why == {"ambiguous"}
    charged, maybe = money(tmp_path)
    assert charged + maybe <= sum(before)
    assert len(found["unproven"]) + len(found["billed"]) + len(found["unbilled"]) == lost


@pytest.mark.fault("A09")
def test_refused_log_changes_nothing(flaky: rig.Endpoint, tmp_path: Path) -> None:
    run(tmp_path, flaky)
    before = rig.status(tmp_path)
    flaky.judge("log", {"refuse": True})
    done = rig.batchgen("reconcile", "batch", "--settle", "0", cwd=tmp_path, code=3)
    assert "nothing was changed" in done.stderr
    assert "access token 无效" in done.stderr
    assert rig.status(tmp_path) == before


@pytest.mark.fault("A09", "A10", "A11")
def test_pages_double_and_late_rows_change_no_result(flaky: rig.Endpoint, tmp_path: Path) -> None:
    run(tmp_path, flaky)
    flaky.judge("log", {"page_cap": 5, "double": True, "late_s": 3600})
    early = reconcile(tmp_path, code=1)
    assert early["billed"] == []
    assert {one["why"] for one in early["unproven"]} == {"young"}
    flaky.judge("log", {"late_s": 0, "late_queries": 4})
    found = reconcile(tmp_path, "--settle", "0")
    assert len(found["billed"]) == dropped(flaky)
    assert money(tmp_path) == (billed(flaky), 0)


@pytest.mark.fault("A08")
def test_foreign_charges_are_reported_apart_from_lost_responses(
    flaky: rig.Endpoint, tmp_path: Path
) -> None:
    run(tmp_path, flaky)
    reconcile(tmp_path, "--settle", "0")
    flaky.judge("log", {"foreign": 2})
    done = rig.batchgen("reconcile", "batch", "--settle", "0", cwd=tmp_path, code=1)
    assert "2  foreign charges of $0.08 that match no request of this ledger:" in done.stdout
    assert done.stdout.count("foreign0") == 2
    assert "has leaked" in done.stdout
    found = reconcile(tmp_path, "--settle", "0", code=1)
    assert [row["amount"] for row in found["foreign"]] == ["0.037700"] * 2
    assert money(tmp_path) == (billed(flaky), 0)


@pytest.mark.fault("A03")
def test_a_price_that_drifts_is_raised_and_written_down(
    flaky: rig.Endpoint, tmp_path: Path
) -> None:
    run(tmp_path, flaky)
    flaky.judge("log", {"drift_percent": 2})
    done = rig.batchgen("reconcile", "batch", "--settle", "0", cwd=tmp_path, code=1)
    assert (
        f"price drift: gpt-image-2 was charged $0.038454, not $0.0377, for {JOBS} requests"
        in done.stdout
    )
    assert f"{JOBS - dropped(flaky)}  are charged a different amount" in done.stdout
    assert money(tmp_path) == (JOBS * 38_454, 0)
    found = reconcile(tmp_path, "--settle", "0", code=1)
    assert found["corrected"] == []
    assert [drift["requests"] for drift in found["drift"]] == [JOBS]


def test_an_exported_log_does_as_well(flaky: rig.Endpoint, tmp_path: Path) -> None:
    run(tmp_path, flaky)
    rows = [
        f"{int(row['time'])},{row['model']},{row['micros'] // 2},{row['request_id']}"
        for row in flaky.bill()
    ]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["created_at,model_name,quota,request_id", *rows]), encoding="utf-8")
    found = reconcile(tmp_path, "--log", "log.csv")
    assert len(found["billed"]) == dropped(flaky)
    assert money(tmp_path) == (billed(flaky), 0)
    assert found["log"]["source"] == "log.csv"

    log.write_text("time,cost\n", encoding="utf-8")
    done = rig.batchgen("reconcile", "batch", "--log", "log.csv", cwd=tmp_path, code=2)
    assert "log.csv: the header lacks created_at" in done.stderr
    done = rig.batchgen("reconcile", "batch", "--log", "none.csv", cwd=tmp_path, code=2)
    assert "none.csv: can't be read" in done.stderr


def at_crazyrouter(directory: Path, base_url: str) -> None:
    """A batch whose provider is the gateway, at another URL, with one completed request."""
    directory.mkdir(exist_ok=True)
    path = directory / "batch.yaml"
    path.write_text(
        f"provider: {{name: crazyrouter, base_url: {base_url!r}}}\n"
        "options: {size: 1024x640}\njobs: [a cup]\n",
        encoding="utf-8",
    )
    key = {"CRAZYROUTER_API_KEY": "sk-key-of-these-tests"}
    rig.batchgen("run", path, cwd=directory, env=key)


def test_account_is_read_from_the_environment_and_not_shown(tmp_path: Path) -> None:
    env = {"CRAZYROUTER_ACCESS_TOKEN": TOKEN, "CRAZYROUTER_USER_ID": "7"}
    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        at_crazyrouter(tmp_path, endpoint.base_url)
        done = rig.batchgen("reconcile", "batch", cwd=tmp_path, code=2)
        assert "set CRAZYROUTER_ACCESS_TOKEN" in done.stderr
        done = rig.batchgen("reconcile", "batch", cwd=tmp_path, env=env)
        assert "the ledger and the log agree" in done.stdout
        assert TOKEN not in done.stdout + done.stderr
        none = rig.batchgen(
            "reconcile", "batch", "--token-name", "x", cwd=tmp_path, env=env, code=1
        )
        assert "unproven" in none.stdout
        key = env | {"CRAZYROUTER_ACCESS_TOKEN": "sk-0123456789"}
        done = rig.batchgen("reconcile", "batch", cwd=tmp_path, env=key, code=3)
        assert "the provider reports a failure" in done.stderr
        assert "sk-0123456789" not in done.stderr
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


async def _echo(connection: wire.Connection, server: wire.Server) -> None:
    request = await wire.receive(connection, server)
    body = json.dumps({"success": False, "message": request.headers["authorization"]}).encode()
    await connection.send(wire.response(body))


@pytest.mark.anyio
async def test_a_provider_that_repeats_the_token_gives_nothing_away(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        at_crazyrouter(tmp_path, endpoint.base_url)
    env = {"CRAZYROUTER_ACCESS_TOKEN": TOKEN, "CRAZYROUTER_USER_ID": "7"}
    async with wire.serve(_echo) as server:
        with closing(sqlite3.connect(tmp_path / "batchgen.db")) as conn, conn:
            conn.execute(
                "UPDATE batches SET manifest = replace(manifest, ?, ?)",
                (endpoint.base_url, f"{server.url}/v1"),
            )
        done = await anyio.to_thread.run_sync(
            lambda: rig.batchgen("reconcile", "batch", cwd=tmp_path, env=env, code=3)
        )
    assert "a failure: Bearer ***" in done.stderr
    assert TOKEN not in done.stderr + done.stdout


def test_the_embedded_endpoint_is_started_for_its_log(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text(
        "provider: local\noptions: {size: 1024x640}\njobs: [a cup]\n", encoding="utf-8"
    )
    rig.batchgen("run", "batch.yaml", cwd=tmp_path)
    assert reconcile(tmp_path)["agrees"]


def test_a_batch_without_requests_or_a_log_says_so(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "endpoint", "--fast-images") as endpoint:
        path = rig.manifest(tmp_path, endpoint.base_url, ["a cup"], limits="{max_cost: 0}")
        rig.batchgen("run", path, cwd=tmp_path, code=3)
        done = rig.batchgen("reconcile", "batch", cwd=tmp_path, code=2)
        assert "no such ledger" in done.stderr
        rig.batchgen("run", path, "--max-cost", "1", cwd=tmp_path)
    done = rig.batchgen("reconcile", "unknown", cwd=tmp_path, code=2)
    assert "no batch 'unknown'" in done.stderr
    done = rig.batchgen("reconcile", "batch", cwd=tmp_path, code=3)
    assert "the log can't be read, nothing was changed" in done.stderr
