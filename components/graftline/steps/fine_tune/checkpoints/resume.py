"""Checkpoints, straight to the store: what is written is whole, and a killed run finds it again.

    checkpoints/<key>/latest.json             the pointer, changed by compare-and-swap
    checkpoints/<key>/previous.json           what the pointer said before, if the latest is damaged
    checkpoints/<key>/<sha256>.safetensors    tensors, written once, named by their content

A failed task's outputs are lost on a cluster, so nothing of this is an artifact. No pickle.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from graftline.errors import ConfigurationError, IntegrityError, PreconditionFailed, StoreNotFound
from graftline.files import sha256_of
from graftline.progress import message
from graftline.storage import commit
from graftline.storage.base import Store

SCHEMA_VERSION = 2
POINTER, PREVIOUS = "latest.json", "previous.json"
BEST = "best"  # the group that holds the best epoch's weights


@dataclass(frozen=True)
class Checkpoint:
    """Where training stood.

    Attributes:
        scalars: Counters, rates and the history, as JSON holds them.
        tensors: Groups of named tensors, such as ``state`` and ``best``.
    """

    scalars: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


class Checkpoints:
    """The last two checkpoints of one training, under its key.

    Args:
        store: Where they are kept.
        key: Name of the training.
        identity: Digest of everything that the training depends on. A checkpoint of another
            identity is refused.
    """

    def __init__(self, store: Store, key: str, identity: str = "") -> None:
        self._store = store.child(f"checkpoints/{key}")
        self._key, self._identity = key, identity
        self._version: str | None = None
        self._pointer: dict[str, Any] | None = None  # the last whole one, which the next save keeps
        self._kept: set[str] = set()  # objects that the two pointers name
        self._best: tuple[Mapping[str, Tensor], str] | None = None  # changes seldom: kept as it is

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None. A damaged one is reported and left out.

        Raises:
            StoreError: The store cannot be read.
            ConfigurationError: It belongs to another configuration or other data.
        """
        found = self._newest(POINTER)
        if found is None and (found := self._newest(PREVIOUS)) is not None:
            message("Going back to the checkpoint before the last one.")
        return found

    def scalars(self) -> Mapping[str, Any]:
        """Of the newest pointer that can be read, without its tensors; nothing where none can.

        Raises:
            StoreError: The store cannot be read.
        """
        for pointer in (POINTER, PREVIOUS):
            try:
                found = commit.parse(self._store.read(pointer), pointer)["scalars"]
            except (StoreNotFound, IntegrityError, ValueError, KeyError, TypeError):
                continue
            if isinstance(found, dict):
                return found
        return {}

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the tensors, then move the pointer, then remove what neither pointer names.

        If another process trains under the same key, its pointer stays if it is further on: both
        compute the same.
        """
        named = {
            group: self._upload(group, tensors)
            for group, tensors in checkpoint.tensors.items()
            if tensors
        }
        pointer = {
            "schema_version": SCHEMA_VERSION,
            "identity": self._identity,
            "scalars": checkpoint.scalars,
            "tensors": named,
        }
        if self._pointer is not None:  # before the pointer moves: one of the two is always whole
            commit.overwrite(self._store, PREVIOUS, self._pointer)
        try:
            self._version = commit.replace(self._store, POINTER, pointer, self._version)
        except PreconditionFailed:
            if not self._overtake(pointer, checkpoint.scalars["steps_done"]):
                return
        kept = set(named.values()) | _names(self._pointer)
        self._pointer = pointer
        unused, self._kept = self._kept - kept, self._kept | kept
        for name in unused:
            self._store.delete(name)
            self._kept.discard(name)

    def _newest(self, pointer: str) -> Checkpoint | None:
        """What one of the two pointers names, or None."""
        for _ in range(3):  # another run may replace it between the pointer and the tensors
            try:
                raw, version = self._store.read_versioned(pointer)
            except StoreNotFound:
                return None
            if pointer == POINTER:
                self._version = version
            try:
                return self._read(raw)
            except StoreNotFound:
                continue
            except (IntegrityError, SafetensorError, ValueError, KeyError, TypeError) as error:
                message("The checkpoint in %s cannot be used (%s).", pointer, error)
                return None
        message("The tensors of the checkpoint in %s are not in the store.", pointer)
        return None

    def _overtake(self, pointer: Mapping[str, Any], steps: int) -> bool:
        """Replace another process's pointer if it is behind; whether that was done."""
        raw, version = self._store.read_versioned(POINTER)
        try:
            theirs = json.loads(raw)["scalars"]["steps_done"]
        except (ValueError, KeyError, TypeError):
            theirs = -1
        if theirs >= steps:
            message("Another process trains the same model and is ahead; its state is kept.")
            self._version = version
            return False
        self._version = commit.replace(self._store, POINTER, pointer, version)
        return True

    def _read(self, raw: bytes) -> Checkpoint | None:
        pointer = commit.parse(raw, f"The pointer of the checkpoint {self._key}")
        if pointer["schema_version"] != SCHEMA_VERSION:
            message(
                "The checkpoint has schema version %s, not %s; training starts again.",
                pointer["schema_version"],
                SCHEMA_VERSION,
            )
            return None
        if pointer["identity"] != self._identity:
            raise ConfigurationError(
                f"the checkpoint {self._key} belongs to another training",
                why="its data, its probe or its settings differ from this run's",
                fix="give this training another checkpoint_key, or none: then the key is a digest "
                "of all three",
            )
        tensors = {group: self._download(name) for group, name in pointer["tensors"].items()}
        self._kept |= set(pointer["tensors"].values())
        self._pointer = pointer
        return Checkpoint(pointer["scalars"], tensors)

    def _upload(self, group: str, tensors: Mapping[str, Tensor]) -> str:
        if group == BEST and self._best is not None and self._best[0] is tensors:
            return self._best[1]
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with tempfile.TemporaryDirectory(prefix="graftline-checkpoint-") as folder:
            path = Path(folder) / "tensors"
            save_file(own, str(path))
            name = f"{sha256_of(path)}.safetensors"
            if name not in self._kept:
                commit.put_file(self._store, path, f"{commit.ANY}.safetensors", repair=True)
        self._kept.add(name)
        if group == BEST:
            self._best = tensors, name
        return name

    def _download(self, name: str) -> dict[str, Tensor]:
        with tempfile.TemporaryDirectory(prefix="graftline-checkpoint-") as folder:
            path = Path(folder) / "tensors"
            commit.fetch_file(self._store, name, name.removesuffix(".safetensors"), path)
            tensors: dict[str, Tensor] = load_file(str(path))
        return tensors


def _names(pointer: Mapping[str, Any] | None) -> set[str]:
    """The objects that a pointer names."""
    return set() if pointer is None else set(pointer["tensors"].values())
