"""Outputs of the frozen blocks in the store, so that another training need not compute them.

::

    frozen-outputs/<fingerprint>/<sha256>.safetensors    tensors by image id and view

A retried training, the trials of a search and a training with another learning rate all see the
same images through the same frozen blocks. Written and read on CPUs alone: a GPU computes them
faster than a store gives them. What is damaged or cannot be read is computed again.
"""

import hashlib
import json
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from graftline.errors import IntegrityError, StoreError
from graftline.images.preprocessing import Preprocessing
from graftline.progress import message
from graftline.steps.fine_tune.inputs.array_file import ArrayFile
from graftline.steps.fine_tune.inputs.batches import HELD_OUT, LOWER, LOWER_BATCH
from graftline.steps.fine_tune.network.precision import autocasts
from graftline.steps.fine_tune.recipe import Settings
from graftline.storage import commit
from graftline.storage.base import Store

PREFIX = "frozen-outputs"
VERSION = 2  # counts changes to crops, policies and the lower half that change its output
PART_BYTES = 32 << 20


def fingerprint(
    frozen: Mapping[str, str],
    preprocessing: Preprocessing,
    settings: Settings,
    device: torch.device,
    *,
    engine: bool,
) -> str:
    """Digest of everything that the outputs depend on besides the image.

    Args:
        frozen: Digests of the frozen tensors by name.
        preprocessing: Of the network.
        settings: Of the training.
        device: Where it runs.
        engine: Whether OpenVINO computes them.
    """
    identity = {
        "version": VERSION,
        "frozen": dict(frozen),
        "preprocessing": preprocessing.to_dict(),
        "bf16": autocasts(device, settings.precision),
        "augment": [settings.augment, settings.flip, settings.policy, settings.seed],
        "batch": LOWER_BATCH,
        "torch": torch.__version__,
        "openvino": version("openvino") if engine else None,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


class KeptOutputs:
    """The outputs of one fingerprint, between a training's file on the disk and the store.

    Args:
        store: The store.
        name: Of :func:`fingerprint`.
        ids: Image ids by manifest row.
        arrays: The training's file.
    """

    def __init__(self, store: Store, name: str, ids: Sequence[str], arrays: ArrayFile) -> None:
        self._store = store.child(f"{PREFIX}/{name}")
        self._ids, self._arrays = ids, arrays
        self._stored: set[Hashable] = set()

    def load(self) -> int:
        """Copy what the store has of these images to the disk; how many outputs."""
        rows = {image: row for row, image in enumerate(self._ids)}
        try:
            for info in self._store.list():
                for name, tensor in self._read(info.key).items():
                    image, _, view = name.partition("/")
                    if image in rows:
                        key = (LOWER, rows[image], view if view == HELD_OUT else int(view))
                        self._arrays.put(key, tensor)
                        self._stored.add(key)
        except (StoreError, OSError) as error:
            message("WARNING: kept outputs of the frozen blocks cannot be read: %s", error)
        if self._stored:
            message("%d outputs of the frozen blocks come from the store.", len(self._stored))
        return len(self._stored)

    def keep(self) -> None:
        """Write what was computed since the last time."""
        new = [key for key in self._arrays.kept() if key not in self._stored]
        try:
            part: dict[str, Tensor] = {}
            size = 0
            for key in new:
                if isinstance(key, tuple) and key[0] == LOWER:
                    tensor = self._arrays.get(key)
                    assert tensor is not None
                    part[f"{self._ids[key[1]]}/{key[2]}"] = tensor
                    size += tensor.nbytes
                self._stored.add(key)
                if size >= PART_BYTES:
                    self._write(part)
                    part, size = {}, 0
            self._write(part)
        except (StoreError, OSError) as error:
            message("WARNING: outputs of the frozen blocks were not kept: %s", error)

    def _write(self, part: Mapping[str, Tensor]) -> None:
        if not part:
            return
        with tempfile.TemporaryDirectory(prefix="graftline-outputs-") as folder:
            path = Path(folder) / "part"
            save_file(dict(part), str(path))
            commit.put_file(self._store, path, f"{commit.ANY}.safetensors", repair=True)

    def _read(self, key: str) -> Mapping[str, Tensor]:
        """One part; nothing, if it is not what its name says."""
        with tempfile.TemporaryDirectory(prefix="graftline-outputs-") as folder:
            path = Path(folder) / "part"
            try:
                commit.fetch_file(self._store, key, key.removesuffix(".safetensors"), path)
                return load_file(str(path))
            except (IntegrityError, SafetensorError):
                pass
        message("WARNING: %s/%s is damaged; its outputs are computed again.", PREFIX, key)
        return {}
