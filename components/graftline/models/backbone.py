"""A name to a pretrained network, its preprocessing and its fingerprint.

Any torchvision classification network and any timm network with a pooled feature vector. A
:class:`Backbone` ends in those features; heads are fitted or trained on them elsewhere.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from graftline.errors import ConfigurationError
from graftline.images.fit import Fit
from graftline.images.preprocessing import Preprocessing
from graftline.images.stored_values import ValueRange
from graftline.models import catalogue
from graftline.models.architectures import Architecture, create, create_seeded, find
from graftline.models.block_outputs import BlockOutputs, last_modules, width
from graftline.models.blocks import block_of, division_of
from graftline.models.first_use import first_uses
from graftline.models.input_size import measure
from graftline.models.names import BLOCKS
from graftline.models.weights import load as weights_module
from graftline.storage.base import Store

FINGERPRINT_VERSION = 1
LAYER, ALL_BLOCKS = "pooled", "pooled, of all blocks"


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone is, known without its weights.

    Attributes:
        name: As :func:`build` takes it: ``library/architecture``, with a tag where one was given,
            and ``+blocks`` where the features are those of all blocks.
        library: ``timm`` or ``torchvision``.
        architecture: The library's name.
        feature_dim: Width of the features.
        parameters: Number of parameters, without a head.
        preprocessing: At the image size asked for.
        native_size: Image size it was pretrained with, in pixels.
        weights: Where the weights come from, for people.
        available_locally: Whether they can be had without a download.
    """

    name: str
    library: str
    architecture: str
    feature_dim: int
    parameters: int
    preprocessing: Preprocessing
    native_size: int
    weights: str
    available_locally: bool

    @property
    def of_all_blocks(self) -> bool:
        """Whether the features are those of all blocks, not of the last alone."""
        return self.name.endswith(BLOCKS)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "preprocessing": self.preprocessing.to_dict()}


