"""The time after which a run starts no request, as tables; and a run with such a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.session.overrides import deadline_of
from tests.support import rig

NOW = datetime(2026, 11, 23, 2, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("06:00", datetime(2026, 11, 23, 6, 0, tzinfo=UTC)),
        (" 6:00 ", datetime(2026, 11, 23, 6, 0, tzinfo=UTC)),
        ("02:00", datetime(2026, 11, 24, 2, 0, tzinfo=UTC)),
        ("02:01", datetime(2026, 11, 23, 2, 1, tzinfo=UTC)),
        ("2026-11-25", datetime(2026, 11, 25, tzinfo=UTC)),
        ("2026-11-23T04:30", datetime(2026, 11, 23, 4, 30, tzinfo=UTC)),
        ("2026-11-23T04:30+01:00", datetime(2026, 11, 23, 3, 30, tzinfo=UTC)),
    ],
)
def test_a_deadline_is_the_next_such_time(text: str, moment: datetime) -> None:
    assert deadline_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "six", "24:00", "06:60", "2026-13-01", "2026-11-23T01:00"])
def test_invalid_or_past_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a valid time|time is in the past"):
        deadline_of(text, NOW)


@given(hour=st.integers(0, 23), minute=st.integers(0, 59), now=st.datetimes(timezones=st.just(UTC)))
def test_a_time_of_day_is_at_most_a_day_away(hour: int, minute: int, now: datetime) -> None:
    if now.year > 9998:
        return
    ahead = deadline_of(f"{hour:02}:{minute:02}", now) - now
    assert timedelta(0) < ahead <= timedelta(days=1)


def test_until_starts_no_request_and_finishes_those_in_flight(
    tmp_path: Path,
) -> None:
    with rig.endpoint(tmp_path / "state", "--fast-images", "--latency", "1") as slow:
        path = rig.manifest(
            tmp_path, slow.base_url, [f"p{n}" for n in range(60)], limits="{concurrency: 2}"
        )
        until = (datetime.now(UTC) + timedelta(seconds=10)).isoformat()
        stopped = rig.batchgen("run", path, "--until", until, cwd=tmp_path, code=3)
        assert "until:" in stopped.stdout
        found = rig.status(tmp_path)
        assert found["jobs"]["pending"] > 20
        assert found["jobs"]["uncertain"] == found["jobs"]["sending"] == 0
        rig.judge(tmp_path, slow.bill(), finished=False)
    refused = rig.batchgen("run", path, "--until", "soon", cwd=tmp_path, code=2)
    assert "--until: not a valid time: 'soon'; expected a time like 06:00" in refused.stderr
