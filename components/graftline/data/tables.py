"""Parquet tables with checksums."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_AT_A_TIME = 8_192  # that are Python objects: a row as a dict takes ten times its bytes
GROUP = 4 * ROWS_AT_A_TIME  # rows of a chunk of a table, and of a row group of a long file


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table of rows, of which few at a time are in memory as objects."""
    groups = list(_groups(rows, schema))
    return pa.concat_tables(groups) if groups else schema.empty_table()


def _groups(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    left = iter(rows)
    batches: list[pa.RecordBatch] = []
    while part := list(islice(left, ROWS_AT_A_TIME)):
        batches.append(pa.RecordBatch.from_pylist(part, schema=schema))
        if len(batches) * ROWS_AT_A_TIME == GROUP:
            yield pa.Table.from_batches(batches, schema=schema).combine_chunks()
            batches = []
    if batches:
        yield pa.Table.from_batches(batches, schema=schema).combine_chunks()


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows as a Parquet file with page checksums, a row group in memory at a time."""
    options = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(path, schema, **options) as writer:
        empty = True
        for group in _groups(rows, schema):
            writer.write_table(group)
            empty = False
        if empty:
            writer.write_table(schema.empty_table())


def parquet_bytes(table: pa.Table, group: int | None = None) -> bytes:
    """The table as a Parquet file with page checksums; ``group`` rows are compressed at a time."""
    sink = pa.BufferOutputStream()
    options = {"compression": "zstd", "write_page_checksum": True}
    pq.write_table(table, sink, row_group_size=group, **options)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_table(path: Path, table: pa.Table, group: int) -> None:
    """Write a table as :func:`parquet_bytes` does, without a copy of the file in memory."""
    options = {"compression": "zstd", "write_page_checksum": True}
    pq.write_table(table, path, row_group_size=group, **options)


def read_parquet(source: Path | bytes) -> pa.Table:
    """Read a Parquet file, comparing its checksums; a damaged one raises ``ValueError``."""
    name = str(source) if isinstance(source, Path) else "the table"
    file = name if isinstance(source, Path) else pa.BufferReader(source)
    try:
        return pq.ParquetFile(file, page_checksum_verification=True).read()
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{name} is missing") from error
        raise ValueError(f"{name}: {error}") from error


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, read piece by piece; a damaged one raises ``ValueError``."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"the table: {error}") from error
