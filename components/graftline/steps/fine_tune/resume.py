"""Checkpoints, straight to the store: what is written is whole, and a killed run finds it again.

    checkpoints/<key>/latest.json             the pointer, changed by compare-and-swap
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

from graftline.errors import IntegrityError, PreconditionFailed, StoreNotFound
from graftline.files import sha256_of
from graftline.progress import message
from graftline.storage.base import Store

SCHEMA_VERSION = 1
POINTER = "latest.json"


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
    """The checkpoints of one training, under its key.

    Args:
        store: Where they are kept.
        key: Digest of everything that the training depends on: equal key, equal training.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store = store.child(f"checkpoints/{key}")
        self._version: str | None = None
        self._named: dict[str, str] = {}  # group -> object, as the pointer has it

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint, or None. A damaged one is told and left: training begins anew.

        Raises:
            StoreError: The store cannot be read.
        """
        for _ in range(3):  # another run may replace it between the pointer and the tensors
            try:
                raw, self._version = self._store.read_versioned(POINTER)
            except StoreNotFound:
                return None
            try:
                return self._read(raw)
            except StoreNotFound:
                continue
            except (IntegrityError, SafetensorError, ValueError, KeyError) as error:
                message("The checkpoint cannot be used (%s); training begins anew.", error)
                return None
        message("The checkpoint's tensors are not in the store; training begins anew.")
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the tensors, then move the pointer, then remove what it no longer names.

        Where another process trains under the same key, its pointer stands if it is further on:
        both compute the same.
        """
        named = {
            group: self._upload(tensors) for group, tensors in checkpoint.tensors.items() if tensors
        }
        pointer = {
            "schema_version": SCHEMA_VERSION,
            "scalars": checkpoint.scalars,
            "tensors": named,
        }
        data = json.dumps(pointer, sort_keys=True).encode()
        try:
            self._version = self._store.write_if_match(POINTER, data, self._version)
        except PreconditionFailed:
            if not self._overtake(data, checkpoint.scalars["steps_done"]):
                return
        before, self._named = set(self._named.values()), named
        for name in before - set(named.values()):
            self._store.delete(name)

    def _overtake(self, data: bytes, steps: int) -> bool:
        """Replace another process's pointer if it is behind; whether that was done."""
        raw, version = self._store.read_versioned(POINTER)
        try:
            theirs = json.loads(raw)["scalars"]["steps_done"]
        except (ValueError, KeyError):
            theirs = -1
        if theirs >= steps:
            message("Another process trains the same model and is further on; its state is kept.")
            self._version = version
            return False
        self._version = self._store.write_if_match(POINTER, data, version)
        return True

    def _read(self, raw: bytes) -> Checkpoint | None:
        pointer = json.loads(raw)
        if pointer["schema_version"] != SCHEMA_VERSION:
            message(
                "The checkpoint has schema version %s, not %s; training begins anew.",
                pointer["schema_version"],
                SCHEMA_VERSION,
            )
            return None
        tensors = {group: self._download(name) for group, name in pointer["tensors"].items()}
        self._named = dict(pointer["tensors"])
        return Checkpoint(pointer["scalars"], tensors)

    def _upload(self, tensors: Mapping[str, Tensor]) -> str:
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with tempfile.TemporaryDirectory(prefix="graftline-checkpoint-") as folder:
            path = Path(folder) / "tensors"
            save_file(own, str(path))
            name = f"{sha256_of(path)}.safetensors"
            if name not in self._named.values():
                self._store.upload(path, name)
        return name

    def _download(self, name: str) -> dict[str, Tensor]:
        with tempfile.TemporaryDirectory(prefix="graftline-checkpoint-") as folder:
            path = Path(folder) / "tensors"
            self._store.download(name, path)
            if f"{sha256_of(path)}.safetensors" != name:
                raise IntegrityError(f"{name} is not what its name says")
            tensors: dict[str, Tensor] = load_file(str(path))
        return tensors
