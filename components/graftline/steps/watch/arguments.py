"""What the step takes besides its inputs and outputs."""

from graftline.data.source_settings import SourceSettings
from graftline.steps.watch.config import RetrainWhen
from graftline.steps.watch.drift import SAMPLE


class WatchConfig(SourceSettings):
    """How the source is read, as ingest reads it, and what starts a training."""

    when: RetrainWhen
    """``retrain.when`` of the run file; a condition that is absent here is not applied."""
    backbone: str | None = None
    """The one that a training would use."""
    sample: int = SAMPLE
    """Images on either side of the drift test."""
    seed: int = 0
    """Of the samples."""
