"""How the frozen network is run over the images."""

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from graftline.settings import PositiveInt, Section
from graftline.steps.backbone_config import BackboneConfig


class EngineSettings(Section):
    """What runs the frozen network, and how."""

    engine: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto"
    """`auto` uses the engine that computed the features in the store. If there are none yet, it
    times the engines briefly and takes the fastest. Another value overrides the store's record."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """`auto` uses bf16 if the processor supports it; its agreement with fp32 is measured and kept
    with the features. Features of another precision are other features."""
    batch_size: PositiveInt | None = None
    """Images in one forward pass. Default: chosen for the machine."""


class ExtractSettings(EngineSettings):
    """How the frozen network is run over the images."""

    workers: Annotated[int, Field(ge=1, le=100)] = 1
    """Tasks that share the extraction on a cluster; more than one pays from about 100,000 new
    images."""


class ExtractConfig(BackboneConfig, EngineSettings):
    """All that the step takes besides its inputs and outputs."""

    worker: int = 0
    """Which share of the images, from 0."""
    workers: int = 1
    """How many shares there are; checked together with ``worker``."""
    extracted_by_workers: int = 0
    """What the workers of a fan-out computed before, counted as new."""
