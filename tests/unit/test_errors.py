"""Errors as a person reads them."""

from graftline.errors import DataError


def test_paths_are_shown_as_they_are_typed() -> None:
    error = DataError(
        "The source file:///tmp/my%20pictures/%C3%BC is empty",
        why="'file:///a/b' has none, s3://bucket/a%20b neither",
        fix="Write it as file:///path.",
    )
    assert error.what == str(error).splitlines()[0] == "The source /tmp/my pictures/ü is empty"
    assert error.why == "'/a/b' has none, s3://bucket/a%20b neither"
    assert error.fix == "Write it as file:///path."
