"""Ask SQLite for its query plans."""

from __future__ import annotations

from collections.abc import Callable

from batchgen.ledger.ledger import Ledger


def plans_of(ledger: Ledger, action: Callable[[], object]) -> list[str]:
    """How SQLite goes about each statement that the action runs."""
    statements: list[str] = []
    ledger.conn.set_trace_callback(statements.append)
    action()
    ledger.conn.set_trace_callback(None)
    verbs = ("WITH", "SELECT", "UPDATE", "INSERT", "DELETE")
    return [
        str(row["detail"])
        for statement in statements
        if statement.lstrip().startswith(verbs)
        for row in ledger.conn.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
