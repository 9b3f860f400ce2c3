"""Text that Kubeflow Pipelines and Argo would replace: ``{{`` in a value of the run file.

Argo replaces ``{{...}}`` in every text of a workflow and fails on what it does not know, long after
the submission. KFP has no way to escape it, so such values are refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any

KeyPath = tuple[str | int, ...]

OPENING = "{{"
WHAT = "holds '{{', which Kubeflow Pipelines and Argo read as the start of a placeholder."
FIX = "Rename it: there is no way to escape it."


def placeholders(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Where ``{{`` is in nested values, keys included.

    Args:
        value: Mappings, lists and plain values.
        path: Where the value stands.
    """
    if isinstance(value, str):
        if OPENING in value:
            yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and OPENING in key:
                yield (*path, key)
            else:
                yield from placeholders(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from placeholders(inner, (*path, index))


def shown(path: KeyPath) -> str:
    """A key as users write it."""
    return ".".join(str(part) for part in path)
