"""A ledger in a bucket: its lease, its backup, and the loss of a machine."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.cluster.lease import Driver, LeaseTimes, acquire
from batchgen.cluster.lease_record import WHOLE_LEDGER
from batchgen.storage.object_store import ObjectStore
from batchgen.system.failpoints import Point
from batchgen.system.process_table import this_process
from tests.support import canary, rig
from tests.support.extras import require
from tests.support.images import drawing, encoded
from tests.support.old_store import Behavior, s3_proxy
from tests.support.s3 import S3Server
from tests.support.scripted_server import scripted

require("obstore", "moto")

PROMPTS = ("one", "two", "three", "four")


@dataclass
class Machine:
    """A directory that simulates a machine: it shares the bucket with others, and no file."""

    directory: Path
    served: rig.Endpoint
    url: str
    root: str
    env: dict[str, str]

    def write(self, *prompts: str, limits: str = "{concurrency: 1, max_waste: 0}") -> None:
        output = f"output: {{dir: {json.dumps(self.root)}}}\n"
        rig.manifest(self.directory, self.served.base_url, prompts, limits=limits, extra=output)

    def batchgen(self, *arguments: str, code: int = 0, point: str | None = None) -> str:
        env = self.env if point is None else {**self.env, "BATCHGEN_FAILPOINT": point}
        done = rig.batchgen(*arguments, cwd=self.directory, env=env, code=code)
        return done.stdout + done.stderr

    def run(self, *options: str, code: int = 0, point: str | None = None) -> str:
        return self.batchgen(
            "run", "batch.yaml", "--db", self.url, *options, code=code, point=point
        )

    def lose(self) -> None:
        """Lose the disk."""
        shutil.rmtree(self.directory)
        self.directory.mkdir()

    def states(self) -> dict[str, int]:
        found: dict[str, int] = rig.status(self.directory)["jobs"]
        return {state: count for state, count in found.items() if count}


@dataclass
class Shop:
    """A batch whose ledger and images are in one bucket."""

    base: Path
    served: rig.Endpoint
    server: S3Server
    bucket: str
    before: int

    def machine(self, name: str, *prompts: str) -> Machine:
        directory = self.base / name
        directory.mkdir()
        root = f"s3://{self.bucket}"
        env = {**self.server.env, "BATCHGEN_CLUSTER_GRACE": "1"}
        one = Machine(directory, self.served, f"{root}/state", f"{root}/out", env)
        one.write(*prompts)
        return one

    @property
    def state(self) -> ObjectStore:
        return ObjectStore(f"s3://{self.bucket}/state", self.server.options)

    def objects(self) -> set[str]:
        return {one.name for one in self.state.list()}

    def bill(self) -> list[dict[str, Any]]:
        return self.served.bill()[self.before :]

    def judge(self, machine: Machine) -> None:
        """The ledger of a machine accounts for each cent of the bill."""
        rig.judge_money(machine.directory / "batchgen.db", self.bill())

    def judge_lost(self, machine: Machine) -> None:
        """So does that of a machine that was restored, and the bucket has what it must keep."""
        self.judge(machine)
        for name in self.objects():
            assert not canary.is_in(self.state.read(name)), name
        states = machine.states()
        assert f"{states['done']} images, all as they were" in machine.batchgen("verify", "batch")
        held = {name for name in self.objects() if name.startswith("spool/")}
        assert len(held) == states.get("uncertain", 0), "only what is uncertain is kept"


@pytest.fixture
def shop(served: rig.Endpoint, s3: S3Server, tmp_path: Path) -> Shop:
    return Shop(tmp_path, served, s3, s3.new_bucket(), len(served.bill()))


@pytest.fixture
def proxied(shop: Shop, behavior: Behavior) -> Iterator[Shop]:
    with s3_proxy(shop.server.endpoint, behavior) as endpoint:
        shop.server = S3Server(endpoint)
        yield shop


def test_ledger_is_in_the_bucket_after_a_run(shop: Shop) -> None:
    first = shop.machine("a", "one", "two")
    assert f"next: batchgen status batch --db {first.url}" in first.run()
    assert shop.objects() == {"batchgen.db", "lock.json"}, "what is backed up needs no intent"
    assert json.loads(shop.state.read("lock.json"))["held"] is False
    assert "nothing sent" in first.run()
    second = shop.machine("b", "one", "two", "three")
    assert f"was restored from {second.url}" in second.run()
    assert second.states() == {"done": 3}
    assert len(shop.bill()) == 3
    shop.judge(second)


def test_machine_that_was_overtaken_takes_the_newer_ledger(shop: Shop) -> None:
    first, second = shop.machine("a", "one"), shop.machine("b", "one", "two")
    first.run()
    second.run()
    first.write("one", "two", "three")
    assert "another machine continued" in first.run()
    assert (first.directory / "batchgen.db.old1").is_file(), "the old ledger is kept"
    assert first.states() == {"done": 3}
    assert len(shop.bill()) == 3
    shop.judge(first)


@pytest.mark.parametrize(
    ("point", "is_known"),
    [
        (Point.RESERVED, True),
        (Point.INTENT_PUT, False),
        (Point.BODY_SENT, False),
        (Point.RESPONSE_PUT, True),
        (Point.RECEIVED, True),
    ],
)
def test_lost_machine_leaves_no_charge_without_a_record(
    point: Point, is_known: bool, shop: Shop
) -> None:
    lost = shop.machine("a", *PROMPTS)
    lost.run(code=-9, point=f"{point}:2")
    lost.lose()
    second = shop.machine("b", *PROMPTS)
    second.run(code=0 if is_known else 1)
    assert second.states() == ({"done": 4} if is_known else {"done": 3, "uncertain": 1})
    # Without a response, the request of an intent may have been sent or not.
    assert len(shop.bill()) == (3 if point is Point.INTENT_PUT else 4)
    shop.judge_lost(second)


@pytest.mark.parametrize("point", [Point.PLACED, Point.SAVED])
def test_image_placed_by_a_lost_machine_is_known_again(point: Point, shop: Shop) -> None:
    lost = shop.machine("a", *PROMPTS)
    lost.run(code=-9, point=f"{point}:2")  # the next request may be in flight
    lost.lose()
    second = shop.machine("b", *PROMPTS)
    rig.batchgen(
        *("run", "batch.yaml", "--db", second.url), cwd=second.directory, env=second.env, code=None
    )
    assert second.states().get("uncertain", 0) <= 1
    assert second.states()["done"] >= 3
    shop.judge_lost(second)


def test_large_responses_of_a_lost_machine_are_used(shop: Shop) -> None:
    inline = encoded(drawing(64, 48), "PNG")
    with scripted() as script:
        script.response({"b64_json": base64.b64encode(inline).decode()})
        lost = shop.machine("a")
        base_url = f"{script.base}/v1"
        output = f"output: {{dir: {json.dumps(lost.root)}}}\n"
        rig.manifest(lost.directory, base_url, ["one"], options="{}", extra=output)
        lost.run(code=-9, point=Point.RESPONSE_PUT)
        lost.lose()
        second = shop.machine("b")
        rig.manifest(second.directory, base_url, ["one"], options="{}", extra=output)
        second.run()
        assert len(script.posts) == 1
    images = ObjectStore(second.root, shop.server.options)
    assert images.read("job-000.png") == inline


@pytest.mark.parametrize("point", [Point.INTENT_PUT, Point.RESPONSE_PUT, Point.RECEIVED])
def test_killed_run_continues_on_its_own_machine(point: Point, shop: Shop) -> None:
    one = shop.machine("a", *PROMPTS)
    one.run(code=-9, point=f"{point}:2")
    # The ledger here is newer than the backup, and the spool has what had arrived.
    is_known = point is not Point.INTENT_PUT
    shown = one.run(code=0 if is_known else 1)
    assert "was restored" not in shown
    assert "may still be" not in shown, "the process that could put a response is dead"
    assert one.states() == ({"done": 4} if is_known else {"done": 3, "uncertain": 1})
    shop.judge(one)


def other_machine(*, take_over: bool = False) -> Driver:
    here = this_process()
    return Driver(
        here=replace(here, me=replace(here.me, host="shop2", boot="other")), take_over=take_over
    )


def test_second_driver_is_refused(shop: Shop) -> None:
    one, times = shop.machine("a", "one"), LeaseTimes(renew_s=0.2)
    with acquire(shop.state, WHOLE_LEDGER, other_machine(), times=times):
        said = one.run(code=75)
        assert "on shop2" in said
        assert "which renewed its lease just now" in said
    assert not (one.directory / "batchgen.db").exists()
    assert shop.bill() == []
    one.run()


def test_driver_that_loses_its_lease_sends_no_more(shop: Shop, tmp_path: Path) -> None:
    with rig.endpoint(tmp_path / "slow", "--latency", "1") as slow:
        shop.served, shop.before = slow, 0
        one = shop.machine("a", *(f"prompt {number}" for number in range(60)))
        with rig.start("run", "batch.yaml", "--db", one.url, cwd=one.directory, env=one.env) as run:
            while not slow.bill():
                assert run.poll() is None
            times = LeaseTimes(lapse_s=0)  # the run has the time to see it
            with acquire(shop.state, WHOLE_LEDGER, other_machine(take_over=True), times=times):
                out, err = run.communicate(timeout=rig.TIMEOUT_S)
            assert run.returncode == 3, out + err
        assert "the lease of the ledger was taken by" in out + err
        assert 0 < len(slow.bill()) < 60
        shop.judge(one)


def test_bucket_that_refuses_intents_stops_before_the_money(
    proxied: Shop, behavior: Behavior
) -> None:
    one = proxied.machine("a", *PROMPTS)
    behavior.only, behavior.refuse_puts = ".intent", True
    assert "storage: " in one.run(code=3)
    assert proxied.bill() == []
    assert one.states() == {"pending": 4}
    behavior.refuse_puts = False
    one.run()
    assert one.states() == {"done": 4}
    proxied.judge(one)


def test_bucket_that_refuses_responses_loses_none(proxied: Shop, behavior: Behavior) -> None:
    one = proxied.machine("a", *PROMPTS)
    behavior.only, behavior.refuse_puts = ".response", True
    assert "storage: " in one.run(code=3)
    assert len(proxied.bill()) == 1
    assert one.states() == {"done": 1, "pending": 3}, "the spool of this machine has it"
    behavior.refuse_puts = False
    one.run()
    assert one.states() == {"done": 4}
    proxied.judge(one)


def test_ledger_that_cannot_be_backed_up_costs_nothing(proxied: Shop, behavior: Behavior) -> None:
    one = proxied.machine("a", *PROMPTS)
    behavior.only, behavior.refuse_puts = "batchgen.db", True
    assert "the ledger cannot be backed up" in one.run(code=2)
    assert proxied.bill() == []


def test_ledgers_of_other_places_are_refused(shop: Shop) -> None:
    one = shop.machine("a", "one")
    one.run()
    for command in ("run", "try"):
        said = one.batchgen(command, "batch.yaml", code=2)
        assert f"expected --db {one.url}" in said
    assert "this ledger belongs to" in one.batchgen(
        "run", "batch.yaml", "--db", f"{one.root}/elsewhere", code=2
    )
    plain = shop.machine("plain", "one")
    plain.root = f"{plain.root}/plain"
    plain.write("one")
    plain.batchgen("run", "batch.yaml")
    assert "this ledger is not the one in" in plain.run(code=2)
    fresh = shop.machine("fresh", "one")
    for command in ("plan", "status"):
        said = fresh.batchgen(command, "batch.yaml", "--db", fresh.url, code=2)
        assert f"is not the ledger of {fresh.url} on this machine" in said
    assert "cannot use a ledger in a bucket" in fresh.batchgen(
        "try", "batch.yaml", "--db", fresh.url, code=2
    )
    assert "expected s3://BUCKET" in fresh.batchgen("run", "batch.yaml", "--db", "s3://", code=2)
    assert len(shop.bill()) == 2


def test_commands_read_the_working_copy(shop: Shop) -> None:
    one = shop.machine("a", "one")
    one.run()
    assert "1 of 1 job done" in one.batchgen("status", "batch", "--db", one.url)
    assert "1 image" in one.batchgen("verify", "batch", "--db", one.url)
    assert "would be sent" not in one.batchgen("plan", "batch.yaml", "--db", one.url)
    one.env["BATCHGEN_DB"] = one.url
    assert "nothing sent" in one.batchgen("run", "batch.yaml")
    assert "nothing sent" in one.batchgen("resume", "batch")


def test_resume_needs_no_file_of_the_lost_machine(shop: Shop) -> None:
    lost = shop.machine("a", *PROMPTS)
    lost.run(code=-9, point=f"{Point.RECEIVED}:2")
    lost.lose()
    second = shop.machine("b")
    (second.directory / "batch.yaml").unlink()
    assert "was restored from" in second.batchgen("resume", "batch", "--db", second.url)
    assert second.states() == {"done": 4}
    shop.judge_lost(second)


def test_existing_ledger_is_adopted_by_an_empty_bucket(shop: Shop) -> None:
    one = shop.machine("a", "one")
    one.batchgen("run", "batch.yaml")
    assert f"is backed up in {one.url} from now on" in one.run()
    second = shop.machine("b", "one")
    assert "nothing sent" in second.run()
    assert len(shop.bill()) == 1


def test_damaged_backup_is_refused(shop: Shop) -> None:
    one = shop.machine("a", "one")
    one.run()
    shop.state.put("batchgen.db", b"SQLite format 3\0 and nothing else")
    fresh = shop.machine("b", "one")
    assert "ledger" in fresh.run(code=2)
    assert not (fresh.directory / "batchgen.db").exists()
    assert len(shop.bill()) == 1


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(30))
def test_machines_lost_at_any_moment(seed: int, shop: Shop, tmp_path: Path) -> None:
    """``python -m pytest -n 0 -m sweep tests/extras/test_ledger_backup.py`` takes 10 minutes."""
    chance = random.Random(seed)
    prompts = [f"prompt {number}" for number in range(60)]
    limits = "{concurrency: 8, max_waste: 0}"
    with rig.endpoint(tmp_path / "slow", "--latency", "0.1") as slow:
        shop.served, shop.before, kills = slow, 0, 3
        one = shop.machine("0")
        for number in range(1, kills + 1):
            one.env["BATCHGEN_BACKUP_EVERY"] = chance.choice(["0.2", "1", "60"])
            one.write(*prompts, limits=limits)
            command = ("run", "batch.yaml", "--db", one.url)
            with rig.start(*command, cwd=one.directory, env=one.env) as run:
                wanted = len(slow.bill()) + chance.randint(1, 15)
                while len(slow.bill()) < wanted and run.poll() is None:
                    pass
                run.kill()
            if chance.random() < 0.7:
                one.lose()
                one = shop.machine(str(number))
        one.write(*prompts, limits=limits)
        rig.batchgen(*command, cwd=one.directory, env=one.env, code=None)
        slow.wait_until_idle()
        states = one.states()
        assert states["done"] + states.get("uncertain", 0) == 60
        assert states.get("uncertain", 0) <= kills * 8
        assert len({row["prompt"] for row in slow.bill()}) == len(slow.bill()), "paid twice"
        shop.judge(one)
        assert "as they were saved" in one.batchgen("verify", "batch")
