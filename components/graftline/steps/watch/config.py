"""What starts a training."""

from typing import Annotated

from pydantic import (
    Field,
)

from graftline.settings import PositiveInt, Section


class RetrainWhen(Section):
    """Any one of these starts training."""

    new_images: PositiveInt | None = None
    """So many images are new."""
    new_fraction: Annotated[float, Field(gt=0)] | None = 0.05
    """So many images are new, as a share of the champion's."""
    labels_changed: PositiveInt | None = 1
    """So many images carry another label than they did."""
    drift: Annotated[float, Field(gt=0, lt=1)] | None = 0.05
    """The new images' features differ from the champion's at this false discovery rate."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """The champion is older than this."""
    always: bool = False
    """Train at every run."""
