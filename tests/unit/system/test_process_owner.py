"""Rules that decide whether the owner of a run is dead, with invented processes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.system.process_owner import (
    SILENT_S,
    BatchOwner,
    Here,
    Life,
    Owner,
    life_of,
    shown_command,
)
from batchgen.system.process_table import command_of, started_of, this_process

NOW = datetime(2026, 11, 28, 20, 15, tzinfo=UTC)
OWNER = Owner(
    host="shop1",
    boot="boot-1",
    namespace="pid:[1]",
    pid=9874,
    started="500",
    user="root",
    command="batchgen run catalog.yaml",
    lock="8:1",
)
ELSEWHERE = replace(OWNER, pid=1, started="900", lock="8:2")
"""This process, on the same system as the owner, with its own lock file."""


def life(
    owner: Owner = OWNER,
    *,
    me: Owner = ELSEWHERE,
    started: str | None = "500",
    silent_s: float = 0,
    up_since: datetime | None = None,
) -> Life:
    here = Here(me=me, started_of=lambda pid: started, up_since=up_since)
    return life_of(owner, NOW - timedelta(seconds=silent_s), here=here, now=NOW)


@pytest.mark.fault("XA12")
def test_free_lock_on_the_same_system_proves_death() -> None:
    assert life(me=replace(ELSEWHERE, lock="8:1")) is Life.DEAD
    in_container = replace(ELSEWHERE, lock="8:1", namespace="pid:[2]", host="c0ffee")
    assert life(me=in_container) is Life.DEAD


@pytest.mark.fault("XA12")
@pytest.mark.parametrize(
    ("started", "expected"),
    [("500", Life.ALIVE), ("", Life.ALIVE), ("501", Life.DEAD), (None, Life.DEAD)],
)
def test_pid_is_compared_with_its_start_time(started: str | None, expected: Life) -> None:
    assert life(started=started) is expected


@pytest.mark.fault("XA12")
@given(
    heartbeat=st.datetimes(timezones=st.just(UTC)),
    now=st.datetimes(timezones=st.just(UTC)),
    up_since=st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_clock_change_does_not_fake_a_death(
    heartbeat: datetime, now: datetime, up_since: datetime | None
) -> None:
    here = Here(me=ELSEWHERE, started_of=lambda pid: "500", up_since=up_since)
    assert life_of(OWNER, heartbeat, here=here, now=now) is Life.ALIVE


@pytest.mark.fault("XA12")
@pytest.mark.parametrize("silent_s", [-86_400, 0, SILENT_S])
def test_other_container_is_unknown_until_timeout(silent_s: float) -> None:
    container = replace(ELSEWHERE, namespace="pid:[2]", host="c0ffee")
    assert life(me=container, started=None, silent_s=silent_s) is Life.UNKNOWN
    assert life(me=container, started="500", silent_s=SILENT_S + 1) is Life.DEAD


@pytest.mark.fault("XA12")
def test_other_host_is_unknown_until_timeout() -> None:
    other = replace(ELSEWHERE, host="shop2", boot="boot-2", lock="8:1")
    assert life(me=other, started=None) is Life.UNKNOWN
    assert life(me=other, started=None, silent_s=SILENT_S + 1) is Life.DEAD


@pytest.mark.fault("XA12")
def test_reboot_since_the_heartbeat_proves_death() -> None:
    rebooted = replace(ELSEWHERE, boot="boot-2")
    assert life(me=rebooted, silent_s=60, up_since=NOW - timedelta(seconds=30)) is Life.DEAD
    # A heartbeat after this boot comes from a namesake.
    assert life(me=rebooted, silent_s=60, up_since=NOW - timedelta(hours=1)) is Life.UNKNOWN
    assert life(me=rebooted, silent_s=60) is Life.UNKNOWN


def test_long_deadline_extends_the_timeout() -> None:
    slow = replace(OWNER, silent_s=3600)
    other = replace(ELSEWHERE, host="shop2", boot="boot-2")
    assert life(slow, me=other, silent_s=SILENT_S + 1) is Life.UNKNOWN


def test_owner_round_trips_through_json() -> None:
    assert Owner.from_json(OWNER.as_json()) == OWNER
    newer = OWNER.as_json().replace('"pid"', '"queue": 1, "pid"')
    assert Owner.from_json(newer) == OWNER


@pytest.mark.fault("XD3")
def test_refusal_names_the_owner() -> None:
    seen = BatchOwner(batch="catalog", owner=OWNER, life=Life.ALIVE, since=NOW, heartbeat=NOW)
    assert seen.refusal(NOW) == (
        "catalog is being run by pid 9874 of root on shop1 since 20:15 (batchgen run catalog.yaml);"
        " nothing was changed. Look: batchgen status catalog"
    )
    unseen = replace(seen, life=Life.UNKNOWN).refusal(NOW + timedelta(days=1))
    assert "since 2026-11-28 20:15" in unseen
    assert "last heartbeat at 2026-11-28 20:15" in unseen
    assert unseen.endswith("batchgen resume catalog --take-over")
    assert replace(seen, heartbeat=None).refusal(NOW).startswith("catalog is in use by pid 9874")
    assert replace(seen, batch="two words").refusal(NOW).endswith("batchgen status 'two words'")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["python", "/venv/bin/batchgen", "run", "a.yaml"], "batchgen run a.yaml"),
        (["python", "/lib/batchgen/__main__.py", "resume", "a"], "batchgen resume a"),
        (["python", "-m", "batchgen", "run", "a.yaml"], "batchgen run a.yaml"),
        (["/usr/bin/python3", "/srv/shop.py", "--token", "secret"], "python3 shop.py"),
        (["python3", "-c", "token = 'secret'"], "python3"),
        ([], ""),
    ],
)
def test_unrelated_command_shows_no_arguments(arguments: list[str], shown: str) -> None:
    assert shown_command(arguments) == shown


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_process_is_alive() -> None:
    here = this_process("8:1")
    assert here.me.pid == os.getpid()
    assert here.me.started == started_of(os.getpid()) != ""
    assert here.me.boot
    assert here.me.namespace
    assert started_of(2**22 + 1) is None
    assert "pytest" in command_of(os.getpid()) or "python" in command_of(os.getpid())
    me_elsewhere = replace(here, me=replace(here.me, lock="8:2"))
    assert life_of(here.me, NOW, here=me_elsewhere, now=NOW) is Life.ALIVE
