"""`batchgen export`: jobs, attempts or images of a batch as a stream of rows."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TextIO

from batchgen.errors import ExitCode, SettingsError
from batchgen.ledger.database import open_for_reading
from batchgen.ledger.queries import export as export_rows
from batchgen.ledger.queries import find_batch
from batchgen.settings import Environment


def export(
    name: str, db: Path | None, *, what: str, file_format: str, output: Path | None
) -> ExitCode:
    """Write the rows to ``output``, or to stdout."""
    ledger = Environment.load().ledger_path(db, None)
    with closing(open_for_reading(ledger)) as conn:
        batch = find_batch(conn, name)
        rows = export_rows(conn, batch.id, what)
        if output is None:
            _write(rows, file_format, sys.stdout)
            return ExitCode.DONE
        try:
            with output.open("x", encoding="utf-8", newline="") as stream:
                _write(rows, file_format, stream)
        except FileExistsError:
            raise SettingsError(f"{output}: exists already, and is not overwritten") from None
        except OSError as exc:
            raise SettingsError(f"{output}: can't be written: {exc}") from exc
    return ExitCode.DONE


def _write(rows: Iterator[dict[str, object]], file_format: str, stream: TextIO) -> None:
    if file_format == "jsonl":
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    first = next(rows, None)
    if first is None:
        return
    writer = csv.DictWriter(stream, fieldnames=list(first))
    writer.writeheader()
    writer.writerows(chain([first], rows))
