"""The parquet tables of a dataset (extra ``dataset``: pyarrow)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from batchgen.dataset.layout import record
from batchgen.ledger.dataset_samples import Sample


def table_bytes(column: str, samples: Sequence[tuple[str, Sample]]) -> bytes:
    """Return a parquet file with one row for each sample.

    ``column`` is the name of the first column, which takes the text next to the sample. Equal
    samples have equal bytes, as long as pyarrow is the same version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            (column, pa.string()),
            ("key", pa.string()),
            ("prompt", pa.string()),
            ("model", pa.string()),
            ("provider", pa.string()),
            ("options", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("format", pa.string()),
            ("bytes", pa.int64()),
            ("sha256", pa.string()),
            ("cost", pa.decimal128(18, 6)),
            ("request_id", pa.string()),
            ("made_at", pa.string()),
        ]
    )
    rows = [{column: place, **_row(sample)} for place, sample in samples]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue())


def _row(sample: Sample) -> dict[str, Any]:
    values: dict[str, Any] = record(sample)
    values["cost"] = Decimal(values["cost"])
    return values
