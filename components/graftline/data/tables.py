"""Parquet tables with checksums."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file with page checksums."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_parquet(source: Path | bytes) -> pa.Table:
    """Read a Parquet file, comparing its checksums; a damaged one raises ``ValueError``."""
    name = str(source) if isinstance(source, Path) else "the table"
    place = name if isinstance(source, Path) else pa.BufferReader(source)
    try:
        return pq.ParquetFile(place, page_checksum_verification=True).read()
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{name} is missing") from error
        raise ValueError(f"{name}: {error}") from error
