"""Tests of tables that are written and read a part at a time."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.data.tables import (
    GROUP,
    ROWS_AT_A_TIME,
    parquet_bytes,
    parquet_rows,
    read_parquet,
    table_of,
    write_parquet,
)

SCHEMA = pa.schema([("name", pa.string()), ("number", pa.int64())])


def rows(count: int) -> list[dict[str, object]]:
    return [{"name": None if i % 7 == 0 else f"n{i}", "number": i} for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_A_TIME, ROWS_AT_A_TIME + 1, GROUP, GROUP + 1])
def test_a_table_in_parts_is_the_table_of_all_rows(tmp_path: Path, count: int) -> None:
    whole = pa.Table.from_pylist(rows(count), schema=SCHEMA)
    assert table_of(iter(rows(count)), SCHEMA).equals(whole)
    path = tmp_path / "table.parquet"
    write_parquet(path, iter(rows(count)), SCHEMA)
    assert read_parquet(path).equals(whole)
    assert read_parquet(parquet_bytes(whole, GROUP)).equals(whole)
    assert list(parquet_rows(path)) == rows(count)
    assert pq.ParquetFile(path).num_row_groups == max(1, -(-count // GROUP))


def test_a_damaged_file_raises_while_its_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(path, rows(5000), SCHEMA)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="the table"):
        list(parquet_rows(path))
