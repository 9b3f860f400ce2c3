"""What the sections of the run file have in common. Each section is declared where it is used."""

import ast
import difflib
import inspect
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, LiteralString, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from graftline.addresses import is_metadata_address
from graftline.errors import ConfigurationError

Fraction = Annotated[float, Field(ge=0, le=1)]
_SECRET_IN_QUERY = re.compile(
    r"[?&;](ssl)?(password|passwd|pwd|token|access_token|secret|api_?key|sig|"
    r"X-Amz-(Signature|Security-Token))=",
    re.I,
)


PositiveInt = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the run file: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_yes_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes` and `on` as true, and pydantic true as the number 1."""
        if isinstance(value, bool):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            if bool not in kinds and kinds & {int, float}:
                kind: LiteralString = "float_type" if float in kinds else "int_type"
                raise PydanticCustomError(kind, "Input should be a number")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that a value may have, of `int | None` and the like."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation}


def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """What the text below each key of a section says, by key.

    Pydantic's `use_attribute_docstrings` reads the same when a section is declared, and looks
    through all imported modules for it: half of the time in which a run file was read.
    """
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        try:
            declared = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        except OSError:  # installed without its sources: errors are shorter then
            continue
        assert isinstance(declared, ast.ClassDef)
        for key, below in itertools.pairwise(declared.body):
            if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name):
                text = below.value if isinstance(below, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[key.target.id] = inspect.cleandoc(text.value)
    return found


def without_credentials(uri: str) -> str:
    """Refuse a URI with a user or password in it: run files and pipelines are not secret.

    Also one that leads to a cloud's metadata service.
    """
    scheme, separator, rest = uri.partition("://")
    authority = rest.partition("/")[0]
    if separator and ("@" in authority or _SECRET_IN_QUERY.search(rest)):
        raise ValueError(
            f"the {scheme}:// address holds a user or password, or a token, which would be "
            "readable in the compiled pipeline; take it out and set the AWS_* or "
            "MLFLOW_TRACKING_* variables"
        )
    if is_metadata_address(uri):
        raise ValueError(
            "the address is that of a cloud's metadata service, which hands out keys of the "
            "machine; name the server that is meant"
        )
    return uri


T = TypeVar("T", bound=Section)


def read_section(kind: type[T], name: str, values: Mapping[str, Any] | None) -> T:
    """A section out of plain values, as a step gets them from a pipeline.

    Args:
        kind: The section.
        name: What the run file calls it, for errors; empty for its root.
        values: By key; what is absent has its default.

    Raises:
        ConfigurationError: Keys are unknown or values out of range; all of them are named.
    """
    try:
        return kind.model_validate(dict(values or {}))
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            key = ".".join(str(part) for part in (name, *detail["loc"]) if part != "")
            if detail["type"] == "extra_forbidden":
                *outer, last = (str(part) for part in detail["loc"])
                near = difflib.get_close_matches(last, _keys(kind, outer), 1)
                path = ".".join(part for part in (name, *outer, *near) if part)
                hint = f"Did you mean {path}?" if near else "Remove it."
                problems.append(f"{key} is not a setting. {hint}")
            elif detail["type"] == "missing":
                problems.append(f"{key} is missing.")
            else:
                problems.append(f"{key} is {str(detail['input'])[:60]!s}: {detail['msg']}.")
        raise ConfigurationError(
            "\n".join(problems), fix="docs/run-file.md lists what each key takes."
        ) from None


def _keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the section at a path below another; none where no section is there."""
    for key in path:
        field = kind.model_fields.get(key)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)
