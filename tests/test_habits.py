"""Hold the habits that keep the suite honest on a slow machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
STOPWATCHES = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"}
"""Timings are ratios in tests/bench; a pass or a failure must not depend on the machine."""
TEST_IMPORT = re.compile(
    r"^\s*(?:from|import) +tests\.(?:\w+\.)*test_\w+|; *from tests\S*\.test_", re.M
)
"""An import of a test module, also in the text of a script for a subprocess."""
SHARED_FIXTURES = {"served", "tuned", "clock", "conn", "ledger"}
"""Fixtures that only tests/support/fixtures.py defines."""


def timed_assertions(source: str) -> list[int]:
    """Return the lines of assertions that read a stopwatch."""
    return [
        statement.lineno
        for statement in ast.walk(ast.parse(source))
        if isinstance(statement, ast.Assert)
        and any(
            isinstance(node, ast.Attribute) and node.attr in STOPWATCHES
            for node in ast.walk(statement)
        )
    ]


def test_a_timed_assertion_is_found() -> None:
    assert timed_assertions("x = 1\nassert time.monotonic() - began < 1") == [2]


def test_no_test_asserts_how_long_something_takes() -> None:
    found = {
        str(path.relative_to(TESTS)): lines
        for path in TESTS.rglob("*.py")
        if "bench" not in path.parts and (lines := timed_assertions(path.read_text("utf-8")))
    }
    assert not found


def test_test_module_import_is_found() -> None:
    found = [
        "from tests.unit.test_x import y",
        "import tests.test_x",
        "a; from tests.test_x import y",
    ]
    assert all(map(TEST_IMPORT.search, found))
    assert not TEST_IMPORT.search("from tests.support import rig")


def test_test_modules_are_not_imported() -> None:
    """Shared helpers live in tests/support."""
    found = {
        str(path.relative_to(TESTS)): lines
        for path in TESTS.rglob("*.py")
        if path != Path(__file__) and (lines := TEST_IMPORT.findall(path.read_text("utf-8")))
    }
    assert not found


def fixtures(source: str) -> list[str]:
    """Return the names of the fixtures that the source defines."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]


def test_shared_fixtures_are_defined_once() -> None:
    found = [
        (name, str(path.relative_to(TESTS)))
        for path in TESTS.rglob("*.py")
        if any(f"def {name}(" in (text := path.read_text("utf-8")) for name in SHARED_FIXTURES)
        for name in fixtures(text)
        if name in SHARED_FIXTURES
    ]
    place = str(Path("support", "fixtures.py"))
    assert sorted(found) == [(name, place) for name in sorted(SHARED_FIXTURES)]
