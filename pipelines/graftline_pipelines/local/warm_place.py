"""Where a warm process waits for the next run, and how a command finds it.

The import of the libraries is most of an unchanged run. So where a person works, at a terminal, the
warm process of a run waits some minutes for the next one. It is found under an address that names
all that it was born with and a fork cannot change: interpreter, code, folder, environment, limits.
What differs in any of them is another address, and a process of its own. Of all that wait, the last
one stays; it takes memory.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import resource
import selectors
import shutil
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graftline
import graftline_pipelines
from graftline import machine

MINUTES_VARIABLE = "GRAFTLINE_WARM_MINUTES"
MINUTES = 10.0
LEAST_FREE = 4 * 2**30  # bytes of memory
USE, END, YES = b"use\n", b"end\n", b"yes\n"  # what is asked of a waiting process, and its answer
ANSWER_SECONDS = 1.0
CREDENTIALS = struct.Struct("3i")  # process, user, group: what the system says of the other end
OF_ONE_COMMAND = frozenset(  # variables that are of one command, and that no import reads
    {"_", "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL"}
    | {"GRAFTLINE_FRESH", "GRAFTLINE_RUN_DIR", MINUTES_VARIABLE}
)
LIMITS = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE")


@dataclass(frozen=True)
class Waiting:
    """A waiting process that has been found.

    Attributes:
        connection: To it.
        process: Its id.
    """

    connection: socket.socket
    process: int


def minutes() -> float:
    """How long a warm process waits for the next run.

    Not at all where nobody sits at a terminal, or memory is short: it takes about one GB.
    ``GRAFTLINE_WARM_MINUTES`` decides it everywhere.
    """
    text = os.environ.get(MINUTES_VARIABLE, "").strip()
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    person = any(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))
    return MINUTES if person and not os.environ.get("CI") and _free() >= LEAST_FREE else 0.0


def address() -> Path | None:
    """The socket's path for a warm process as this one would start it.

    None where the cache folder cannot hold a socket that belongs to this user alone.
    """
    folder = machine.cache_folder() / "warm"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        alone = found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
        if alone and stat.S_ISDIR(found.st_mode):
            text = json.dumps(_born_with(), sort_keys=True)
            return folder / hashlib.sha256(text.encode()).hexdigest()[:32]
    return None


def find(path: Path) -> Waiting | None:
    """Take the process that waits at an address; None where none does."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(path))
        process, user = _other_end(connection)
        if user == os.getuid():
            connection.sendall(USE)
            if connection.recv(len(YES), socket.MSG_WAITALL) == YES:
                connection.settimeout(None)
                return Waiting(connection, process)
    except OSError:
        pass
    connection.close()
    return None


def wait(
    path: Path,
    seconds: float,
    *,
    meanwhile: Iterable[Callable[[], None]],
    still_good: Callable[[], bool],
) -> socket.socket | None:
    """Wait at an address for a command.

    Args:
        path: The address.
        seconds: How long.
        meanwhile: What is done one after the other until a command comes.
        still_good: Says whether this process still fits what it would be used for.

    Returns:
        The connection to the command; None where none came, or this process is to end.
    """
    end_others(path.parent)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
        beside = path.with_suffix(f".{os.getpid()}")
        listener.bind(str(beside))
        listener.listen()
        beside.rename(path)  # in the place of one that died there
        mine = path.lstat().st_ino
        try:
            return _accepted(listener, time.monotonic() + seconds, iter(meanwhile), still_good)
        finally:
            with contextlib.suppress(OSError):
                if path.lstat().st_ino == mine:
                    path.unlink()
    return None


def end_others(folder: Path) -> None:
    """Ask whatever waits in a folder to end."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:  # nobody is there any more
                path.unlink()
                continue
            connection.sendall(END)


def _accepted(
    listener: socket.socket,
    deadline: float,
    meanwhile: Iterator[Callable[[], None]],
    still_good: Callable[[], bool],
) -> socket.socket | None:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(0):
                work = next(meanwhile, None)
                if work is not None:
                    work()
                    continue
                if not selector.select(left):
                    return None
            connection, _ = listener.accept()
            with contextlib.suppress(OSError):
                connection.settimeout(ANSWER_SECONDS)
                asked = b""
                if _other_end(connection)[1] == os.getuid():
                    asked = connection.recv(len(USE), socket.MSG_WAITALL)
                if asked == END or (asked == USE and not still_good()):
                    connection.close()
                    return None
                if asked == USE:
                    connection.sendall(YES)
                    connection.settimeout(None)
                    return connection
            connection.close()
    return None


def _other_end(connection: socket.socket) -> tuple[int, int]:
    """Process and user of the other end, as the system knows them."""
    size = CREDENTIALS.size
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    process, user, _ = CREDENTIALS.unpack(found)
    return process, user


def _born_with() -> dict[str, Any]:
    """All that a process gets at its start and its forks cannot change."""
    os.umask(mask := os.umask(0))
    return {
        "interpreter": [sys.executable, sys.version, sys.path, sorted(sys.warnoptions)],
        "code": [_state(Path(package.__path__[0])) for package in (graftline, graftline_pipelines)],
        "libraries": [_changed(path) for path in sys.path],
        "machine": [platform.node(), shutil.which("sh"), _text("/proc/sys/kernel/random/boot_id")],
        "folder": str(Path.cwd()),
        "environment": sorted(
            (name, value) for name, value in os.environ.items() if name not in OF_ONE_COMMAND
        ),
        "user": [os.getuid(), os.getgid(), sorted(os.getgroups()), mask],
        "limits": [resource.getrlimit(getattr(resource, name)) for name in LIMITS],
        "share": [
            sorted(os.sched_getaffinity(0)),
            os.getpriority(os.PRIO_PROCESS, 0),
            _text("/proc/self/cgroup"),
        ],
    }


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file of the code."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        for name in sorted(files):
            path = Path(root) / name
            state = path.stat()
            found.append((str(path), state.st_size, state.st_mtime_ns))
    return found


def _changed(path: str) -> int:
    """When something was last put into a folder of libraries, in nanoseconds."""
    with contextlib.suppress(OSError):
        return Path(path).stat().st_mtime_ns if path else 0
    return 0


def _free() -> int:
    """Memory that is left on this machine, in bytes."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"))
    return 1024 * int(found[1]) if found else 0


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""
