"""A process is busy while it uses most of one processor."""

from __future__ import annotations

import time

import pytest

from batchgen.system.load import Load


class Clocks:
    """The two clocks of `Load`, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = self.used_s = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(time, "process_time", lambda: self.used_s)

    def go(self, seconds: float, used_s: float) -> None:
        self.now_s += seconds
        self.used_s += used_s


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.mark.parametrize(
    ("used_s", "busy"), [(0.0, False), (0.08, False), (0.095, True), (0.15, True)]
)
def test_share_of_the_last_window_decides(used_s: float, busy: bool, clocks: Clocks) -> None:
    load = Load()
    clocks.go(0.1, used_s)
    assert load.is_busy() is busy


def test_a_window_counts_once_it_is_over(clocks: Clocks) -> None:
    load = Load()
    clocks.go(0.06, 0.06)
    assert not load.is_busy()
    clocks.go(0.06, 0.06)
    assert load.is_busy()
    clocks.go(0.06, 0.0)
    assert load.is_busy(), "an unfinished window says nothing yet"
    clocks.go(0.06, 0.0)
    assert not load.is_busy()
