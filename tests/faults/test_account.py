"""What befalls the account in the middle of a run: a key, a rate, a model, a charge for nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support import rig

PROMPTS = [f"a mug, number {number}" for number in range(16)]
LIMITS = '{concurrency: 4, max_waste: "0"}'


@pytest.mark.fault("A02")
def test_revoked_key_stops_the_run_and_fails_no_job(
    tmp_path: Path,
) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.2") as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for event in rig.events(process):
                if event.get("event") == "job_done":
                    served.judge("revoke-key", {})
                    break
            process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 3
        found = rig.status(tmp_path)
        assert "check the key" in found["stopped"]
        assert found["jobs"]["done"] + found["jobs"]["pending"] == len(PROMPTS)
        assert served.judge("stats")["posts"] <= found["jobs"]["done"] + 4
        served.judge("revoke-key", {})
        rig.batchgen("run", path, cwd=tmp_path)
        rig.judge(tmp_path, served.bill(), finished=True)


@pytest.mark.fault("A05")
def test_lower_rate_limit_causes_no_storm_of_requests(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "0.1") as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        with rig.start("run", path, "--json", cwd=tmp_path) as process:
            for event in rig.events(process):
                if event.get("event") == "job_done":
                    served.judge("faults", {"rate": 1.0, "burst": 1, "retry-after": False})
                    break
            while not served.judge("stats")["sent_429"]:
                time.sleep(0.05)
            began = time.monotonic()
            time.sleep(3)
            refused = served.judge("stats")["sent_429"]
            seconds = time.monotonic() - began
            served.judge("faults", {"rate": 0.0})
            process.communicate(timeout=rig.TIMEOUT_S)
        assert process.returncode == 0
        assert refused <= 4 + 1 + seconds, "those in flight, and then one that asks each second"
        rig.judge(tmp_path, served.bill(), finished=True)
        assert rig.status(tmp_path)["cost"]["maybe"] == "0.000000"


@pytest.mark.fault("A13")
def test_charge_without_an_image_is_counted_and_reported(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--bill-empty", "0.5") as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        rig.batchgen("run", path, cwd=tmp_path, code=1)
        bill = served.bill()
        rig.judge(tmp_path, bill, finished=True)
    found = rig.status(tmp_path)
    assert len(bill) == found["attempts"]["billed"] == len(PROMPTS)
    assert found["images"]["saved"] == found["jobs"]["done"] < len(PROMPTS)
    assert found["cost"]["charged"] == f"{len(PROMPTS) * rig.PRICE / 1e6:.6f}"
    report = rig.batchgen("report", "batch", "--format", "json", cwd=tmp_path).stdout
    failed = json.loads(report)["failed"]
    assert sum(one["jobs"] for one in failed) == len(PROMPTS) - found["jobs"]["done"]


@pytest.mark.fault("A07")
@pytest.mark.parametrize(("balance", "short"), [("0.20", True), ("5.00", False)])
def test_balance_below_the_estimate_causes_a_warning(
    balance: str, short: bool, tmp_path: Path
) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--balance", balance) as served:
        path = rig.manifest(tmp_path, served.base_url, PROMPTS, limits=LIMITS)
        text = path.read_text(encoding="utf-8").replace("name: local", "name: crazyrouter")
        path.write_text(text, encoding="utf-8")
        env = {"CRAZYROUTER_ACCESS_TOKEN": "an-access-token", "CRAZYROUTER_USER_ID": "7"}
        done = rig.batchgen("run", path, cwd=tmp_path, env=env, code=3 if short else 0)
        assert ("warning: the account holds $0.20," in done.stderr) == short
        assert "an-access-token" not in done.stderr + done.stdout
