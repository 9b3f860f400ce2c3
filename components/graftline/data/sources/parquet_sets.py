"""Parquet files in several folders: one data set in parts, or several (a Hub's configurations)."""

import re
from collections import defaultdict
from collections.abc import Sequence

from graftline.data.sources.label_text import clip
from graftline.data.sources.layouts.layout import exclude_line, some_names
from graftline.data.sources.split_names import split_words
from graftline.errors import DataError
from graftline.storage.uri import shown

_PART = re.compile(r"[^=]+=.*|\d+|(?:part|shard|chunk|batch)[ _.-]?\d+")  # year=2024, of Hive


def refuse_several_sets(uri: str, files: Sequence[str]) -> None:
    """Refuse folders side by side that each may hold a data set of its own.

    Folders that are called as splits, or number the parts of one set, are none.

    Raises:
        DataError: With what selects one of them, or all.
    """
    folders: dict[tuple[str, ...], str] = defaultdict(str)
    for file in files:
        parts = [part for part in file.split("/")[:-1] if split_words(part) is None]
        folders[tuple(part for part in parts if not _PART.fullmatch(part))] = file
    if len(folders) < 2:
        return
    names = sorted("/".join(parts) for parts in folders if parts)
    one = names[0]
    others = [name for name in names if name != one]
    out = f", leave the others out (`{exclude_line(others)}`)" * bool(others)
    raise DataError(
        f"{clip(uri, 300)} holds Parquet files in {len(folders)} folders that may be as many data "
        "sets",
        why=f"{some_names(names)}{' and the files beside them' * (() in folders)} are not called "
        "as splits; as one set, an image may be there several times, and labels may mean "
        "different things",
        fix=f"Let `data.source` be one of them (`{shown(uri)}/{one}`){out}, or take the files "
        "of all folders as one set: `data.format: table`.",
    )
