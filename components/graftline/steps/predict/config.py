"""What is predicted in batches, and where the answers go."""

from typing import Annotated

from pydantic import Field, field_validator

from graftline.settings import PositiveInt, Section, without_credentials


class PredictSettings(Section):
    """Batch prediction with a registered model: `graftline submit-predict`."""

    source: str | None = None
    """A folder, an `s3://bucket/prefix`, or a table with a column of images. `--param source=...`
    of a submission replaces it."""
    output: str | None = None
    """The table to write: a path or `s3://` URI that ends in `.csv` or `.parquet`."""
    version: Annotated[str, Field(pattern=r"^(champion|[1-9][0-9]*)$")] = "champion"
    """The registered version: `champion`, or a number."""
    image_column: str = "image"
    """Of a table: the column with the image's path, relative to the table, or its URI."""
    top: PositiveInt = 1
    """How many classes are named for each image."""
    probabilities: bool = False
    """A column for the probability of each class."""

    @field_validator("source", "output")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        return None if value is None else without_credentials(value)


class PredictConfig(Section):
    """All that the step takes besides its inputs and outputs."""

    image_column: str = "image"
    """As in the run file."""
    top: PositiveInt = 1
    """As in the run file."""
    probabilities: bool = False
    """As in the run file."""
