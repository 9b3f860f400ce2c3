"""What the sections of the run file have in common. Each section is declared where it is used."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


PositiveInt = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the run file: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def without_credentials(uri: str) -> str:
    """Refuse a URI with a user or password in it: run files and pipelines are not secret."""
    scheme, separator, rest = uri.partition("://")
    authority = rest.partition("/")[0]
    if separator and "@" in authority:
        raise ValueError(
            f"the {scheme}:// address holds a user or password, which would be readable in the "
            "compiled pipeline; take it out and set the AWS_* or MLFLOW_TRACKING_* variables"
        )
    return uri
