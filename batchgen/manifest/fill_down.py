"""Fills empty cells of a table from the row above, within the rows of one product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from batchgen.manifest.model import FileRows, SqliteRows
from batchgen.manifest.table import Row, Rows, RowsFault, normal_name

GROUP_COLUMNS: Final = ("handle", "url_handle", "product_id", "item_group_id", "parent", "id")
"""Columns that are equal in all rows of a product, as Shopify, Google and WooCommerce call them."""


def is_empty(value: object) -> bool:
    """Return whether a cell holds nothing that would be printed; a number or false is printed."""
    if isinstance(value, str):
        return not value or value.isspace()
    return not value and not isinstance(value, int | float)


def fill_rows(rows: Iterable[Row], source: FileRows | SqliteRows) -> Rows:
    """Yield the rows, with empty cells of the ``fill`` columns taken from the row above.

    Only from rows of the same product, which have the same value in the ``fill_by`` column. An
    empty ``fill_by`` cell belongs to the product above only if that column is filled itself.
    Raises RowsFault if no column identifies the products.
    """
    names = [normal_name(name) for name in source.fill or ()]
    by = normal_name(source.fill_by) if source.fill_by else None
    above: dict[str, object] = {}
    product: object = None
    for row in rows:
        values = row.values
        if by is None:
            by = _group_column(values, source)
        own = values.get(by)
        if is_empty(own) and by not in names:
            above, product = {}, None
        elif not is_empty(own) and own != product:
            above, product = {}, own
        missing: dict[str, object] = {}
        for name in names:
            if not is_empty(value := values.get(name)):
                above[name] = value
            elif name in above:
                missing[name] = above[name]
        yield _with(row, missing) if missing else row


def _group_column(values: Mapping[str, object], source: FileRows | SqliteRows) -> str:
    for name in GROUP_COLUMNS:
        if name in values:
            return name
    raise RowsFault(
        "no column says which rows are one product; name the one that is equal in all of them:"
        " fill_by: COLUMN",
        file=source.file if isinstance(source, FileRows) else source.sqlite,
        key="fill",
    )


def _with(row: Row, missing: Mapping[str, object]) -> Row:
    """Return the row with other values, under their normal names and those of the table."""
    cells = list(row.cells)
    at = {normal_name(name): number for number, name in enumerate(row.names)}
    more = dict[str, object]()
    for name, value in missing.items():
        if name in at:
            cells[at[name]] = value
        else:
            more[name] = value
    columns = row.columns.with_more(list(more)) if more else row.columns
    return row._replace(columns=columns, cells=[*cells, *more.values()])
