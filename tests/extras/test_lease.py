"""The lease of a batch in a bucket of a real S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from batchgen.cluster.lease import Driver, Lease, LeaseTimes, acquire
from batchgen.cluster.lease_record import lease_name
from batchgen.errors import BatchLockedError, SettingsError, StoppedError
from batchgen.storage.object_store import ObjectStore
from batchgen.system.process_table import this_process
from tests.support.extras import require
from tests.support.old_store import Behavior, s3_proxy
from tests.support.s3 import S3Server

require("obstore", "moto")

PATIENT = LeaseTimes(renew_s=0.05, hold_s=60, lapse_s=120, poll_s=0.05)
"""Renewals that a test can wait for; nothing lapses."""
NEVER = LeaseTimes(renew_s=3600, hold_s=60, lapse_s=0.5, poll_s=0.05)
"""A holder that does not renew, and a driver that soon finds that out."""
WAIT_S = 30


@pytest.fixture
def store(s3: S3Server) -> ObjectStore:
    return ObjectStore(f"s3://{s3.new_bucket()}/state", s3.options)


@pytest.fixture
def proxied(s3: S3Server, behavior: Behavior) -> Iterator[ObjectStore]:
    with s3_proxy(s3.endpoint, behavior) as endpoint:
        options = {**s3.options, "aws_endpoint_url": endpoint}
        yield ObjectStore(f"s3://{s3.new_bucket()}/x", options)


def machine(name: str, *, take_over: bool = False) -> Driver:
    """Return a driver of another machine than this one."""
    here = this_process()
    there = replace(here, me=replace(here.me, host=name, boot=name))
    return Driver(here=there, take_over=take_over)


def content(store: ObjectStore) -> dict[str, object]:
    found: dict[str, object] = json.loads(store.read(lease_name("shop")))
    return found


def wait_for_renewals(store: ObjectStore, count: int) -> None:
    while int(str(content(store)["renewals"])) < count:
        pass


def lost(lease: Lease) -> str:
    assert lease.lost.wait(WAIT_S)
    with pytest.raises(StoppedError):
        lease.check()
    return lease.reason


def test_epoch_grows_with_each_holder(store: ObjectStore) -> None:
    with acquire(store, "shop") as lease:
        assert lease.epoch == 1
        assert lease.is_held
        lease.check()
    assert content(store)["held"] is False
    with pytest.raises(StoppedError, match="was released"):
        lease.check()
    with acquire(store, "shop") as again:
        assert again.epoch == 2
    with acquire(store, "shop/ä") as other:
        assert other.epoch == 1


def test_renewed_lease_refuses_another_machine(store: ObjectStore) -> None:
    notices: list[str] = []
    with acquire(store, "shop", machine("a"), times=PATIENT) as lease:
        wait_for_renewals(store, 2)
        with pytest.raises(BatchLockedError, match=r"of .* on a .*renewed its lease just now"):
            acquire(store, "shop", machine("b"), times=PATIENT, notice=notices.append)
        assert lease.is_held
    assert "waiting up to 120 s" in notices[0]


def test_lease_of_a_live_process_here_refuses_at_once(store: ObjectStore) -> None:
    with acquire(store, "shop"), pytest.raises(BatchLockedError, match="which is alive"):
        acquire(store, "shop", Driver(take_over=True))


def test_silent_lease_is_taken_and_its_holder_learns_it(
    s3: S3Server, proxied: ObjectStore, behavior: Behavior
) -> None:
    store = ObjectStore(proxied.url, s3.options)
    reasons: list[str] = []
    first = acquire(proxied, "shop", machine("a"), times=PATIENT)
    first.on_lost(reasons.append)
    behavior.refuse_puts = True
    while not any(line.endswith("403") for line in behavior.requests):
        pass  # a renewal that had arrived before is over
    second = acquire(store, "shop", machine("b"), times=NEVER)
    assert second.epoch == 2
    behavior.refuse_puts = False
    assert "was taken by" in lost(first)
    assert reasons == [first.reason]
    first.on_lost(reasons.append)
    assert len(reasons) == 2
    before = content(store)
    first.release()
    assert content(store) == before, "the lease of another driver is left alone"
    second.release()


def test_take_over_does_not_wait_for_a_lapse(store: ObjectStore) -> None:
    first = acquire(store, "shop", machine("a"), times=PATIENT)
    takes = replace(PATIENT, lapse_s=0.1)
    with acquire(store, "shop", machine("b", take_over=True), times=takes) as second:
        assert second.epoch == 2
        assert "was taken by" in lost(first)


def test_take_over_of_a_paused_run_waits_until_it_stops(store: ObjectStore) -> None:
    """It has no chance to see that its lease is taken, and would send its next order."""
    paused = LeaseTimes(renew_s=3600, hold_s=2, lapse_s=4)
    notices: list[str] = []
    first = acquire(store, "shop", machine("a"), times=paused)
    taker = machine("b", take_over=True)
    takes = replace(paused, renew_s=0.5)
    with acquire(store, "shop", taker, times=takes, notice=notices.append) as second:
        assert second.epoch == 2
        assert not first.is_held
    (notice,) = notices
    assert "waiting 4 s, after which that run sends nothing more" in notice


KILLED = """
import os, signal, sys, threading, time
from batchgen.cluster.lease import Driver, LeaseTimes, acquire
from batchgen.storage.object_store import ObjectStore

