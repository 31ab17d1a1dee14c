"""The files that `offramp classify -o` writes: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from offramp.extras import needs_extra
from serving.bulk.errors import BulkError
from serving.bulk.rows import COLUMNS, columns_of

# Rows of a row group, which is in memory at once.
PARQUET_GROUP_ROWS = 65_536
WriteTable = Callable[[Path, Iterable[bytes]], None]


def table_writer(output: Path) -> WriteTable:
    """The function that writes lines of `json_line` in the format that the name of `output` asks for.

    Raises BulkError for another name, MissingExtraError for Parquet without pyarrow.
    """
    writers = {".jsonl": _write_json_lines, ".csv": _write_csv, ".parquet": _write_parquet}
    writer = writers.get(output.suffix.lower())
    if writer is None:
        raise BulkError(f"The output's name must end in .csv, .jsonl or .parquet: {output}.")
    if writer is _write_parquet:
        _pyarrow()
    return writer


def _write_json_lines(path: Path, lines: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(lines)


def _write_csv(path: Path, lines: Iterable[bytes]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(columns_of(line) for line in lines)


def _write_parquet(path: Path, lines: Iterable[bytes]) -> None:
    pa, parquet = _pyarrow()
    kinds = {"index": pa.int32(), "exit": pa.int32()}
    kinds |= {"confidence": pa.float64(), "measured": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    rows = map(columns_of, lines)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, PARQUET_GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _pyarrow() -> tuple[Any, Any]:
    with needs_extra("parquet", "pyarrow"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet
