"""``--help`` without the Python types and braces that typer puts into it."""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

_PLACEHOLDERS = {bool: "", int: "N", float: "N", str: "TEXT"}  # a flag takes nothing


class _Plain:
    """Of a command or group: ``RUN.yaml`` for ``{RUN.yaml}``, ``PATH`` for ``<path>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters; ``--help`` itself comes into being here."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            _name_plainly(param)
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        plain = (re.sub(r"^[{](.+?)[}]", r"\1", piece) for piece in pieces)
        return [piece.replace("......", "...") for piece in plain]  # of `IMAGE...`, many


class PlainCommand(_Plain, TyperCommand):
    """A command with a plain help."""


class PlainGroup(_Plain, TyperGroup):
    """A group of commands with a plain help."""


def _name_plainly(param: Any) -> None:
    """Say in a word what an option takes; of an argument its name says it."""
    if not isinstance(param, TyperOption):
        param.display_type_rich = _nothing
    elif param.metavar is None:
        kind = param.type_descriptor
        param.metavar = "PATH" if kind.is_path else _PLACEHOLDERS.get(kind.annotation)


def _nothing(ctx: Any) -> None:
    return None
