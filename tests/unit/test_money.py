"""Amounts: read from text, kept as whole micros, written for programs and for people."""

from __future__ import annotations

import ast
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.money import compared_dollars, decimal_string, dollars, parse_dollars
from tests.support.source import modules

LARGEST = 999_999_999_999_999


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("12.50", 12_500_000),
        (" $12.50 ", 12_500_000),
        ("$ 5", 5_000_000),
        (25, 25_000_000),
        (Decimal("0.0377"), 37_700),
        ("0.0377", 37_700),
        ("1e-6", 1),
        ("1E2", 100_000_000),
        ("0.0000004", 0),
        ("0.0000005", 1),
        ("0.0000015", 2),
        ("-0", 0),
        ("1e-999999", 0),
        ("999999999.999999", LARGEST),
    ],
)
def test_an_amount_in_dollars_is_whole_micros_rounded_half_up(
    text: str | int | Decimal, micros: int
) -> None:
    assert parse_dollars(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "$$5",
        "five",
        "5 dollars",
        "1,000",
        "1.2.3",
        "-1",
        "-0.000001",
        "nan",
        "sNaN",
        "inf",
        "-inf",
        "1000000000",
        "1e999999999999",
        "9" * 5000,
        True,
    ],
)
def test_invalid_amount_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"is not an amount in dollars.* like 12\.50"):
        parse_dollars(text)


@given(st.text() | st.floats().map(str) | st.decimals().map(str))
def test_any_text_is_an_amount_within_bounds_or_refused(text: str) -> None:
    try:
        micros = parse_dollars(text)
    except ValueError:
        return
    assert 0 <= micros <= LARGEST + 1


@pytest.mark.parametrize(
    ("micros", "for_programs", "for_people"),
    [
        (0, "0.000000", "$0.00"),
        (1, "0.000001", "$0.000001"),
        (37_700, "0.037700", "$0.0377"),
        (100_000, "0.100000", "$0.10"),
        (1_500_000, "1.500000", "$1.50"),
        (12_345_678_900_000, "12345678.900000", "$12,345,678.90"),
        (-37_700, "-0.037700", "-$0.0377"),
        (-1_000_000, "-1.000000", "-$1.00"),
    ],
)
def test_an_amount_is_written_for_programs_and_for_people(
    micros: int, for_programs: str, for_people: str
) -> None:
    assert decimal_string(micros) == for_programs
    assert dollars(micros) == for_people


@given(st.integers(0, LARGEST))
def test_no_amount_is_lost_between_writing_and_reading(micros: int) -> None:
    assert parse_dollars(decimal_string(micros)) == micros
    assert parse_dollars(dollars(micros).replace(",", "")) == micros


MONEY_CODE = (
    "commands.cost",
    "commands.plan",
    "commands.prices",
    "commands.reconcile",
    "commands.retry",
    "engine.events",
    "ledger.attempt_ends",
    "ledger.attempts",
    "ledger.batch_identity",
    "ledger.batch_status",
    "ledger.budgets",
    "ledger.changes",
    "ledger.compared",
    "ledger.copies",
    "ledger.costs",
    "ledger.dashboard",
    "ledger.database",
    "ledger.dataset_samples",
    "ledger.explain",
    "ledger.exports",
    "ledger.gallery",
    "ledger.group_commit",
    "ledger.groups",
    "ledger.guard",
    "ledger.history",
    "ledger.images",
    "ledger.jobs",
    "ledger.ledger",
    "ledger.lost_attempts",
    "ledger.newest_decisions",
    "ledger.notices",
    "ledger.open_work",
    "ledger.paid_images",
    "ledger.paid_responses",
    "ledger.price_lists",
    "ledger.late_responses",
    "ledger.reconciliation",
    "ledger.records",
    "ledger.reservations",
    "ledger.retry_selection",
    "ledger.review",
    "ledger.review_summary",
    "ledger.run_list",
    "ledger.run_report",
    "ledger.run_sums",
    "ledger.runs",
    "ledger.saved_places",
    "ledger.schema",
    "ledger.sharing",
    "ledger.staged_jobs",
    "ledger.staging",
    "ledger.staging_rows",
    "ledger.sums",
    "ledger.transaction",
    "ledger.uncertain",
    "ledger.value_rows",
    "ledger.writer",
    "money",
    "outcomes.retry_policy",
    "planning.cost_estimate",
    "providers.crazyrouter",
    "providers.local",
    "providers.openai",
    "providers.price_list",
    "providers.profile",
    "providers.token_prices",
    "providers.usage_log",
    "reconciliation.amounts",
    "reconciliation.matching",
    "report.costs",
    "report.reconcile",
    "report.plan_text",
    "report.status",
    "session.fresh_prices",
    "session.prepare",
    "simulator.billing",
)
"""Where amounts are read, summed, kept or shown. Not ``endpoint.catalogue``: the provider's own
documents have floats in them, and it plays them."""
TIMES = ("_s", "_S", "seconds", "time", "minute", "rate")
"""Endings of names that hold seconds or rates, which may be floats."""


