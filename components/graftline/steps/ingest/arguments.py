"""What the step takes besides its inputs and outputs."""

from typing import Any

from pydantic import field_validator

from graftline.data.source_settings import SourceSettings
from graftline.images.decode import MAX_PIXELS
from graftline.steps.ingest.checks import MIN_IMAGES_PER_CLASS
from graftline.steps.ingest.config import SplitFractions


class IngestConfig(SourceSettings):
    """``data`` of the run file, and what only tests and experts change."""

    split: dict[str, float] = SplitFractions().model_dump()
    """Fractions of train, val and test for what is new."""
    seed: int = 0
    """Of the hash that splits."""
    missing_splits: str = "carve"
    """``carve`` takes a split that the source lacks out of train; or ``refuse``."""
    near_duplicates: str = "auto"
    """``auto`` groups the same picture saved again; ``off`` (or None) looks for none; ``strict``
    also rejects what contradicts or ties splits together."""
    min_images_per_class: int = MIN_IMAGES_PER_CLASS
    """A class with fewer is an error."""
    max_pixels: int = MAX_PIXELS
    """Larger images are rejected unread."""
    value_range: tuple[float, ...] | None = None
    """The stored values that are black and white in images of more than 8 bits; None measures
    them."""

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _none_is_off(cls, value: Any) -> Any:
        return value or "off"
