"""What this machine, or this pod, has: disk, memory, shared memory, GPU, engines."""

import importlib.util
import os
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from graftline import machine
from graftline.steps.doctor.findings import Examination, Problem

GIB = 2**30
DISK_LEAST, DISK_NOTE = 1 * GIB, 10 * GIB
MEMORY_LEAST, MEMORY_NOTE = 1 * GIB, 4 * GIB
SHARED_NOTE = GIB // 4  # Docker's default of 64 MiB is too little for workers that hand over images
SHARED = "/dev/shm"  # noqa: S108 -- where shared memory is, not a temporary file
ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def examine_machine(found: Examination, *, wants_gpu: bool = False) -> None:
    """Probe the machine that this runs on."""
    found.probe("machine", "name who runs", _who)
    found.probe("machine", "measure the free disk", _disk)
    found.probe("machine", "measure the memory", _memory)
    found.probe("machine", f"measure {SHARED}", _shared)
    found.probe("machine", "look for a GPU", lambda: _gpu(wants_gpu))
    found.probe("machine", "look for engines", _engines)


def _who() -> str:
    import graftline

    folder = machine.cache_folder()
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"user {os.getuid()}, {machine.cores()} cores, Python {python}, "
        f"Graftline {graftline.__version__}, caches in {folder}"
    )


def _disk() -> str:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    came = f"{free / GIB:.1f} GiB free in {folder}"
    if free < DISK_NOTE:
        fix = "Free space there, set TMPDIR to a larger disk, or give the pool a `disk`."
        raise Problem(came, fix, note=free >= DISK_LEAST)
    return came


def _memory() -> str:
    most = _memory_limit()
    came = f"{most / GIB:.1f} GiB"
    if most < MEMORY_NOTE:
        raise Problem(came, "Give the pool more `memory`.", note=most >= MEMORY_LEAST)
    return came


def _memory_limit() -> int:
    """Bytes that this process may use: the container's limit, else the machine's memory."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (Path(machine.CGROUPS) / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return min(found)


def _shared() -> str:
    if not Path(SHARED).is_dir():
        raise Problem("there is none", "Nothing, unless fine-tuning fails to start.", note=True)
    size = shutil.disk_usage(SHARED).total
    came = f"{size / GIB:.2f} GiB"
    if size < SHARED_NOTE:
        raise Problem(
            came,
            "Fine-tuning hands images between processes there: give the pool `shm: 2Gi`, or the "
            "container --shm-size.",
            note=True,
        )
    return came


def _gpu(wanted: bool) -> str:
    if machine.has_cuda():
        import torch

        count = torch.cuda.device_count()
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
        torch.ones(8, device="cuda").sum().item()  # a driver may be seen and still not work
        return names
    if wanted:
        raise Problem(
            "none is seen, though this pool asks for an accelerator",
            "Check the node's driver and device plugin, and that the image is graftline-gpu.",
        )
    return "none"


def _engines() -> str:
    found = []
    for name, package in ENGINES.items():
        if importlib.util.find_spec(name) is None:
            continue
        try:
            found.append(f"{name} {version(package)}")
        except PackageNotFoundError:
            found.append(name)
    if not found:
        raise Problem(
            "none: no image can go through a network",
            "Install graftline with its dependencies: pip install graftline.",
        )
    return ", ".join(found)