def interrupt(text):
    assert "is taken over from" in text
    threading.Timer(0.2, os.kill, (os.getpid(), {signal})).start()

store = ObjectStore({url!r}, {options!r})
driver = Driver(take_over=True)
acquire(store, "shop", driver, times=LeaseTimes(lapse_s=90), notice=interrupt)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_take_over_that_ended_early_leaves_its_wait(
    name: str, s3: S3Server, store: ObjectStore
) -> None:
    """The run from which it was taken may be paused, and send its next order."""
    paused = LeaseTimes(renew_s=3600, hold_s=60, lapse_s=90)
    first = acquire(store, "shop", machine("a"), times=paused)
    number = int(signal.Signals[name])
    script = KILLED.format(signal=number, url=store.url, options=s3.options)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -number, done.stderr
    notices: list[str] = []
    soon = replace(PATIENT, lapse_s=0.5)
    with acquire(store, "shop", times=soon, notice=notices.append) as third:
        assert third.epoch == 3
        third.end_wait()
    assert len(notices) == 1
    assert "waiting 0 s, after which that run sends nothing more" in notices[0]
    first.release()
    with acquire(store, "shop", times=soon, notice=notices.append):
        assert len(notices) == 1, "the wait is over"


def test_take_over_of_a_take_over_refuses_the_first(store: ObjectStore) -> None:
    acquire(store, "shop", machine("a"), times=PATIENT)
    taken = replace(PATIENT, lapse_s=0.1)
    seconds: list[Lease] = []

    def take_again(text: str) -> None:
        seconds.append(acquire(store, "shop", machine("c", take_over=True), times=taken))

    with pytest.raises(BatchLockedError, match=r"was taken by .*; nothing was changed"):
        acquire(store, "shop", machine("b", take_over=True), times=PATIENT, notice=take_again)
    (second,) = seconds
    assert second.is_held
    second.release()


def test_lease_of_a_killed_process_here_is_taken_at_once(s3: S3Server, store: ObjectStore) -> None:
    script = (
        "import os\n"
        "from batchgen.cluster.lease import acquire\n"
        "from batchgen.storage.object_store import ObjectStore\n"
        f"acquire(ObjectStore({store.url!r}, {s3.options!r}), 'shop')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert content(store)["held"] is True
    with acquire(store, "shop") as lease:
        assert lease.epoch == 2


def test_lease_without_a_renewal_is_lost(proxied: ObjectStore, behavior: Behavior) -> None:
    times = LeaseTimes(renew_s=0.05, hold_s=3, lapse_s=4)
    lease = acquire(proxied, "shop", times=times)
    behavior.refuse_puts = True
    assert "could not be renewed for 3 s" in lost(lease)
    lease.release()


def test_stopped_process_has_lost_its_lease_when_it_wakes(store: ObjectStore) -> None:
    # No thread may run before `check`: what it compares is the time itself.
    lease = acquire(store, "shop", times=LeaseTimes(renew_s=3600, hold_s=0.000001, lapse_s=9))
    with pytest.raises(StoppedError, match="could not be renewed"):
        lease.check()


def test_deleted_lease_is_lost(store: ObjectStore) -> None:
    lease = acquire(store, "shop", times=PATIENT)
    store.delete(lease_name("shop"))
    assert "was deleted" in lost(lease)


def test_lost_responses_do_not_lose_the_lease(proxied: ObjectStore, behavior: Behavior) -> None:
    behavior.lose_responses = 1
    with acquire(proxied, "shop", times=PATIENT) as lease:
        assert lease.epoch == 1
        wait_for_renewals(proxied, 2)
        behavior.lose_responses = 2
        wait_for_renewals(proxied, int(str(content(proxied)["renewals"])) + 3)
        assert behavior.lose_responses <= 0
        assert lease.is_held


def test_one_of_many_acquires_a_free_lease(store: ObjectStore) -> None:
    with acquire(store, "shop", machine("z")):
        pass
    results: list[Lease | BatchLockedError] = []
    start = threading.Barrier(8)

    def work(name: str) -> None:
        start.wait()
        try:
            results.append(acquire(store, "shop", machine(name), times=PATIENT))
        except BatchLockedError as exc:
            results.append(exc)

    threads = [threading.Thread(target=work, args=[f"m{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [one for one in results if isinstance(one, Lease)]
    assert len(held) == 1
    assert len(results) == 8
    assert held[0].epoch == 2
    held[0].release()


def test_foreign_object_is_refused(store: ObjectStore) -> None:
    store.put(lease_name("shop"), b"[1]")
    with pytest.raises(SettingsError, match="not a lease of batchgen"):
        acquire(store, "shop")
    assert store.read(lease_name("shop")) == b"[1]"


def test_bucket_that_is_missing_is_a_settings_error(s3: S3Server) -> None:
    store = ObjectStore(f"s3://missing-{os.getpid()}/x", s3.options)
    with pytest.raises(SettingsError, match="cannot be acquired: not found"):
        acquire(store, "shop")
