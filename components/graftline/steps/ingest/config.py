"""Where the labelled images are, and how they are read."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    FiniteFloat,
    field_validator,
    model_validator,
)

from graftline.data.source_settings import SourceSettings
from graftline.settings import Section, without_credentials


class SplitFractions(Section):
    """The share of the image groups in each split. The three shares sum to 1."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share used to fit models."""
    val: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share used to choose between models and to calibrate."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share used only for the reported figures and the verdict; nothing is chosen on it."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"train, val and test sum to {total:g}, not 1; for example 0.7, 0.15 and 0.15"
            )
        return self


class SampleSettings(SourceSettings):
    """How the images are read, compared and split."""

    split: SplitFractions = SplitFractions()
    """Shares of the three splits; an image never changes its split afterwards."""
    near_duplicates: Literal["auto", "off", "strict"] = "auto"
    """`auto`: the same picture saved again (compressed, resized, cropped, brighter, blurred) shares
    one split. `off`: images are not compared. `strict`: pictures under two labels, and pictures
    that look like images of two splits, are rejected too; 20% of copies is an error (`auto`:
    80%)."""

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML 1.1 reads an unquoted off as false

    value_range: tuple[FiniteFloat, FiniteFloat] | None = None
    """Images of more than 8 bits only: the stored values that are black and white, such as `[0,
    4095]` for 12 bits or `[-1000, 400]` for CT. Default: measured over the data set."""

    @field_validator("value_range")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(
                f"black at {value[0]:g} and white at {value[1]:g} is not a range; give the smaller "
                "stored value first, for example [0, 4095]"
            )
        return value

    missing_splits: Literal["carve", "refuse"] = "carve"
    """If the source gives splits and one is missing: `carve` takes it out of train by groups,
    `refuse` stops."""


class DataSettings(SampleSettings):
    """Where the labelled images are and how they are read."""

    source: str
    """A folder, `file://...` or `s3://bucket/prefix`; for a table, the CSV file itself."""

    @field_validator("source")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        return without_credentials(value)
