"""Reading a checkpoint: safetensors, or what ``torch.load(weights_only=True)`` reads.

Never a pickle: a file that would run code is refused, and what it would have called is named.
"""

import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graftline.errors import IntegrityError, StoreNotFound, WeightsError
from graftline.files import sha256_of
from graftline.models.weights.location import WeightsLocation, parse
from graftline.storage import open_store

STATE_KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "state_dict",
    "model",
    "module",
    "net",
    "teacher",
    "encoder",
)
DEEPEST = 3  # dictionaries inside one another
SHOWN = 60  # bytes of a file that is no checkpoint
REPEATED_BYTES = 1 << 20  # a tensor up to this size may repeat values that are stored once
NEITHER = "It is neither safetensors nor a PyTorch checkpoint."
UNREADABLE = "They may be damaged or truncated. Copy them again, or use others."
NO_CODE = (
    "Load it where you trust it, and save only the tensors: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
)


class Checkpoint(dict[str, Tensor]):
    """Tensors by name.

    Attributes:
        _metadata: The versions of the modules that wrote them, where PyTorch looks for them.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Any = None) -> None:
        super().__init__(tensors)
        self._metadata = metadata


def read_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's tensors.

    Args:
        text: Where it is and which digest it must have, in the form that
            :func:`graftline.models.weights.location.parse` takes.

    Raises:
        WeightsError: There is nothing, or it is no checkpoint.
        IntegrityError: The digest differs.
    """
    wanted = parse(text)
    with _local_copy(wanted) as path:
        if wanted.sha256 is not None:
            check_digest(path, wanted.sha256, wanted.location)
        return read_file(path, wanted.location)


def exists(wanted: WeightsLocation) -> bool:
    """Whether there is a checkpoint; for a store, it is asked."""
    if wanted.is_in_store:
        return open_store(wanted.parent).exists(wanted.name)
    return wanted.path.is_file()


def check_digest(
    path: Path,
    expected: str,
    source: str,
    fix: str = "Fetch or mirror them again, or correct the digest.",
) -> None:
    """Refuse a file whose SHA-256 does not begin with what is expected.

    Raises:
        IntegrityError: It differs.
    """
    found = sha256_of(path)
    if not found.startswith(expected.lower()):
        raise IntegrityError(
            f"The weights in {source} are not the requested ones.",
            why=f"Their SHA-256 is {found}, not {expected}{'...' * (len(expected) < 64)}.",
            fix=fix,
        )


def read_file(path: Path, source: str) -> Checkpoint:
    """Read a local file's tensors; its form is recognised by its content, not by its name.

    Args:
        path: The file.
        source: What to call it in an error.

    Raises:
        WeightsError: It is damaged, holds code, or no tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if _is_safetensors(path):
            return _plain(Checkpoint(load_file(path)), source)
        _check_size(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        why = _no_checkpoint(path) or _first_line(error)
        raise WeightsError(
            f"The weights in {source} cannot be read.", why=why, fix=UNREADABLE
        ) from error
    except Exception as error:  # an UnpicklingError, which is not named here: no pickle is used
        raise _not_plain(path, source, error) from error
    return _state_of(content, source)


def _check_size(path: Path) -> None:
    """Refuse an archive that would unpack to more than its own size; PyTorch never compresses."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size:
        raise ValueError(
            f"It unpacks to {size:,} bytes, more than the file has. PyTorch compresses TorchScript "
            "archives, which hold code, but no checkpoint."
        )


def _plain(tensors: Checkpoint, source: str) -> Checkpoint:
    """The tensors, all of which must hold their values themselves, one after the other.

    A few bytes can stand for a tensor of any size (one value repeated), and sparse, quantised or
    nested tensors are none that a network's parameters could be.
    """
    strange = [name for name, tensor in tensors.items() if not _holds_its_values(tensor)]
    if strange:
        raise WeightsError(
            f"The weights in {source} hold unsupported tensors: {', '.join(strange[:5])}"
            + f" and {len(strange) - 5} more." * (len(strange) > 5)
            + "." * (len(strange) <= 5),
            why="Sparse, quantised, complex, nested and expanded tensors are not read.",
            fix=NO_CODE,
        )
    return tensors


