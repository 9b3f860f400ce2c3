"""Arrays that are computed once and read in every epoch, in one file on the node's own disk."""

import os
import shutil
import tempfile
import threading
from collections.abc import Hashable

import torch
from torch import Tensor

MOST_BYTES = 64 << 30
SHARE_OF_FREE = 0.5  # of the disk's free space: other steps' files need room too


class ArrayFile:
    """A bounded file of tensors by key. Safe to use from several threads.

    It is read and written, not mapped: a full disk is an error at the write then, where a mapped
    file would end the process with SIGBUS; pages in memory are as fast either way.

    Args:
        most: Bytes it may take; what comes later is not kept, and computed each time.
    """

    def __init__(self, most: int | None = None) -> None:
        self._file = tempfile.TemporaryFile(prefix="graftline-arrays-")  # noqa: SIM115
        free = shutil.disk_usage(tempfile.gettempdir()).free
        self._most = min(MOST_BYTES, int(free * SHARE_OF_FREE)) if most is None else most
        self._end = 0
        self._there: dict[Hashable, tuple[int, torch.Size, torch.dtype]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Tensor | None:
        """The tensor, in memory of its own, or None where it was not kept."""
        found = self._there.get(key)
        if found is None:
            return None
        offset, shape, dtype = found
        count = shape.numel() * dtype.itemsize
        raw = bytearray(count)
        if os.preadv(self._file.fileno(), [raw], offset) != count:
            return None
        return torch.frombuffer(raw, dtype=dtype).reshape(shape)

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep a tensor of the CPU, if there is room."""
        tensor = tensor.detach().contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        with self._lock:
            if key in self._there or self._end + len(data) > self._most:
                return
            offset, self._end = self._end, self._end + len(data)
        try:
            written = os.pwrite(self._file.fileno(), data, offset)
        except OSError:  # a full disk costs speed, not the training
            self._most = 0
            return
        if written == len(data):
            self._there[key] = (offset, tensor.shape, tensor.dtype)

    def kept(self) -> list[Hashable]:
        """The keys of what is kept, in the order in which it was put."""
        return list(self._there)

    def __len__(self) -> int:
        return len(self._there)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
