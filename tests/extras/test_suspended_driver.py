"""A driver that was suspended until another machine took its place wakes up and ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from batchgen.cluster.intents import Intent
from batchgen.job import AttemptId
from batchgen.money import Micros
from batchgen.storage.object_store import ObjectStore
from tests.support import rig
from tests.support.bucket_shop import Shop
from tests.support.extras import require

require("obstore", "moto")

JOBS = 24
IN_FLIGHT = 8


def _states(directory: Path) -> dict[str, int]:
    found: dict[str, int] = rig.status(directory)["jobs"]
    return {state: count for state, count in found.items() if count}


def _attempts(directory: Path) -> list[str]:
    rows = rig.query(directory / "batchgen.db", "SELECT outcome FROM attempts ORDER BY id")
    return [row["outcome"] for row in rows]


def test_image_that_exists_is_not_rebought_for_an_old_intent(shop: Shop) -> None:
    """A driver that wakes up may put an intent after another one has made the image."""
    state = shop.root.replace("/out", "/state")
    shop.write("one", extra="limits: {max_waste: 1.00}\n")
    text = (
        (shop.directory / "batch.yaml").read_text().replace("limits: {canary: 100, ", "x-l: {", 1)
    )
    (shop.directory / "batch.yaml").write_text(text)
    shop.run("--db", state)
    (made,) = rig.query(shop.directory / "batchgen.db", "SELECT * FROM attempts")
    intent = Intent(
        attempt=AttemptId("f" * 32),
        epoch=1,
        batch="batch",
        key="job-000",
        fingerprint=made["fingerprint"],
        provider=made["provider"],
        model=made["model"],
        price=Micros(made["price"]),
        least=None,
        price_known=True,
        started_at=made["started_at"],
    )
    ObjectStore(state, shop.server.options).put(intent.name, intent.as_json())
    shop.run("--db", state)
    assert shop.bill == 1
    assert _states(shop.directory) == {"done": 1}
    assert _attempts(shop.directory) == ["ok", "ambiguous"], "the possible charge has a record"
    (sums,) = rig.query(shop.directory / "batchgen.db", "SELECT sum(maybe) AS maybe FROM runs")
    assert sums["maybe"] == made["price"]


@pytest.mark.timeout(180)
def test_driver_that_wakes_after_its_lease_sends_nothing(shop: Shop, tmp_path: Path) -> None:
    state = ObjectStore(shop.root.replace("/out", "/state"), shop.server.options)
    arguments = ("run", "batch.yaml", "--db", state.url)
    with rig.endpoint(tmp_path / "slow", "--latency", "0.5") as slow:
        shop.served = slow
        prompts = [f"prompt {number}" for number in range(JOBS)]
        other = tmp_path / "other"
        for directory in (shop.directory, other):
            extra = f"output: {{dir: {json.dumps(shop.root)}}}\n"
            limits = f"{{concurrency: {IN_FLIGHT}, max_waste: 0}}"
            rig.manifest(directory, slow.base_url, prompts, limits=limits, extra=extra)
        env = {**shop.env, "BATCHGEN_CLUSTER_GRACE": "1"}
        run = rig.start(*arguments, cwd=shop.directory, env=env)
        rig.wait_for(shop.directory, "SELECT 1 FROM jobs WHERE state = 'done'", run)
        run.send_signal(signal.SIGSTOP)
        lease = json.loads(state.read("lock.json"))
        lease["owner"] |= {"host": "elsewhere", "boot": "elsewhere"}
        state.put("lock.json", json.dumps(lease).encode())
        rig.batchgen(*arguments, cwd=other, env=env, code=None)
        before, charges = _states(other), len(slow.bill())
        assert before["uncertain"] <= IN_FLIGHT
        run.send_signal(signal.SIGCONT)
        shown = "".join(run.communicate(timeout=rig.TIMEOUT_S))
        assert run.returncode == 3, shown
        assert "could not be renewed for 30 s" in shown
        assert len(slow.bill()) == charges, "nothing is sent after it wakes"
        unsent = JOBS - charges  # it was suspended between their intents and their requests
        assert unsent <= IN_FLIGHT
        rig.batchgen(*arguments, cwd=other, env=env, code=1 if unsent else 0)
        expected = {"done": charges} | ({"uncertain": unsent} if unsent else {})
        assert _states(other) == expected, "its stored responses are used"
        rig.judge_money(other / "batchgen.db", slow.bill())
