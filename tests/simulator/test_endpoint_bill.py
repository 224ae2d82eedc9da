"""The bill of the embedded endpoint: on disk first, whole after a kill, and complete."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.simulator.billing import Journal
from tests.support import rig
from tests.support.endpoint import KEY, PROMPT, ask, error_of

SWITCHES = ()


def ask_slowly(endpoint: rig.Endpoint, threads: ThreadPoolExecutor) -> Any:
    """Start a generation and come back once the endpoint works on it."""
    response = threads.submit(ask, endpoint)
    while not endpoint.judge("stats")["in_flight"]:
        assert not response.done()
    return response


def test_bill_is_on_disk_before_the_response(
    served: rig.Endpoint,
) -> None:
    response = ask(served, headers={**KEY, "Idempotency-Key": "mine-1"})
    row = served.bill()[-1]
    assert row["idempotency_key"] == "mine-1"
    assert row["request_id"] == response.headers["x-oneapi-request-id"]
    assert row["prompt"] == PROMPT


def test_bill_continues_after_the_endpoint_is_killed(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--balance", "0.10") as first:
        assert ask(first).status_code == 200
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with rig.endpoint(tmp_path, "--balance", "0.10") as second:
        assert ask(second).status_code == 200
        assert error_of(ask(second)) == (403, "insufficient_user_quota")
        assert [row["seq"] for row in second.bill()] == [1, 2]


def test_balance_never_falls_below_zero_under_concurrency(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--balance", "0.20", "--latency", "0.1") as poor:
        with ThreadPoolExecutor(20) as threads:
            statuses = [r.status_code for r in threads.map(lambda _: ask(poor), range(20))]
        assert statuses.count(200) == len(poor.bill()) == 5
        assert statuses.count(403) == 15


def test_who_hangs_up_is_billed_all_the_same(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--latency", "0.5") as slow:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{slow.base_url}/images/generations",
                json={"model": "gpt-image-2", "prompt": PROMPT},
                headers=KEY,
                timeout=httpx.Timeout(5, read=0.1),
            )
        slow.wait_until_idle()
        assert len(slow.bill()) == 1


def test_a_top_up_lets_the_caller_go_on_and_outlives_the_process(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--balance", "0.0377") as poor:
        assert ask(poor).status_code == 200
        assert error_of(ask(poor)) == (403, "insufficient_user_quota")
        assert poor.judge("topup", {"dollars": "0.08"}) == {"balance_micros": 80_000}
        assert ask(poor).status_code == 200
    with rig.endpoint(tmp_path, "--balance", "0.0377") as again:
        assert again.judge("stats")["balance_micros"] == 80_000 - rig.PRICE


def test_statistics_agree_with_the_bill(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--rate", "1", "--burst", "3") as endpoint:
        for prompt in ("once", "twice", "twice", "too much"):
            ask(endpoint, prompt=prompt)
        stats = endpoint.judge("stats")
        assert (stats["posts"], stats["billed"], stats["sent_429"]) == (4, 3, 1)
        assert stats["billed_micros"] == sum(row["micros"] for row in endpoint.judge("bill"))
        assert (stats["prompts_billed_twice"], stats["max_in_flight"]) == (1, 1)


def test_replayed_key_gets_the_saved_response_for_free(tmp_path: Path) -> None:
    switches = ("--idempotency", "replay")
    keyed = {**KEY, "Idempotency-Key": "k-1"}
    with rig.endpoint(tmp_path, *switches, "--bill-drop", "1") as lossy:
        with pytest.raises(httpx.TransportError):
            ask(lossy, headers=keyed)
        assert len(lossy.bill()) == 1
    with rig.endpoint(tmp_path, *switches, "--latency", "0.2") as endpoint:
        assert ask(endpoint, headers=keyed).json()["data"][0]["url"]
        reused = ask(endpoint, headers=keyed, prompt="something else")
        assert error_of(reused) == (400, "idempotency_key_reused")
        assert len(endpoint.bill()) == 1
        other = {**KEY, "Idempotency-Key": "k-2"}
        with ThreadPoolExecutor(8) as threads:
            responses = list(threads.map(lambda _: ask(endpoint, headers=other).content, range(8)))
        assert len(set(responses)) == 1
        assert len(endpoint.bill()) == 2


def test_without_replay_a_repeated_key_is_billed_again(served: rig.Endpoint) -> None:
    before = len(served.bill())
    keyed = {**KEY, "Idempotency-Key": "again"}
    assert ask(served, headers=keyed).content != ask(served, headers=keyed).content
    assert len(served.bill()) - before == 2


def test_nothing_is_answered_before_the_bill_is_synced(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = (
        "import os, pathlib\n"
        "from batchgen.simulator.__main__ import main\n"
        "sync, gate = os.fsync, pathlib.Path(os.environ['GATE'])\n"
        "def gated_sync(file):\n"
        "    while not gate.exists(): pass\n"
        "    sync(file)\n"
        "os.fsync = gated_sync\n"
        "main(['--stdin-lifeline', '--state', os.environ['STATE']])\n"
    )
    environment = {**os.environ, "GATE": str(gate), "STATE": str(tmp_path / "state")}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        endpoint = rig.Endpoint(
            json.loads(process.stdout.readline())["base_url"], tmp_path / "state", process
        )
        with ThreadPoolExecutor(1) as threads:
            response = threads.submit(ask, endpoint)
            try:
                while not endpoint.bill():  # written, and waiting for the disk
                    assert not response.done()
                assert endpoint.judge("bill") == []
                assert not response.done()
            finally:
                gate.touch()
            assert response.result().status_code == 200
        assert len(endpoint.judge("bill")) == 1
        process.communicate()


def test_bill_at_body_charges_even_if_the_endpoint_dies(tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--bill-at", "body", "--latency", "30") as endpoint:
        with ThreadPoolExecutor(1) as threads:
            response = ask_slowly(endpoint, threads)
            while not endpoint.judge("stats")["billed"]:
                assert not response.done()
            endpoint.process.kill()
            with pytest.raises(httpx.TransportError):
                response.result()
        assert len(endpoint.bill()) == 1


@pytest.mark.parametrize("end", ["lifeline", "sigterm"])
def test_what_is_in_flight_is_finished_and_billed_at_the_end(end: str, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path, "--latency", "0.5") as endpoint:
        with ThreadPoolExecutor(1) as threads:
            response = ask_slowly(endpoint, threads)
            if end == "lifeline":
                assert endpoint.process.stdin is not None
                endpoint.process.stdin.close()
            else:
                endpoint.process.terminate()
            assert response.result().status_code == 200
        assert endpoint.process.wait(20) == (0 if end == "lifeline" else -signal.SIGTERM)
        assert len(endpoint.bill()) == 1


@given(lines=st.lists(st.text(max_size=20), min_size=1, max_size=5), data=st.data())
def test_a_torn_bill_keeps_every_whole_line(
    lines: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "bill.jsonl"

    async def write(rows: list[str]) -> list[bytes]:
        journal = Journal(path)
        for row in rows:
            await journal.append(row)
        await journal.close()
        return journal.lines()

    asyncio.run(write(lines))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert [json.loads(line) for line in asyncio.run(write(["more"]))] == [*lines[:kept], "more"]
