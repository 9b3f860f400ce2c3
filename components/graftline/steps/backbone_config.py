"""Which network a step works with: the keys that more than one step takes."""

from typing import Annotated

from pydantic import Field

from graftline.images.fit import Fit
from graftline.settings import Section

ImageSize = Annotated[int, Field(ge=16, le=2048)]


class BackboneConfig(Section):
    """The network, its weights and its input."""

    backbone: str
    """Name of the network."""
    weights: str | None = None
    """Where the weights are, None for the published ones."""
    image_size: ImageSize | None = None
    """Side of the input in pixels, None for the pretrained one."""
    fit: Fit = "crop"
    """What is done with wide and tall images."""
