"""What the step takes besides its inputs and outputs."""

from graftline.images.decode import MAX_PIXELS
from graftline.settings import PositiveInt
from graftline.steps.ingest.checks import MIN_IMAGES_PER_CLASS
from graftline.steps.ingest.config import SampleSettings


class IngestConfig(SampleSettings):
    """``data`` of the run file, and what only tests and experts change."""

    seed: int = 0
    """Of the hash that splits."""
    min_images_per_class: PositiveInt = MIN_IMAGES_PER_CLASS
    """A class with fewer is an error."""
    max_pixels: int = MAX_PIXELS
    """Larger images are rejected unread."""

    @property
    def fractions(self) -> dict[str, float]:
        """The share of each split."""
        shares: dict[str, float] = self.split.model_dump()
        return shares
