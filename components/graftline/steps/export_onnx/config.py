"""How the classifier becomes an ONNX file."""

from typing import Annotated

from pydantic import (
    Field,
)

from graftline.settings import Fraction, Section


class ExportSettings(Section):
    """How the classifier becomes an ONNX file."""

    opset: Annotated[int, Field(ge=18, le=24)] = 20
    """ONNX operator set."""
    label_tolerance: Annotated[int, Field(ge=0)] = 0
    """How many test images may get a label that differs from PyTorch's."""
    max_probability_difference: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Largest allowed difference between a probability from the file and from PyTorch, in fp32."""
    int8: bool = False
    """Also write a statically quantised file, calibrated on training images."""
    fp16: bool = False
    """Also write a half-precision file."""
    max_drop: Fraction = 0.01
    """Test accuracy that a low-precision file may lose; a file that loses more is refused."""


class ExportConfig(ExportSettings):
    """All that the step takes besides its inputs and outputs."""

    calibration_images: int = 256
    """Training images that the int8 ranges are measured on."""
    run_id: str = ""
    """Tracking run, for the file's metadata."""
    seed: int = 0
    """Of the choice of calibration images."""