def _holds_its_values(tensor: Tensor) -> bool:
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        return False
    if tensor.is_complex():
        return False
    size = tensor.numel() * tensor.element_size()
    return size <= max(tensor.untyped_storage().nbytes(), REPEATED_BYTES)


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its header and the header's brace."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return len(head) == 9 and head[8:] == b"{" and not head.startswith(b"PK")


def _not_plain(path: Path, source: str, error: Exception) -> WeightsError:
    """Name what the file would have called, or say that it is no checkpoint at all."""
    try:
        called = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an older form, whose refusal names the first one only
        called = re.findall(r"GLOBAL ([\w.]+)", str(error))
    if not called:
        return WeightsError(
            f"The weights in {source} cannot be read.",
            why=_no_checkpoint(path) or NEITHER,
            fix=UNREADABLE,
        )
    return WeightsError(
        f"The weights in {source} are not a plain checkpoint.",
        why=f"Reading it would call {', '.join(sorted(called)[:5])}. "
        "Only tensors and plain values are read from a checkpoint, never code.",
        fix=NO_CODE,
    )


def _no_checkpoint(path: Path) -> str | None:
    """How a file begins that is text (a Git LFS pointer, a server's answer) or empty."""
    with path.open("rb") as stream:
        head = stream.read(SHOWN)
    if not head:
        return "The file is empty."
    text = head.decode("utf-8", "replace").splitlines()[0]
    is_text = text.isascii() and text.isprintable() and not text.startswith("{")
    return f"{NEITHER} It begins with '{text}'." if is_text else None


def _state_of(content: Any, source: str) -> Checkpoint:
    """Find the state dictionary inside what training scripts save around it."""
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            break
        inner = next((content[k] for k in STATE_KEYS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    found = dict(_dictionaries(content, "", DEEPEST))
    largest = max(map(len, found.values()), default=0)
    found = {path: tensors for path, tensors in found.items() if len(tensors) > largest / 10}
    if len(found) > 1:
        raise WeightsError(
            f"The weights in {source} hold several state dictionaries: {', '.join(found)}.",
            fix=f"Save one of them, alone or under one of {', '.join(STATE_KEYS)}.",
        )
    if not found:
        raise WeightsError(
            f"The weights in {source} hold no tensors with names.",
            fix=f"Save a state dictionary, alone or under one of {', '.join(STATE_KEYS)}.",
        )
    return _plain(next(iter(found.values())), source)


def _dictionaries(content: Any, path: str, depth: int) -> Iterator[tuple[str, Checkpoint]]:
    """All that hold tensors by name, with the keys that lead to each; none of an optimiser."""
    if not isinstance(content, Mapping) or "param_groups" in content:
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield path or "the file itself", Checkpoint(tensors, getattr(content, "_metadata", None))
    for key, value in content.items() if depth else ():
        yield from _dictionaries(value, f"{path}.{key}".lstrip("."), depth - 1)


@contextmanager
def _local_copy(wanted: WeightsLocation) -> Iterator[Path]:
    """The checkpoint as a local file; one from a store is a temporary copy."""
    if not wanted.is_in_store:
        path = wanted.path
        if not path.is_file():
            raise WeightsError(
                f"There are no weights at '{wanted.location}'.",
                why="No such file." if not path.exists() else "It is not a file.",
                fix="Correct `weights:`, or remove it to use the library's own.",
            )
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        try:
            open_store(wanted.parent).download(wanted.name, path)
        except StoreNotFound as error:
            raise WeightsError(
                f"There are no weights at '{wanted.location}'.",
                why=str(error.what),
                fix="Correct `weights:`, or put them there with `graftline mirror-weights`.",
            ) from error
        yield path


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
