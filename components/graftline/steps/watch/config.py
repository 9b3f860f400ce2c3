"""What starts a training."""

from typing import Annotated

from pydantic import (
    Field,
)

from graftline.settings import PositiveInt, Section


class RetrainWhen(Section):
    """Any one of these starts training."""

    new_images: PositiveInt | None = None
    """At least this many images are new."""
    new_fraction: Annotated[float, Field(gt=0)] | None = 0.05
    """New images are at least this share of the champion's images."""
    labels_changed: PositiveInt | None = 1
    """At least this many images have a new label."""
    drift: Annotated[float, Field(gt=0, lt=1)] | None = 0.05
    """The new images' features differ from the champion's at this false discovery rate."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """The champion was promoted more than this many days ago."""
    always: bool = False
    """Train at every run."""
