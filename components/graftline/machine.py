"""What this machine is and may use: processor, cores, and a folder to remember things in."""

import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from graftline.errors import StoreReadOnly
from graftline.files import write_atomic

CPU_ENGINES = ("onnxruntime", "openvino", "torch")  # libraries that run a network on a CPU
CGROUPS = "/sys/fs/cgroup"
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # the last one is how Arm calls it

# Where drivers of what PyTorch calls CUDA show themselves: NVIDIA, the same under WSL and on
# Jetson, and AMD.
CUDA_SIGNS = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/kfd")
_OUT_OF_MEMORY = (
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate",
    "out of memory",
    "status_alloc_failed",  # cuBLAS and cuDNN
)


def cores() -> int:
    """Processor cores that this process may use, container limits included."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _container_quota()
    return max(1, min(usable or 1, quota or usable or 1))


def cache_folder() -> Path:
    """Where things are kept that can be made again: ``$XDG_CACHE_HOME/graftline``.

    Falls back to the temporary folder where the home cannot be written to.
    """
    from platformdirs.unix import Unix  # here: a served model needs nothing but ONNX Runtime

    ensure_home()
    # The same folder on every system, as PyTorch and the Hugging Face Hub have theirs.
    for folder in (Unix("graftline").user_cache_path, Path("~/.cache/graftline").expanduser()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return _temporary_home()


def ensure_home() -> None:
    """Give a user whom the system does not know a home, as many libraries ask for one.

    Kubernetes and OpenShift run containers under ids that no file of users names, and may set no
    ``HOME``.
    """
    try:
        Path("~").expanduser()
    except RuntimeError:
        try:
            os.environ["HOME"] = str(_temporary_home())
        except StoreReadOnly:  # what only reads needs none
            os.environ["HOME"] = "/"


def _temporary_home() -> Path:
    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise no_temporary_folder(error) from error
    folder = Path(parent) / f"graftline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def no_temporary_folder(error: FileNotFoundError) -> StoreReadOnly:
    """The error for a machine on which nothing can be written for a while."""
    return StoreReadOnly(
        "There is no folder for temporary files.",
        why=f"{error.strerror}.",
        fix="Set TMPDIR to a folder that this user can write to.",
    )


@lru_cache
def processor() -> str:
    """The processor's name and the instruction sets that matter for speed."""
    model, flags = platform.machine(), _flags()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    wide = sorted(
        flag for flag in flags if flag.startswith(("avx", "amx", "sve")) or flag in BF16_FLAGS
    )
    return f"{model}; {' '.join(wide)}"


@lru_cache
def has_bf16() -> bool:
    """Whether the processor computes in bfloat16 itself."""
    return bool(BF16_FLAGS & _flags())


@lru_cache
def has_cuda() -> bool:
    """Whether PyTorch sees a CUDA device; where there is no driver, it is not even imported."""
    if sys.platform == "linux" and not any(Path(sign).exists() for sign in CUDA_SIGNS):
        return False
    import torch

    return torch.cuda.is_available()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library ran out of memory, of this machine or of a GPU."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    if isinstance(error, SystemError) and "without setting an exception" in text:
        return True  # CPython 3.11 that finds no memory for the frame of a Python function
    return isinstance(error, RuntimeError | OSError) and any(
        sign in text for sign in _OUT_OF_MEMORY
    )


def remembered(kind: str, key: dict[str, Any]) -> dict[str, Any] | None:
    """What :func:`remember` kept under this key; None where nothing can be read."""
    try:
        content = json.loads(_memory(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def remember(kind: str, key: dict[str, Any], content: dict[str, Any]) -> None:
    """Keep a small fact about this machine; a full or read-only disk only costs the memory."""
    path = _memory(kind, key)
    try:
        write_atomic(path, json.dumps(content, indent=1).encode())
    except OSError:
        return


def make_room(folder: Path, most: int) -> None:
    """Remove the files of a folder that were used least lately, until it holds ``most`` bytes.

    The newest file stays whatever its size. Several processes may do so at once.
    """
    with contextlib.suppress(OSError):
        found = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
        found.sort(key=lambda each: max(each[1].st_atime, each[1].st_mtime))
        size = sum(stat.st_size for _, stat in found)
        for path, stat in found[:-1]:
            if size <= most:
                return
            path.unlink(missing_ok=True)
            size -= stat.st_size


def _memory(kind: str, key: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / kind / f"{digest}.json"


def _container_quota() -> int | None:
    """Cores that a container's limit allows, rounded up; None without a limit."""
    found = []
    for folder, version in _cgroups():
        if version == 2:
            quota, _, period = _first_line(f"{folder}/cpu.max").partition(" ")
        else:
            quota = _first_line(f"{folder}/cpu.cfs_quota_us")  # -1 without a limit
            period = _first_line(f"{folder}/cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            found.append(-(-int(quota) // int(period)))
    return min(found, default=None)


def _cgroups() -> Iterator[tuple[str, int]]:
    """Folders that may hold this process's limits of the processor, each with its version.

    A limit counts for all groups below it. A container sees its own group as the root, so the
    path that the kernel names need not exist there.
    """
    mounts = {"": (CGROUPS, 2), "cpu": (f"{CGROUPS}/cpu", 1)}
    yield from mounts.values()
    for line in _lines("/proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in {"", "cpu"} & set(controllers.split(",")):
            root, version = mounts[name]
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(1, len(parts) + 1):
                yield "/".join([root, *parts[:depth]]), version


def _first_line(path: str) -> str:
    lines = _lines(path)
    return lines[0].strip() if lines else ""


@lru_cache
def _flags() -> frozenset[str]:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
