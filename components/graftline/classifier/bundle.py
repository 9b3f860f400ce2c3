"""The classifier bundle: backbone, head, classes and temperature, one form for every strategy.

A bundle is a folder::

    classifier.json          what it is: backbone, head, classes, preprocessing, temperature
    weights.safetensors      every tensor of backbone and head, float32 as trained
    held_out.safetensors     optional: logits of validation images from a model that never saw them
    references.safetensors   optional: see :mod:`graftline.classifier.class_means`

A probe is its backbone with one linear layer, standardisation folded in. The network is rebuilt
from its architecture's name and filled from the bundle: loading downloads nothing. No pickle.
"""

import errno
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graftline.classifier.description import (
    DESCRIPTION_FILE,
    KIND,
    SCHEMA_VERSION,
    damaged,
    read_description,
)
from graftline.classifier.heads import build_head, describe_head
from graftline.errors import (
    DataError,
    WeightsError,
)
from graftline.files import os_errors, replacing, sha256_of
from graftline.images.preprocessing import Preprocessing
from graftline.models.backbone import Backbone, construct
from graftline.schema import write_json

WEIGHTS_FILE = "weights.safetensors"
HELD_OUT_FILE = "held_out.safetensors"
FROZEN = ("probe", "head")  # strategies that leave the backbone as it was


@dataclass(frozen=True)
class HeldOut:
    """Logits of images that the model behind them has not seen, for calibration.

    A probe is refitted on train and validation images together, so its own logits there are too
    sure; these come from the fit on train alone.

    Attributes:
        rows: Manifest rows, shape (n_val,), in manifest order.
        logits: Uncalibrated logits, shape (n_val, classes), float32.
        head: State of the head that gave them, where it is not the bundle's own. Fine-tuning
            starts from it: the refitted one already knows the validation labels.
    """

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    head: Mapping[str, Tensor] | None = None


class Classifier(nn.Module):
    """A backbone with a head, and all that is needed to use it.

    ``forward`` gives uncalibrated logits; :meth:`probabilities` divides them by the temperature.

    Args:
        backbone: The network, pooled features out.
        head: A linear layer or an :class:`MLPHead`.
        classes: Class names, in the order of the logits.
        preprocessing: How an image becomes the network's input.
        strategy: How it was trained: ``probe``, ``head``, ``fine_tune`` or
            ``scratch``.
        snapshot_id: The dataset snapshot it was trained on.
        temperature: Logits are divided by it before the softmax; 1 until calibrated.
        backbone_fingerprint: Fingerprint of the features that the head was fitted on. Where it
            equals a feature artifact's, ``head(features)`` are this classifier's logits.
        metadata: Anything else worth keeping, as JSON holds it.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        classes: Sequence[str],
        *,
        preprocessing: Preprocessing,
        strategy: str,
        snapshot_id: str,
        temperature: float = 1.0,
        backbone_fingerprint: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classes = tuple(classes)
        self.preprocessing = preprocessing
        self.strategy = strategy
        self.snapshot_id = snapshot_id
        self.temperature = float(temperature)
        self.backbone_fingerprint = backbone_fingerprint or backbone.fingerprint()
        self.metadata = dict(metadata or {})

    def forward(self, x: Tensor) -> Tensor:
        """Uncalibrated logits, shape (N, classes), of normalised images (N, 3, S, S)."""
        logits: Tensor = self.head(self.backbone(x))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features, shape (N, feature_dim), of normalised images (N, 3, S, S)."""
        features: Tensor = self.backbone(x)
        return features

    def probabilities(self, x: Tensor) -> Tensor:
        """Calibrated probabilities, shape (N, classes), of normalised images."""
        return torch.softmax(self(x) / self.temperature, dim=1)

    def logits_of_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Uncalibrated logits (N, classes) of stored features (N, feature_dim), on the CPU."""
        head = self.head.eval()
        device = next(head.parameters()).device
        pieces = []
        with torch.inference_mode():
            for start in range(0, len(features), 8192):
                # Copied into torch's own memory, which is aligned: by another alignment a product
                # of matrices differs in its last bits, and equal runs would differ with it.
                piece = torch.tensor(np.asarray(features[start : start + 8192], dtype=np.float32))
                pieces.append(head(piece.to(device)).float().cpu().numpy())
        if not pieces:
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        return np.concatenate(pieces)

    def with_temperature(self, temperature: float) -> "Classifier":
        """The same networks (shared, not copied) with another temperature."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise DataError(
                f"temperature {temperature} cannot calibrate: it must be a positive number"
            )
        return self._like(temperature=temperature)

    def with_metadata(self, **fields: Any) -> "Classifier":
        """The same networks (shared, not copied) with some metadata fields set."""
        return self._like(metadata={**self.metadata, **fields})

    def with_head(self, head: nn.Module) -> "Classifier":
        """The same backbone (shared, not copied) with another head."""
        return self._like(head=head)

    def _like(self, head: nn.Module | None = None, **changes: Any) -> "Classifier":
        kept = {
            "preprocessing": self.preprocessing,
            "strategy": self.strategy,
            "snapshot_id": self.snapshot_id,
            "temperature": self.temperature,
            "backbone_fingerprint": self.backbone_fingerprint,
            "metadata": self.metadata,
        }
        return Classifier(self.backbone, head or self.head, self.classes, **{**kept, **changes})


