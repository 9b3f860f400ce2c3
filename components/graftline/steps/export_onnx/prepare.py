"""The graph of a run's backbone, exported while other steps leave a core idle.

The graph of a frozen backbone does not depend on what ``fit_head`` and ``evaluate`` find (see
:mod:`graftline.steps.export_onnx.kept_network`), and exporting it keeps one core busy for seconds.
A local run does it beside ``fit_head``. The step ``export_onnx`` finds the graph in the machine's
cache, waits for it, or exports it itself.
"""

from collections.abc import Mapping
from typing import Any

import torch

from graftline.classifier.bundle import Classifier
from graftline.classifier.heads import build_head
from graftline.models.backbone import build
from graftline.steps.export_onnx.kept_network import network_of
from graftline.storage import open_store

MOST_PARAMETERS = 100e6  # larger ones take memory that the step beside may need
ANY_TEMPERATURE = 0.5  # not 1: a graph without the division has another form


def prepare(asked: Mapping[str, Any]) -> bool:
    """Export a backbone's graph under a head of any numbers, and keep it for ``export_onnx``.

    Args:
        asked: ``backbone``, ``weights``, ``image_size``, ``fit`` and ``store`` as steps take them;
            ``strategy``, ``hidden`` and ``dropout`` of the head, how many ``classes``, the
            ``opset``, and the ``fingerprint`` and ``precision`` of the run's features.

    Returns:
        Whether there is a graph; not where the run's own backbone is another than the one asked
        for, as with images that it decodes in another way.
    """
    torch.set_num_threads(1)
    backbone = build(
        asked["backbone"],
        weights=asked["weights"],
        image_size=asked["image_size"],
        store=open_store(asked["store"]),
        fit=asked["fit"],
    )
    if backbone.fingerprint(asked["precision"]) != asked["fingerprint"]:
        return False
    if backbone.spec.parameters > MOST_PARAMETERS:
        return False
    layers = asked["strategy"] == "head"
    head = build_head(
        {
            "type": "mlp" if layers else "linear",
            "in_features": backbone.spec.feature_dim,
            "classes": asked["classes"],
            "hidden": asked["hidden"],
            "dropout": asked["dropout"],
        }
    )
    classifier = Classifier(
        backbone,
        head,
        [str(number) for number in range(asked["classes"])],
        preprocessing=backbone.spec.preprocessing,
        strategy="head" if layers else "probe",
        snapshot_id="",
        temperature=ANY_TEMPERATURE,
    )
    network_of(classifier.eval(), asked["opset"])
    return True
