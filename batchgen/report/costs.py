"""Sums of money as a table that fits a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batchgen.ledger.costs import Costs, CostSum
from batchgen.money import dollars
from batchgen.text import counted

WIDTH: Final = 80
_LEAST_NAME_CHARS: Final = 8
_COLUMNS: Final = ("made", "attempts", "estimated", "charged", "possible", "each")
_NOBODY: Final = "(none)"


def cost_text(costs: Costs) -> str:
    """A line a group and a last one of the total; long names are cut, never an amount."""
    if not costs.total.attempts:
        return "no request was sent, nothing was paid"
    names = [
        ", ".join(_NOBODY if value is None else str(value) for value in row.group)
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
            "unknown" if sums.unpriced and not amount else dollars(amount)
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
            f"{replaced:,} of the images made are replaced; `each` is for one that is kept"
        )
    return notes


def unpriced_text(requests: int) -> str:
    """What is to say where money is not counted because nothing tells how much it is."""
    return f"price unknown for {counted(requests, 'request')}; they are in no sum"
