"""Pretrained weights: where they come from, and how they are fitted to a network.

From a file, a store, the library that publishes them or a Python package. What is read:
:mod:`graftline.models.weights.checkpoint_file`; downloads:
:mod:`graftline.models.weights.published`.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graftline import files
from graftline.errors import ConfigurationError, IntegrityError, WeightsError
from graftline.models import position_embedding
from graftline.models.architectures import Architecture, checkpoint_filter, create, create_seeded
from graftline.models.weights import checkpoint_file, location, published
from graftline.models.weights.checkpoint_file import Checkpoint
from graftline.models.weights.published import Origin
from graftline.storage import commit
from graftline.storage.base import Store

SCHEMA_VERSION = 1  # of the pointer to mirrored weights
RANDOM = "random"
NAMED = 5  # tensors that an error names before it only counts


def locate(architecture: Architecture, weights: str | None, store: Store | None = None) -> Origin:
    """Where the weights would be taken from. Asks no server but a store."""
    if weights == RANDOM:
        return Origin("random", "random initialisation", available_locally=True)
    if weights is not None:
        wanted = location.parse(weights)
        kind = "store" if wanted.is_in_store else "file"
        return Origin(kind, wanted.location, available_locally=checkpoint_file.exists(wanted))
    return published.origin(architecture.full_name, architecture.source, store)


def load(
    architecture: Architecture,
    image_size: int,
    *,
    weights: str | None = None,
    store: Store | None = None,
) -> nn.Module:
    """Build the headless network with its weights.

    Raises:
        WeightsError: They cannot be had, cannot be read, or do not fit.
        IntegrityError: They are not the bytes that their digest says.
    """
    origin = locate(architecture, weights, store)
    if origin.kind == "none":
        raise published.none_published(architecture.full_name)
    # Read first: it fails within seconds, while a large network takes a while to build.
    state = None if origin.kind == "random" else _state(architecture, origin, weights, store)
    network = create_seeded(architecture, image_size)
    if state is not None:
        strict = origin.kind != "download"  # the libraries' own files may hold more than is used
        fit_state(network, state, architecture, origin.location, strict=strict)
    return network


def _state(
    architecture: Architecture, origin: Origin, weights: str | None, store: Store | None
) -> Checkpoint:
    if origin.kind == "package":
        return _embedded_state(architecture)
    if origin.kind == "download":
        return _published_state(architecture)
    if origin.kind == "mirror":
        assert store is not None
        return _mirrored_state(architecture, store)
    assert weights is not None
    return checkpoint_file.read_checkpoint(weights)


def fit_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    architecture: Architecture,
    source: str,
    *,
    strict: bool = True,
) -> None:
    """Load a checkpoint into a headless network, whatever head the checkpoint has.

    Args:
        network: Changed in place.
        state: The checkpoint's tensors.
        architecture: Of the network.
        source: Where the checkpoint is, for errors.
        strict: Refuse tensors that the network does not know.

    Raises:
        WeightsError: Tensors are missing, unexpected, of another shape or hold NaN; they are named.
    """
    wanted = network.state_dict()
    found = _adapted(network, state, wanted)
    misshapen = _misshapen(found, wanted)
    fitting = Checkpoint(
        {k: v for k, v in found.items() if k not in wanted or v.shape == wanted[k].shape},
        _versions(network, state, found),
    )
    try:
        result = network.load_state_dict(fitting, strict=False)
    except (RuntimeError, ValueError) as error:
        raise _does_not_fit(architecture, source, str(error).splitlines()[-1].strip()) from error
    missing = [
        name
        for name in result.missing_keys
        if name not in found and not name.endswith("num_batches_tracked")
    ]
    extra = set(result.unexpected_keys) if strict else set()
    unexpected = sorted(extra - _head_names(architecture, set(wanted))) if extra else []
    if misshapen and not missing and not unexpected:
        raise _does_not_fit(
            architecture,
            source,
            f"Tensors of another shape or type: {_listed(misshapen)}.",
            resized=True,
        )
    problems = [
        f"{label}: {_listed(items)}"
        for label, items in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape or type", misshapen),
        )
        if items
    ]
    if problems:
        raise _does_not_fit(architecture, source, f"Tensors {'; '.join(problems)}.")
    _refuse_nan(network, source)


def _refuse_nan(network: nn.Module, source: str) -> None:
    """A network of a training that diverged loads like any other, and answers nothing."""
    lost = [
        name
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point() and not tensor.is_meta and bool(tensor.isnan().any())
    ]
    if lost:
        raise WeightsError(
            f"The weights in {source} hold values that are no numbers (NaN): {_listed(lost)}.",
            why="The training that made them diverged, or the file is damaged.",
            fix="Use a checkpoint from before that, or other weights.",
        )


def _misshapen(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Tensors of another shape than the network's, then those of another kind of number."""
    both = [name for name in wanted if name in found]
    return [
        f"{name} is {_shape(found[name])} and should be {_shape(wanted[name])}"
        for name in both
        if found[name].shape != wanted[name].shape
    ] + [
        f"{name} is {str(found[name].dtype).removeprefix('torch.')} and should be floating point"
        for name in both
        if wanted[name].is_floating_point() and not found[name].is_floating_point()
    ]


