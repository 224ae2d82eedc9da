"""Format costs as a table for a terminal, 80 characters wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from batchgen.money import dollars, rounded_dollars
from batchgen.text import counted

if TYPE_CHECKING:
    from batchgen.ledger.budgets import MonthForecast
    from batchgen.ledger.costs import Costs, CostSum

WIDTH: Final = 80
_LEAST_NAME_CHARS: Final = 8
_COLUMNS: Final = ("made", "attempts", "estimated", "charged", "possible", "each")
_NO_VALUE: Final = "(none)"


def cost_text(costs: Costs) -> str:
    """Return one line per group and the total. Long names are cut, amounts never."""
    if not costs.total.attempts:
        return "no request was sent, nothing was paid"
    names = [
        ", ".join(_NO_VALUE if value is None else str(value) for value in row.group)
        for row in costs.rows
    ]
    names = [", ".join(costs.by), *names, "total"]
    cells = [_COLUMNS, *(_cells(row.sums) for row in costs.rows), _cells(costs.total)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = max(_LEAST_NAME_CHARS, WIDTH - sum(widths) - 2 * len(widths))
    room = min(room, max(map(len, names)))
    lines = [
        _line(_cut(name, room), row, widths, room) for name, row in zip(names, cells, strict=True)
    ]
    return "\n".join([*lines, *_notes(costs.total)])


def _cells(sums: CostSum) -> Sequence[str]:
    each = sums.per_accepted
    return (
        f"{sums.made:,}",
        f"{sums.attempts:,}",
        *(
            known_dollars(amount, unpriced=sums.unpriced)
            for amount in (sums.estimated, sums.charged, sums.maybe)
        ),
        "-" if each is None else dollars(each),
    )


def _line(name: str, cells: Sequence[str], widths: Sequence[int], room: int) -> str:
    numbers = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:<{room}}{numbers}"


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def _notes(total: CostSum) -> list[str]:
    notes = [unpriced_text(total.unpriced)] if total.unpriced else []
    if replaced := total.made - total.accepted:
        notes.append(
            f"{counted(replaced, 'image')} replaced since; `each` is the cost per image kept"
        )
    return notes


def forecast_text(forecast: MonthForecast) -> str:
    """Return what the month has cost so far, and what it will cost at this pace."""
    text = (
        f"{forecast.month}: {rounded_dollars(forecast.spent)} so far (possible costs included),"
        f" {rounded_dollars(forecast.projected)} by the end of the month at this pace"
    )
    if forecast.budget is None:
        return text
    budget = rounded_dollars(forecast.budget)
    over = forecast.projected - forecast.budget
    if over > 0:
        return f"{text}; {rounded_dollars(over)} over the budget of {budget}"
    return f"{text}, within the budget of {budget}"


def unpriced_text(requests: int) -> str:
    """Return a note about requests that no sum includes because their price is unknown."""
    return f"price unknown for {counted(requests, 'request')}, which no sum includes"


def known_dollars(amount: int, *, unpriced: int) -> str:
    """Return a sum, or ``unknown`` if it is zero and ``unpriced`` requests are not in it."""
    return "unknown" if unpriced and not amount else rounded_dollars(amount)
