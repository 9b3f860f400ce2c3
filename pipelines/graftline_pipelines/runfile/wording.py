"""What a value of a run file should have been, in words: pydantic's are for programmers."""

import difflib
import re
from typing import Any

from pydantic_core import ErrorDetails

NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_PATTERNS = {
    NAME: "lower-case letters, digits and '-', at most 63, with a letter or digit at both ends",
    r"^(champion|[1-9][0-9]*)$": "champion, or a version's number",
    r"^https?://[^\s{}]+$": "an address that begins with http:// or https://",
}
_KINDS = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list, such as [a, b]",
    "tuple": "a list, such as [a, b]",
    "dict": "keys with values, indented below it",
    "model": "keys with values, indented below it",
}
_LIMITS = {
    "greater_than_equal": ("ge", "greater than or equal to"),
    "greater_than": ("gt", "greater than"),
    "less_than_equal": ("le", "less than or equal to"),
    "less_than": ("lt", "less than"),
}


def what_is_wrong(detail: ErrorDetails) -> str:
    """A sentence that names the value and what it should have been."""
    value, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    shown = _shown(value)
    if kind == "value_error":
        return f"{context['error']}."
    if kind in _LIMITS:
        bound, words = _LIMITS[kind]
        return f"{shown} does not fit: it has to be {words} {context[bound]:g}."
    if kind == "literal_error":
        return f"{shown} does not fit: it has to be {context['expected']}.{_meant(value, context)}"
    wanted = _KINDS.get(kind.partition("_")[0])
    if kind == "string_pattern_mismatch":
        wanted = _PATTERNS.get(context["pattern"])
        suggested = _as_name(value) if context["pattern"] == NAME else ""
        if wanted is not None:
            return f"{shown} does not fit: it has to be {wanted}.{suggested}"
    elif wanted is not None and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"{shown} does not fit: it has to be {wanted}.{_hint(kind, value)}"
    message = detail["msg"]
    return f"{shown} does not fit: {message[0].lower()}{message[1:]}."


def _shown(value: Any) -> str:
    """As YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _meant(value: Any, context: dict[str, Any]) -> str:
    known = re.findall(r"'([^']+)'", str(context["expected"]))
    near = difflib.get_close_matches(str(value).lower(), known, 1)
    return f" Did you mean {near[0]}?" if near else ""


def _as_name(value: Any) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-")[:63].strip("-")
    return f" For example {plain}." if plain else ""


def _hint(kind: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return f" Write it in quotes: '{value}'."
    percent = re.fullmatch(r"\s*([0-9.]+)\s*%\s*", value) if isinstance(value, str) else None
    if percent and kind.startswith("float"):
        return f" Write {float(percent[1]) / 100:g} for {percent[1]}%."
    return ""