def _listed(items: Sequence[str]) -> str:
    rest = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + rest


def _does_not_fit(
    architecture: Architecture, source: str, why: str, *, resized: bool = False
) -> WeightsError:
    native = architecture.preprocessing.input_size
    return WeightsError(
        f"The weights in {source} do not fit backbone '{architecture.full_name}'.",
        why=why,
        fix="Use weights that were trained with exactly this architecture"
        + f" at this image size; the published ones take {native} pixels." * resized
        + "." * (not resized),
    )


def _adapted(
    network: nn.Module, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The checkpoint under the network's names, position embeddings at the network's size."""
    found = _strip_prefix(dict(state), set(wanted))
    if not _fits(found, wanted) or found.keys() - wanted.keys():
        # The library's filter may need the prefix that was taken off, as for SAM's encoder.
        given = [found] if found.keys() == state.keys() else [found, dict(state)]
        forms = [*_filtered(network, given), found]
        found = max(forms, key=lambda form: sum(_same_shape(form, wanted, name) for name in wanted))
        for name in wanted:
            if name in found and found[name].shape != wanted[name].shape:
                resized = position_embedding.resampled(name, found[name], wanted[name])
                found[name] = found[name] if resized is None else resized
    return found


def _filtered(
    network: nn.Module, forms: Sequence[dict[str, Tensor]]
) -> Iterator[dict[str, Tensor]]:
    """What the library's filter makes of each; it fails on what is in no form that it knows."""
    for form in forms:
        with suppress(KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError):
            yield checkpoint_filter(network)(dict(form))


def _versions(network: nn.Module, state: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Any:
    """The module versions by which PyTorch renames tensors of older forms.

    The checkpoint's own; where it has none, or its names had a prefix, the present ones, unless
    names of an older form are seen.
    """
    if getattr(state, "_metadata", None) and found.keys() <= state.keys():
        return state._metadata  # type: ignore[attr-defined]
    older = any(".linear_1." in name for name in found)
    return None if older else getattr(network.state_dict(), "_metadata", None)


def mirror(
    architecture: Architecture, store: Store, weights: str | None = None, *, replace: bool = False
) -> dict[str, Any]:
    """Put an architecture's weights into a store, for air-gapped machines.

    Args:
        architecture: Whose weights.
        store: Where to.
        weights: Where from, None for the published ones.
        replace: Put them in the place of others that are mirrored under this name.

    Returns:
        ``uri``, ``sha256``, ``bytes`` and ``origin``. The URI can be given as ``weights:``; a run
        on this store finds them by itself.

    Raises:
        ConfigurationError: Others are mirrored under this name.
        WeightsError: They cannot be had or do not fit.
    """
    from safetensors.torch import save_file

    if weights == RANDOM:
        raise ConfigurationError(
            "Random weights are not mirrored.",
            why="Every run with this store and backbone would use them as pretrained weights.",
            fix="Write `weights: random` in the run file that needs them.",
        )
    origin = locate(architecture, weights)
    network = load(architecture, architecture.preprocessing.input_size, weights=weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        save_file(state, path, metadata={"architecture": architecture.full_name})
        digest = files.sha256_of(path)
        version = _mirrored_version(architecture, store, digest, replace)
        pattern = f"weights/{architecture.full_name}/{commit.ANY}.safetensors"
        key = commit.put_file(store, path, pattern, repair=True)
        pointer = {
            "schema_version": SCHEMA_VERSION,
            "sha256": digest,
            "key": key,
            "bytes": path.stat().st_size,
            "origin": origin.location,
        }
        commit.replace(store, published.mirror_pointer(architecture.full_name), pointer, version)
    return {"uri": f"{store.uri.rstrip('/')}/{key}", **pointer}


def _mirrored_version(
    architecture: Architecture, store: Store, digest: str, replace: bool
) -> str | None:
    """The version of the pointer that may be replaced, None where there is none."""
    key = published.mirror_pointer(architecture.full_name)
    if not store.exists(key):
        return None
    data, version = store.read_versioned(key)
    with suppress(ValueError, AttributeError):
        found = json.loads(data).get("sha256")
        if found != digest and not replace:
            raise ConfigurationError(
                f"The store has other weights for '{architecture.full_name}'.",
                why=f"The store has {found}; these are {digest}.",
                fix="Keep them, or pass --replace: every feature is then computed again.",
            )
    return version


def _mirrored_state(architecture: Architecture, store: Store) -> Checkpoint:
    key = published.mirror_pointer(architecture.full_name)
    what = f"The pointer to mirrored weights {store.uri}/{key}"
    again = f"Run `graftline mirror-weights {architecture.full_name} --store {store.uri}` again."
    try:
        pointer = commit.read(store, key, SCHEMA_VERSION).content
        location = f"{store.uri.rstrip('/')}/{pointer['key']}#sha256={pointer['sha256']}"
    except (IntegrityError, KeyError) as error:
        raise IntegrityError(f"{what} is damaged.", why=str(error), fix=again) from error
    return checkpoint_file.read_checkpoint(location)


def _embedded_state(architecture: Architecture) -> Checkpoint:
    package = published.package_of(architecture.full_name)
    assert package is not None
    path = published.package_file(package)
    with torch.device("meta"):
        full = create(architecture, architecture.preprocessing.input_size, head=True)
    # The same tensors in the same order under other names.
    values = checkpoint_file.read_file(path, str(path)).values()
    return Checkpoint(dict(zip(full.state_dict(), values, strict=True)))


def _published_state(architecture: Architecture) -> Checkpoint:
    path = published.fetch(architecture.source, architecture.full_name)
    expected = published.expected_digest(architecture.source, path)
    if expected is not None:
        checkpoint_file.check_digest(
            path, expected, str(path), fix=f"Delete {path}; it is then downloaded again."
        )
    return checkpoint_file.read_file(path, str(path))


def state_digest(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a network's tensors, in sorted order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _strip_prefix(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Take off what wrappers put before every name: where most of the network's names follow."""
    counts = Counter({"": 0})
    for name in state:
        starts = [0, *(at + 1 for at, letter in enumerate(name) if letter == ".")]
        counts.update(name[:start] for start in starts if name[start:] in wanted)
    prefix = max(counts, key=lambda each: (counts[each], -len(each)))
    return {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}


def _fits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return all(_same_shape(state, wanted, name) for name in wanted)


def _same_shape(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> bool:
    return name in state and state[name].shape == wanted[name].shape


def _head_names(architecture: Architecture, headless: set[str]) -> set[str]:
    """Names of the tensors that only the network with its head has."""
    size = architecture.preprocessing.input_size
    try:
        with torch.device("meta"):
            full = create(architecture, size, head=True)
    except (NotImplementedError, RuntimeError):
        full = create(architecture, size, head=True)
    return set(full.state_dict()) - headless


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "a scalar"