def save_classifier(
    folder: Path, classifier: Classifier, *, held_out: HeldOut | None = None
) -> None:
    """Write the bundle; ``classifier.json`` comes last, so a folder that has it is whole.

    Args:
        folder: Made if it is not there; an earlier bundle in it is replaced.
        classifier: What to save.
        held_out: Validation logits for calibration, see :class:`HeldOut`.

    Raises:
        NoSpace: The disk is full.
        StoreReadOnly: The folder cannot be written to.
    """
    with os_errors(str(folder), "write"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
        weights_digest = _write_tensors(folder / WEIGHTS_FILE, classifier.state_dict())
        held_out_digest = None
        if held_out is None:
            (folder / HELD_OUT_FILE).unlink(missing_ok=True)
        else:
            tensors = _held_out_tensors(held_out, classifier)
            held_out_digest = _write_tensors(folder / HELD_OUT_FILE, tensors)
        description = _describe(classifier, weights_digest, held_out_digest)
        write_json(folder / DESCRIPTION_FILE, description, sort_keys=True, allow_nan=True)


def load_classifier(folder: Path) -> Classifier:
    """Read a bundle and rebuild its network, in eval mode on the CPU, without any download.

    Raises:
        StoreNotFound: There is no bundle in the folder.
        SchemaVersionError: It was written by another version.
        IntegrityError: It is damaged.
        WeightsError: Its tensors do not fit its architecture; they are named.
    """
    description = read_description(folder)
    weights = _read_tensors(folder / WEIGHTS_FILE, description["weights_sha256"])
    try:
        named = description["backbone"]
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        backbone = construct(
            named["name"],
            named["image_size"],
            fit=preprocessing.fit,
            value_range=preprocessing.value_range,
            full_decoding=preprocessing.full_decoding,
        )
        classifier = Classifier(
            backbone,
            build_head(description["head"]),
            description["classes"],
            preprocessing=preprocessing,
            strategy=description["strategy"],
            snapshot_id=description["snapshot_id"],
            temperature=description["temperature"],
            backbone_fingerprint=named["fingerprint"],
            metadata=description["metadata"],
        )
    except (KeyError, TypeError) as error:
        raise damaged(
            folder / DESCRIPTION_FILE, f"a field is missing or invalid: {error}"
        ) from error
    _fill(classifier, weights, folder)
    return classifier.eval()


def read_held_out(folder: Path) -> HeldOut | None:
    """The held-out validation logits of a bundle, or None where it has none."""
    digest = read_description(folder).get("held_out_sha256")
    if digest is None:
        return None
    tensors = _read_tensors(folder / HELD_OUT_FILE, digest)
    head = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    return HeldOut(tensors["rows"].numpy(), tensors["logits"].numpy(), head or None)


def bundle_digest(folder: Path) -> str:
    """Sha256 that stands for the bundle's whole content; equal content, equal digest."""
    canonical = json.dumps(read_description(folder), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _describe(
    classifier: Classifier, weights_digest: str, held_out_digest: str | None
) -> dict[str, Any]:
    spec = classifier.backbone.spec
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "backbone": {
            "name": spec.name,
            "image_size": classifier.preprocessing.input_size,
            "feature_dim": spec.feature_dim,
            "fingerprint": classifier.backbone_fingerprint,
        },
        "head": describe_head(classifier.head),
        "classes": list(classifier.classes),
        "temperature": classifier.temperature,
        "preprocessing": classifier.preprocessing.to_dict(),
        "strategy": classifier.strategy,
        "snapshot_id": classifier.snapshot_id,
        "metadata": classifier.metadata,
        "weights_sha256": weights_digest,
        "held_out_sha256": held_out_digest,
    }


def _held_out_tensors(held_out: HeldOut, classifier: Classifier) -> dict[str, Tensor]:
    expected = (len(held_out.rows), len(classifier.classes))
    if held_out.logits.shape != expected:
        raise ValueError(f"held-out logits are {held_out.logits.shape}, expected {expected}")
    return {
        "rows": torch.from_numpy(np.array(held_out.rows, dtype=np.int64)),
        "logits": torch.from_numpy(np.array(held_out.logits, dtype=np.float32)),
        **{f"head.{name}": tensor for name, tensor in (held_out.head or {}).items()},
    }


def _fill(classifier: Classifier, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Load the tensors, and name every one that does not fit."""
    wanted = classifier.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in weights]
    faults += [f"{name} is not a tensor of this network" for name in weights if name not in wanted]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if faults[8:] else "")
        raise WeightsError(
            f"the weights in {folder} do not fit {classifier.backbone.spec.name}: {shown}",
            why="the bundle was put together from different models, or the library that "
            "provides the architecture has changed it",
            fix="run the training again, or install the library versions in constraints.txt",
        )
    classifier.load_state_dict(dict(weights))


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file whole or not at all; its sha256."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(own, str(temporary))
            digest = sha256_of(temporary)
    except SafetensorError as error:  # it wraps the system's refusal, "(os error 28)"
        found = re.search(r"os error (\d+)", str(error))
        raise OSError(int(found[1]) if found else errno.EIO, str(error), str(path)) from error
    return digest


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    if not path.exists():
        raise damaged(path, "it is not there, though classifier.json names it")
    if sha256_of(path) != digest:
        raise damaged(path, "its sha256 is not the one that classifier.json states")
    try:
        tensors: dict[str, Tensor] = load_file(str(path))
    except SafetensorError as error:
        raise damaged(path, f"it is not a safetensors file: {error}") from error
    return tensors
