"""Read the rows of a parquet file (extra ``dataset``: pyarrow)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from batchgen.manifest.table import ColumnNames, Reading, Rows, RowsFault

_BATCH_ROWS: Final = 1_000


def parquet_rows(path: Path, reading: Reading) -> Rows:
    """Yield the rows of a parquet file, a thousand in memory at a time.

    Dates, times and decimals become text, NaN becomes null. Columns with binary values, such as
    embedded images, are not read. Raises RowsFault.
    """
    label = reading.table
    reading.layout = "parquet"
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise RowsFault(
            f"{label}: needs pyarrow, which is not installed; expected batchgen[dataset]",
            file=label,
            key="file",
        ) from None
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [
                field.name for field in file.schema_arrow if not _has_binary(field.type, pa.types)
            ]
            names = reading.columns = ColumnNames(columns)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for cells in _cells(batch, columns):
                    number += 1
                    yield names.row(number, 0, f"{label} row {number}", cells)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise RowsFault(f"cannot be read: {error}", file=label, key="file") from None


def _cells(batch: Any, columns: list[str]) -> Iterator[tuple[object, ...]]:
    values = [map(_plain, batch.column(name).to_pylist()) for name in columns]
    return zip(*values, strict=True) if values else iter(() for _ in range(batch.num_rows))


def _plain(value: object) -> object:
    """Return a value as JSON could hold it."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _has_binary(kind: Any, types: Any) -> bool:
    """Return whether values of an Arrow type are, or contain, bytes."""
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return any(_has_binary(kind.field(at).type, types) for at in range(kind.num_fields))
