"""Errors as a person reads them."""

import errno
import os

import pytest

from graftline.errors import DataError
from graftline.files import os_error


def test_paths_are_shown_as_they_are_typed() -> None:
    error = DataError(
        "The source file:///tmp/my%20pictures/%C3%BC is empty",
        why="'file:///a/b' has none, s3://bucket/a%20b neither",
        fix="Write it as file:///path.",
    )
    assert error.what == str(error).splitlines()[0] == "The source /tmp/my pictures/ü is empty"
    assert error.why == "'/a/b' has none, s3://bucket/a%20b neither"
    assert error.fix == "Write it as file:///path."


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_another_store_is_advised_where_a_store_was_written_alone(number: int) -> None:
    refused = OSError(number, os.strerror(number))
    store, table = (os_error(refused, name, "write") for name in ("file:///data/s", "answers.csv"))
    assert "another `store` in the run file" in str(store.fix)
    assert "another path" in str(table.fix) and "store" not in str(table.fix)
