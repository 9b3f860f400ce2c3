"""Preprocessing as ONNX operators: the twin of :mod:`graftline.images.preprocessing`.

It is written out by hand rather than traced. Tracing the resize together with a network fails
(sizes that depend on the image cannot be guarded), takes seconds, and has had faults in exactly
this operator: the bicubic coefficient (-0.75 where PyTorch's antialiased resize uses -0.5,
pytorch issue 177138) and the weights at the edges (pytorch issue 183546). Here both are one
attribute each, and the tests compare every size and mode with the PyTorch twin.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graftline.images.preprocessing import MAX_ASPECT, Preprocessing

CUBIC_COEFFICIENT = -0.5  # of Keys' kernel in PyTorch's antialiased bicubic, as in Pillow
OUTPUT = "pixels"


def preprocessing_graph(
    preprocessing: Preprocessing, *, source: str, opset: int, ir_version: int
) -> onnx.ModelProto:
    """A model from uint8 (N, H, W, 3) of any size to the network's input.

    Args:
        preprocessing: What to do, resolved.
        source: Name of the input.
        opset: Operator set, at least 18 (the first whose Resize has antialiasing).
        ir_version: Version of the file format.

    Returns:
        A model with the output ``pixels``, float32 (N, 3, S, S), normalised.
    """
    build = _Builder()
    height, width = build.sides(source)
    if preprocessing.crop_mode == "center":
        pixels = _centre(build, source, height, width, preprocessing)
    elif preprocessing.crop_mode == "squash":
        side = build.integer(preprocessing.resize_size)
        resized = _resize(build, source, side, side, preprocessing)
        pixels = _centre_crop(build, resized, side, side, preprocessing.input_size)
    else:
        pixels = _border(build, source, height, width, preprocessing)
    size = preprocessing.input_size
    pixels = build.add("Reshape", pixels, build.integers(0, 3, size, size))  # states the shape
    deviation = build.add("Sub", pixels, build.channels(preprocessing.mean))
    build.add("Div", deviation, build.channels(preprocessing.std), output=OUTPUT)
    graph = helper.make_graph(
        build.nodes,
        "preprocessing",
        [helper.make_tensor_value_info(source, onnx.TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["N", 3, size, size])],
        build.constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


class _Builder:
    """Collects nodes and constants; every value is named by what made it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(
        self, operator: str, *inputs: str, output: str | None = None, **attributes: object
    ) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [name], name=f"node_{name}", **attributes)
        self.nodes.append(node)
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """One integer, held as a vector of one, as Slice and Concat want it."""
        return self.integers(value)

    def channels(self, values: Sequence[float]) -> str:
        """Per-channel values of pixels in 0..1, for pixels in 0..255, as PyTorch rounds them."""
        scaled = np.array(values, np.float32) * np.float32(255.0)
        return self.constant(scaled.reshape(1, 3, 1, 1))

    def sides(self, source: str) -> tuple[str, str]:
        shape = self.add("Shape", source)
        height = self.add("Slice", shape, self.integer(1), self.integer(2))
        return height, self.add("Slice", shape, self.integer(2), self.integer(3))

    def times(self, value: str, factor: int) -> str:
        return self.add("Mul", value, self.integer(factor))

    def divided(self, value: str, divisor: str | int) -> str:
        """Integer division; all values here are positive, so it is Python's ``//``."""
        by = self.integer(divisor) if isinstance(divisor, int) else divisor
        return self.add("Div", value, by)


def _centre(
    build: _Builder, source: str, height: str, width: str, preprocessing: Preprocessing
) -> str:
    """Shorter side to ``resize_size``, then the middle square."""
    seen_height = build.add("Min", height, build.times(width, MAX_ASPECT))
    seen_width = build.add("Min", width, build.times(height, MAX_ASPECT))
    top = build.divided(build.add("Sub", height, seen_height), 2)
    left = build.divided(build.add("Sub", width, seen_width), 2)
    start = build.add("Concat", top, left, axis=0)
    end = build.add("Add", start, build.add("Concat", seen_height, seen_width, axis=0))
    seen = build.add("Slice", source, start, end, build.integers(1, 2))
    shorter = build.add("Min", seen_height, seen_width)
    high = build.divided(build.times(seen_height, preprocessing.resize_size), shorter)
    wide = build.divided(build.times(seen_width, preprocessing.resize_size), shorter)
    resized = _resize(build, seen, high, wide, preprocessing)
    return _centre_crop(build, resized, high, wide, preprocessing.input_size)


def _border(
    build: _Builder, source: str, height: str, width: str, preprocessing: Preprocessing
) -> str:
    """Longer side to ``resize_size``, then cut or filled up with the mean colour."""
    longer = build.add("Max", height, width)
    sides = []
    for side in (height, width):
        twice = build.times(side, 2 * preprocessing.resize_size)
        rounded = build.divided(build.add("Add", twice, longer), build.times(longer, 2))
        sides.append(build.add("Max", rounded, build.integer(1)))
    high, wide = sides
    resized = _resize(build, source, high, wide, preprocessing)
    size = preprocessing.input_size
    zero, whole = build.integer(0), build.integer(size)
    befores, afters = [], []
    for side in sides:
        missing = build.add("Max", build.add("Sub", whole, side), zero)
        befores.append(build.divided(missing, 2))
        afters.append(build.add("Sub", missing, befores[-1]))
    pads = build.add("Concat", zero, zero, *befores, zero, zero, *afters, axis=0)
    fill = np.array([round(255 * value) for value in preprocessing.mean], np.float32)
    colour = build.constant(fill.reshape(1, 3, 1, 1))
    padded = build.add("Pad", build.add("Sub", resized, colour), pads)
    filled = build.add("Add", padded, colour)
    high, wide = build.add("Max", high, whole), build.add("Max", wide, whole)
    return _centre_crop(build, filled, high, wide, size)


def _resize(
    build: _Builder, pixels: str, height: str, width: str, preprocessing: Preprocessing
) -> str:
    """Antialiased resize of (N, H, W, 3) to (N, 3, height, width)."""
    planes = build.add("Cast", build.add("Transpose", pixels, perm=[0, 3, 1, 2]), to=1)
    batch = build.add("Slice", build.add("Shape", planes), build.integer(0), build.integer(2))
    sizes = build.add("Concat", batch, height, width, axis=0)
    cubic = {"mode": "cubic", "cubic_coeff_a": CUBIC_COEFFICIENT}
    return build.add(
        "Resize",
        planes,
        "",
        "",
        sizes,
        **(cubic if preprocessing.interpolation == "bicubic" else {"mode": "linear"}),
        antialias=1,
        exclude_outside=1,  # weights beyond the edge are left out, the others sum to one
        coordinate_transformation_mode="half_pixel",
    )


def _centre_crop(build: _Builder, pixels: str, height: str, width: str, size: int) -> str:
    """The middle square; an odd rest is rounded half to even."""
    starts = []
    for side in (height, width):
        rest = build.add("Sub", side, build.integer(size))
        odd = build.add("Mod", build.divided(rest, 2), build.integer(2))
        starts.append(build.divided(build.add("Add", rest, odd), 2))
    start = build.add("Concat", *starts, axis=0)
    end = build.add("Add", start, build.integer(size))
    return build.add("Slice", pixels, start, end, build.integers(2, 3))