class Backbone(nn.Module):
    """A network that gives pooled features, of its last block or of all.

    Attributes:
        spec: What it is.
        network: The library's module without its head.
    """

    def __init__(self, spec: BackboneSpec, network: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.network = network
        self._division: list[tuple[str, tuple[str, ...]]] | None = None
        self._outputs: BlockOutputs | None = None
        if spec.of_all_blocks:
            self._outputs = BlockOutputs(last_modules(network, self._divided()))

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features.

        Args:
            images: (N, 3, S, S), normalised.

        Returns:
            (N, feature_dim).
        """
        if self._outputs is not None:
            self._outputs.begin()
        features: Tensor = self.network(images)
        features = features.flatten(1)
        return features if self._outputs is None else self._outputs.joined(features)

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Blocks from input to output, the stem first; each tensor is in exactly one."""
        return [(name, block_of(self.network, parts)) for name, parts in self._divided()]

    def _divided(self) -> list[tuple[str, tuple[str, ...]]]:
        if self._division is None:
            uses = first_uses(self.network, self.spec.preprocessing.input_size)
            self._division = division_of(self.network, uses)
        return self._division

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the present weights and buffers; computed again at each call."""
        return weights_module.state_digest(self.network)

    def fingerprint(self, precision: str = "fp32") -> str:
        """Name of the features that this network gives: equal fingerprint, equal features."""
        return fingerprint_of(self.spec, self.weights_digest, precision)


def fingerprint_of(spec: BackboneSpec, weights_digest: str, precision: str) -> str:
    """128 bits over everything that the features depend on, in hexadecimal."""
    identity = {
        "version": FINGERPRINT_VERSION,
        "library": spec.library,
        "architecture": spec.architecture,
        "weights": weights_digest,
        "preprocessing": spec.preprocessing.to_dict(),
        "layer": ALL_BLOCKS if spec.of_all_blocks else LAYER,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def resolve(
    name: str,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    store: Store | None = None,
    fit: Fit = "crop",
    value_range: ValueRange | None = None,
    full_decoding: bool = False,
    by_table: bool = False,
) -> BackboneSpec:
    """Describe a backbone without loading weights or asking any server but the store.

    Args:
        name: As of :func:`build`; so are the next three.
        weights: See above.
        image_size: See above.
        store: See above.
        fit: What is done with wide and tall images.
        value_range: Of the data set, see :class:`graftline.images.preprocessing.Preprocessing`.
        full_decoding: See there.
        by_table: Take its figures from the table where that has them, instead of looking.

    Raises:
        UnknownBackbone: No library has it.
        BackboneError: It does not take this image size, or has no pooled features.
    """
    architecture = find(name)
    spec = _spec_of(architecture, image_size, by_table=by_table, blocks=name.endswith(BLOCKS))
    spec = _with_pixels(spec, fit, value_range, full_decoding)
    origin = weights_module.locate(architecture, weights, store)
    return replace(spec, weights=origin.location, available_locally=origin.available_locally)


def construct(
    name: str,
    image_size: int | None = None,
    *,
    fit: Fit = "crop",
    value_range: ValueRange | None = None,
    full_decoding: bool = False,
) -> Backbone:
    """Build a network by its name, in eval mode, with seeded random weights.

    Nobody is asked where weights come from: a classifier bundle fills the network itself.
    The arguments are those of :func:`build`.

    Raises:
        UnknownBackbone: No library has it.
        BackboneError: It does not take this image size, or has no pooled features.
    """
    architecture = find(name)
    spec = _spec_of(architecture, image_size, by_table=True, blocks=name.endswith(BLOCKS))
    spec = _with_pixels(spec, fit, value_range, full_decoding)
    network = create_seeded(architecture, spec.preprocessing.input_size)
    return Backbone(spec, network).eval()


def build(
    name: str,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
    store: Store | None = None,
    fit: Fit = "crop",
    value_range: ValueRange | None = None,
    full_decoding: bool = False,
) -> Backbone:
    """Build a backbone with its weights, in eval mode.

    Args:
        name: See :func:`graftline.models.architectures.find`.
        weights: None for the published ones (out of the store, where they were mirrored); a path,
            ``file://`` or ``s3://`` URI; ``random`` for a seeded random initialisation.
        image_size: Side of the input in pixels; None for the pretrained one.
        pretrained: False builds the architecture with random weights, whatever ``weights`` says.
        store: Where mirrored weights may be.
        fit: What is done with wide and tall images: a part of the preprocessing, as the next two.
        value_range: Of the data set.
        full_decoding: Of large JPEGs.

    Raises:
        UnknownBackbone: No library has it.
        WeightsError: The weights cannot be had or do not fit.
        IntegrityError: The weights are not those that their digest names.
    """
    wanted = weights if pretrained else weights_module.RANDOM
    spec = resolve(
        name,
        weights=wanted,
        image_size=image_size,
        store=store,
        fit=fit,
        value_range=value_range,
        full_decoding=full_decoding,
        by_table=True,
    )
    network = weights_module.load(
        find(name), spec.preprocessing.input_size, weights=wanted, store=store
    )
    return Backbone(spec, network).eval()


def _spec_of(
    architecture: Architecture, image_size: int | None, *, by_table: bool, blocks: bool
) -> BackboneSpec:
    """The spec with random weights."""
    if image_size is not None and image_size < 1:
        raise ConfigurationError(f"`image_size: {image_size}`: at least one pixel is needed.")
    native = architecture.preprocessing.input_size
    size = image_size or native
    found = _tabled(architecture, size) if by_table else None
    parameters, feature_dim = found or _measure(architecture, size)
    if blocks:
        feature_dim = _width_of_all(architecture, size)
    return BackboneSpec(
        name=architecture.full_name + (BLOCKS if blocks else ""),
        library=architecture.library,
        architecture=architecture.name,
        feature_dim=feature_dim,
        parameters=parameters,
        preprocessing=_at_size(architecture.preprocessing, image_size or native),
        native_size=native,
        weights="random initialisation",
        available_locally=True,
    )


def _with_pixels(
    spec: BackboneSpec, fit: Fit, value_range: ValueRange | None, full_decoding: bool
) -> BackboneSpec:
    preprocessing = replace(
        spec.preprocessing.with_fit(fit), value_range=value_range, full_decoding=full_decoding
    )
    return replace(spec, preprocessing=preprocessing)


def _tabled(architecture: Architecture, size: int) -> tuple[int, int] | None:
    """Parameters and features by the table, where it was made with the installed libraries.

    Building a network to look at it takes half a second, and seconds the first time in a process.
    """
    if size != architecture.preprocessing.input_size:
        return None
    if catalogue.made_with() != catalogue.versions():
        return None
    # Of the default weights alone: another tag may have another size.
    entry = catalogue.table().get(f"{architecture.library}/{architecture.name}")
    if entry is None or not entry.feature_dim or size != entry.preprocessing.input_size:
        return None
    return entry.parameters, entry.feature_dim


_measure = lru_cache(maxsize=4096)(measure)


@lru_cache
def _width_of_all(architecture: Architecture, size: int) -> int:
    """Width of the features of all blocks, on shapes alone where the network can be built so."""
    try:
        with torch.device("meta"):
            network = create(architecture, size).eval()
            return width(network, division_of(network, first_uses(network, size)), size)
    except (NotImplementedError, RuntimeError):
        network = create_seeded(architecture, size).eval()
        return width(network, division_of(network, first_uses(network, size)), size)


def _at_size(preprocessing: Preprocessing, size: int) -> Preprocessing:
    return (
        preprocessing if size == preprocessing.input_size else preprocessing.with_input_size(size)
    )