def bound_names(node: ast.AST) -> list[str]:
    """The names that a node gives a value, or a type, to what is below it."""
    match node:
        case ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.FunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [ast.unparse(target) for target in targets]
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return [ast.unparse(target)]
    return []


def floats(node: ast.AST) -> list[int]:
    """Lines with a float literal, the word ``float`` or a true division, but for seconds.

    A path's division is known by the text on one of its sides.
    """
    if any(name.endswith(TIMES) for name in bound_names(node)):
        return []
    found = [line for child in ast.iter_child_nodes(node) for line in floats(child)]
    match node:
        case ast.Constant(value=float(), lineno=line) | ast.Name(id="float", lineno=line):
            return [*found, line]
        case ast.BinOp(op=ast.Div(), left=left, right=right, lineno=line):
            return found if is_text(left) or is_text(right) else [*found, line]
        case ast.AugAssign(op=ast.Div(), lineno=line):
            return [*found, line]
    return found


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_every_module_of_the_ledger_is_watched() -> None:
    without_money = {
        "ledger.__init__",
        "ledger.batches",
        "ledger.bucket_marker",
        "ledger.busy",
        "ledger.clock",
        "ledger.journal",
        "ledger.decisions",
        "ledger.review_schema",
        "ledger.run_pace",
        "ledger.samples",
        "ledger.manifest_paths",
        "ledger.relocations",
        "ledger.key_patterns",
        "ledger.owners",
        "ledger.path_owners",
        "ledger.reference_paths",
        "ledger.selection",
        "ledger.file_aliases",
        "ledger.saved_images",
        "ledger.shared_rate_limits",
        "ledger.made_images",
        "ledger.reference_urls",
        "ledger.unpublished",
    }
    ledger = {name for name in modules() if name.startswith("ledger.")}
    assert ledger - without_money <= set(MONEY_CODE)
    assert not without_money & set(MONEY_CODE)


@pytest.mark.parametrize("module", MONEY_CODE)
def test_no_float_comes_near_an_amount(module: str) -> None:
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    assert [f"{module}:{line}" for line in floats(tree)] == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("a = 0.5", [1]),
        ("a = b / 2", [1]),
        ("a /= 2", [1]),
        ("a = float(b)", [1]),
        ("def f(a: float) -> None: ...", [1]),
        ("a = b // 2", []),
        ("a = directory / 'name'", []),
        ("wait_s = 0.5 * a / 2", []),
        ("WAIT_S: float = 1.5", []),
        ("f(wait_s=0.5)", []),
        ("f(0.5)", [1]),
    ],
)
def test_float_is_distinguished_from_seconds_and_directories(code: str, lines: list[int]) -> None:
    assert floats(ast.parse(code)) == lines


@pytest.mark.parametrize(
    ("amounts", "texts"),
    [
        ((75_400, 4_600), ("$0.08", "$0.0046")),
        ((12_508_000, 3_000_000), ("$12.51", "$3.00")),
        ((1_508_000, 1_506_000), ("$1.508", "$1.506")),
        ((1_000_000, 1_000_000), ("$1.00", "$1.00")),
    ],
)
def test_compared_amounts_are_in_cents_that_differ(
    amounts: tuple[int, int], texts: tuple[str, str]
) -> None:
    assert compared_dollars(*amounts) == texts
