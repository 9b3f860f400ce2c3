"""What a network gives at an image size, and which sizes it takes, found without computing."""

import torch
from torch import nn

from graftline.errors import BackboneError
from graftline.models.architectures import Architecture, create

STEPS = (8, 14, 16, 28, 32, 56, 64)  # of which the sizes that networks take are multiples
SMALLEST = 32
# Networks that fail while they compute at other sizes, which a look at the shapes does not show.
MULTIPLES = {"MultiScaleVit": 32}


def measure(architecture: Architecture, size: int) -> tuple[int, int]:
    """Number of parameters and width of the pooled features.

    Raises:
        BackboneError: The network has no pooled features, or does not take images of this size;
            the nearest sizes that it takes are named.
    """
    try:
        return _probe(architecture, size)
    except BackboneError as error:
        native = architecture.preprocessing.input_size
        if size == native:
            raise
        raise BackboneError(
            f"Backbone '{architecture.full_name}' does not take images of {size} x {size} pixels.",
            why=error.why,
            fix=f"Set image_size to one that fits: {_listed(fitting_sizes(architecture, size))}. "
            f"Without image_size it is {native}.",
        ) from error


def fitting_sizes(architecture: Architecture, near: int) -> list[int]:
    """The nearest sizes that a network takes, one below and one above where there are such.

    The size that it was pretrained with is the answer where no other is found.
    """
    native = architecture.preprocessing.input_size
    patch = _patch_of(architecture)
    below = above = None
    for step in dict.fromkeys((patch, *STEPS, native // 7, native) if patch else (*STEPS, native)):
        size = near // step * step
        if below is None and _takes(architecture, size):
            below = size
        if above is None and _takes(architecture, size + step):
            above = size + step
        if below and above:
            break
    return [size for size in (below, above) if size is not None] or [native]


def _takes(architecture: Architecture, size: int) -> bool:
    try:
        return size >= SMALLEST and _probe(architecture, size)[1] > 0
    except BackboneError:
        return False


def _probe(architecture: Architecture, size: int) -> tuple[int, int]:
    """As :func:`measure`, on the meta device where the network can be built there."""
    try:
        with torch.device("meta"):
            return _measured(architecture, size)
    except (NotImplementedError, RuntimeError) as error:
        if not isinstance(error, NotImplementedError) and "meta" not in str(error):
            raise _refusal(error) from error
    try:
        with torch.random.fork_rng(devices=[]):
            return _measured(architecture, size)
    except RuntimeError as error:
        raise _refusal(error) from error


def _measured(architecture: Architecture, size: int) -> tuple[int, int]:
    """Build a network and look at what it gives.

    Raises:
        BackboneError: It refuses the size, or gives no vector.
        RuntimeError: As a library raises it: the size, or something the meta device cannot do.
    """
    try:
        network = create(architecture, size).eval()
        with torch.no_grad():
            output = network(torch.zeros(2, 3, size, size))
    except (BackboneError, RuntimeError):
        raise
    except Exception as error:  # the libraries refuse sizes by assertions and much else
        raise _refusal(error) from error
    multiple = MULTIPLES.get(type(network).__name__, 1)
    if size % multiple:
        raise BackboneError(
            f"{size} is not a multiple of {multiple}.",
            why=f"It halves images until 1/{multiple} of them is left, and {size} is not a "
            f"multiple of {multiple}.",
        )
    patch = _patch_size(network)
    if patch and size % patch:
        raise BackboneError(
            f"{size} is not a multiple of the patch size.",
            why=f"Its patches are {patch} x {patch} pixels, and {size} is not a multiple of that.",
        )
    output = output.flatten(1) if output.shape[2:].numel() == 1 else output
    if output.ndim != 2:
        raise BackboneError(
            f"Backbone '{architecture.full_name}' has no pooled feature vector.",
            why=f"Its output is {' x '.join(str(side) for side in output.shape[1:])}.",
            fix="Use another backbone.",
        )
    return sum(parameter.numel() for parameter in network.parameters()), int(output.shape[1])


def _refusal(error: Exception) -> BackboneError:
    reason = str(error).strip().splitlines()
    return BackboneError(
        "The network does not take this size.", why=reason[0] if reason else type(error).__name__
    )


def _patch_of(architecture: Architecture) -> int | None:
    try:
        with torch.device("meta"):
            return _patch_size(create(architecture, architecture.preprocessing.input_size))
    except Exception:  # a hint only: where to look first
        return None


def _patch_size(network: nn.Module) -> int | None:
    """Side of the patches that a transformer cuts an image into; a rest would not be seen."""
    embedding = getattr(network, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if patch is None or getattr(embedding, "dynamic_img_pad", False):
        return None
    return int(max(patch)) if isinstance(patch, tuple | list) else int(patch)


def _listed(sizes: list[int]) -> str:
    return " or ".join(str(size) for size in sizes)
