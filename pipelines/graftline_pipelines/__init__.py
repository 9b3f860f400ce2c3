"""The pipelines, the run file and the command `graftline`."""

import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any


def _postpone_grammar() -> None:
    """Let ``rfc3987_syntax`` build its grammar when it is first used.

    It builds one at import, for 2 to 6 seconds, and every import of ``kfp`` imports it: the
    Kubernetes client needs jsonschema, which takes the one function below for a check of IRIs
    that nothing here makes.
    """
    name = "rfc3987_syntax"
    if name in sys.modules or PathFinder.find_spec(name) is None:
        return
    stand_in = ModuleType(name)

    def is_valid_syntax(*arguments: Any) -> bool:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        import rfc3987_syntax  # type: ignore[import-untyped]  # ships no types

        return bool(rfc3987_syntax.is_valid_syntax(*arguments))

    stand_in.is_valid_syntax = is_valid_syntax  # type: ignore[attr-defined]
    sys.modules[name] = stand_in


_postpone_grammar()
