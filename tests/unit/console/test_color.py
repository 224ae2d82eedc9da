"""Colors: when they are written, and which parts of a text have one."""

from __future__ import annotations

import io
import sys

import pytest

from batchgen.console.color import highlighted, is_colored, shown


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_color_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "on_terminal", "in_file"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="colors need FORCE_COLOR there")
def test_color_follows_no_color_and_force_color(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], on_terminal: bool, in_file: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_colored(Terminal()) is on_terminal
    assert is_colored(io.StringIO()) is in_file
    assert is_colored(None) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b: 3 of 3 jobs done", "b: \x1b[32m3 of 3 jobs done\x1b[0m"),
        ("b: 1 of 3 jobs done", "b: \x1b[1m1 of 3 jobs done\x1b[0m"),
        ("          2  failed", "\x1b[31m          2  failed\x1b[0m"),
        ("          1  uncertain", "\x1b[33m          1  uncertain\x1b[0m"),
        ("          8  images on disk", "          8  images on disk"),
        ("  stopped: budget", "\x1b[31m  stopped: budget\x1b[0m"),
        (
            "charged $1.20, possible $0.04 for 1 more",
            "charged \x1b[1m$1.20\x1b[0m, \x1b[33mpossible $0.04\x1b[0m for 1 more",
        ),
        ("possible $0.00", "possible $0.00"),
        ("next: batchgen resume b   # why", "next: \x1b[1mbatchgen resume b\x1b[0m   # why"),
    ],
)
def test_highlighted_marks_failures_and_money(text: str, expected: str) -> None:
    assert highlighted(text) == expected


def test_text_for_a_file_has_no_escape_sequence() -> None:
    assert shown("          2  failed", io.StringIO()) == "          2  failed"
