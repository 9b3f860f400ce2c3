"""How long a network takes for one image on one core."""

import statistics
import time

import numpy as np

from graftline.inference.onnx_cache import export
from graftline.inference.runners import OnnxRuntimeRunner, Runner, TorchRunner
from graftline.models.backbone import Backbone

WARM_UP, TIMES = 3, 15


def milliseconds(network: Backbone) -> float:
    """Median of several forward passes of one image in fp32, by ONNX Runtime on one core.

    A network that cannot be exported is timed in PyTorch.
    """
    size = network.spec.preprocessing.input_size
    runner = _runner(network, size)
    image = np.zeros((1, 3, size, size), dtype=np.float32)
    for _ in range(WARM_UP):
        runner(image)
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        runner(image)
        taken.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(taken), 2)


def _runner(network: Backbone, size: int) -> Runner:
    try:
        return OnnxRuntimeRunner(export(network.eval(), (1, 3, size, size)))
    except Exception:  # whatever the exporters raise for a network that they cannot trace
        return TorchRunner(network, precision="fp32")
