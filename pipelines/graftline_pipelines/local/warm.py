"""Steps of a local run start in a warm process: libraries are imported once, then forked.

A step's process spends seconds on importing PyTorch, timm, MLflow and scikit-learn; six steps
spend it six times. A server process imports them once, in the order in which the steps need them,
and forks for each task; a task that comes early starts with what is there. Each step is still a
process of its own, with its own log and its own failure. ``GRAFTLINE_COLD=1`` turns this off.

Steps that reuse an earlier run's results need no PyTorch, and must not wait for its import: where
the store has results, the large libraries are imported only once a step has computed something.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, TextIO

from graftline.steps.runtime import read_result
from graftline_pipelines.local import warm_place
from graftline_pipelines.local.processes import end_below

COLD_VARIABLE = "GRAFTLINE_COLD"
SERVER = "graftline_pipelines.local.warm_server"
IMPORT = "import"  # the key of a request to import the large libraries
OPEN = "open"  # the key of a request to open MLflow's database
CALL = "call"  # the key of a request to call a function
BESIDE = "beside"  # the key of a request to call one beside the steps, once all is imported
INTERRUPT = signal.SIGUSR1  # to the server: Ctrl-C was pressed
ANSWER = "\0answer "  # before what a called function returned
REUSABLE = ("fit_head", "fine_tune", "evaluate", "export_onnx")
LENGTH = struct.Struct("<I")
COMPONENT = "ephemeral_component.py"  # KFP's name for the file of a lightweight component


class Call:
    """A fork at work: what it prints, and how it ends."""

    def __init__(self, output: TextIO | None, status: BinaryIO | None) -> None:
        self._output, self._status = output, status

    def lines(self) -> Iterator[str]:
        """What it prints, as it comes."""
        if self._output is not None:
            with self._output:
                yield from self._output

    def code(self) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        text = b""
        if self._status is not None:
            with self._status:
                text = self._status.readline()  # of the fork, else of the server
        # Without a word of either both are gone, most often for lack of memory.
        return int(text) if text else -signal.SIGKILL

    def answer(self, within: float | None = None) -> Any:
        """What a called function returned; None where it did not, or prints nothing in time.

        Args:
            within: Seconds to wait; None for as long as it takes. A server in the middle of an
                import begins nothing before its end.
        """
        if self._output is not None and not select.select([self._output], [], [], within)[0]:
            return None
        last = ""
        for line in self.lines():
            last = line
        if self.code() != 0 or not last.startswith(ANSWER):
            return None
        return json.loads(last.removeprefix(ANSWER))

    def close(self) -> None:
        """Listen no longer."""
        for stream in (self._output, self._status):
            if stream is not None:
                stream.close()


class WarmServer:
    """The server process, as the command line sees it.

    Args:
        address: Where one may wait, and where it shall wait afterwards; None for one that ends with
            the command.
        minutes: How long it waits then.
    """

    def __init__(self, address: Path | None = None, minutes: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._asked = False
        self._import_next = False
        self._opened: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self.stays = address is not None and minutes > 0
        waiting = warm_place.find(address) if address is not None else None
        self.waited = waiting is not None
        self.apart = self.waited or self.stays  # Ctrl-C at the terminal does not reach it
        if waiting is not None:
            self._socket, self.pid = waiting.connection, waiting.process
            return
        self._socket, theirs = socket.socketpair()
        stay = [str(address), str(60 * minutes)] if self.stays else []
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", SERVER, str(theirs.fileno()), *stay],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=self.apart,
        )
        self.pid = self._process.pid
        theirs.close()

    def run(self, command: list[str], environment: dict[str, str]) -> int | None:
        """Run a lightweight component in a fork and print what it prints.

        Returns:
            Its exit code, negative for a signal; None where the server is gone and nothing ran.
        """
        source, arguments = component_of(command)
        call = self._begin({"source": source, "arguments": arguments}, environment)
        if self._import_next:
            self.import_large()
        if call is None:
            return None
        for line in call.lines():
            print(line, end="")
        return call.code()

    @contextlib.contextmanager
    def calling(self, function: str, argument: Any) -> "Iterator[Call]":
        """Call ``module:function`` with something that JSON holds, in a fork with MLflow."""
        call = self._begin({CALL: function, "argument": argument}, dict(os.environ))
        try:
            yield call or Call(None, None)
        finally:
            if call is not None:
                call.close()

    def begin_beside(self, function: str, argument: Any) -> None:
        """Call ``module:function`` beside the steps; what comes of it, nobody is told."""
        request = {CALL: function, "argument": argument, BESIDE: True, **_where(dict(os.environ))}
        with open(os.devnull, "r+b") as nowhere, contextlib.suppress(OSError):  # noqa: PTH123
            self._send(request, nowhere.fileno(), nowhere.fileno())

    def _begin(self, request: dict[str, Any], environment: dict[str, str]) -> "Call | None":
        output, their_output = os.pipe()
        status, their_status = os.pipe()
        try:
            self._send({**request, **_where(environment)}, their_output, their_status)
        except OSError:
            os.close(output)
            os.close(status)
            return None
        finally:
            os.close(their_output)
            os.close(their_status)
        return Call(
            open(output, encoding="utf-8", errors="replace"),  # noqa: PTH123 -- a pipe
            open(status, "rb"),  # noqa: PTH123
        )

    def import_large(self) -> None:
        """Let the server import the large libraries too, if it has not begun yet."""
        if not self._asked:
            self._asked = True
            with contextlib.suppress(OSError):  # it is gone: each step imports for itself
                self._send({IMPORT: True})

    def import_large_beside_next(self) -> None:
        """The same once the next component has begun, which would wait for the import else."""
        self._import_next = True

    def open_tracking(self, uri: str) -> None:
        """Let the server open MLflow's database once, which takes each step a third of a second."""
        if uri.startswith("sqlite:") and uri not in self._opened:
            self._opened.add(uri)
            with contextlib.suppress(OSError):
                self._send({OPEN: uri})

    def _send(self, request: dict[str, Any], *descriptors: int) -> None:
        data = json.dumps(request).encode()
        with self._lock:
            head = LENGTH.pack(len(data))
            if descriptors:
                socket.send_fds(self._socket, [head], descriptors)
            else:
                self._socket.sendall(head)
            self._socket.sendall(data)

    def end_steps(self) -> None:
        """End what it has started, within seconds; the server itself goes on."""
        end_below(self.pid)

    def interrupt(self) -> None:
        """Hand Ctrl-C on to the steps, where the terminal does not."""
        if self.apart:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, INTERRUPT)

    def close(self) -> None:
        """Let the server wait for the next run, or end."""
        self._socket.close()
        if self._process is not None and not self.stays:
            self._process.kill()  # it may be in the middle of an import of seconds
            self._process.wait()


def _where(environment: dict[str, str]) -> dict[str, Any]:
    """The environment and folder of a fork."""
    return {"environment": environment, "folder": str(Path.cwd())}


@contextlib.contextmanager
def warm_process(*, wanted: bool = True) -> Iterator[WarmServer | None]:
    """A warm process, where this machine can and the user has not turned it off.

    One that waits here since an earlier run is taken. At a terminal it waits for the next one
    afterwards; see :mod:`graftline_pipelines.local.warm_place`.
    """
    cold = os.environ.get(COLD_VARIABLE, "") not in ("", "0")
    if not wanted or cold or not hasattr(os, "pidfd_open"):
        yield None
        return
    server = WarmServer(warm_place.address(), warm_place.minutes())
    try:
        with _interrupts_to(server):
            yield server
    finally:
        server.close()


@contextlib.contextmanager
def _interrupts_to(server: WarmServer) -> Iterator[None]:
    """Hand each Ctrl-C on to the steps."""
    before = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if not (server.apart and here and callable(before)):
        yield
        return

    def interrupted(number: int, frame: FrameType | None) -> Any:
        server.interrupt()
        return before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def has_computed(run_dir: Path) -> bool:
    """Whether a step of a run found something new, so that the next ones have work to do."""
    for path in (run_dir / "steps").glob("*.json"):
        result = read_result(run_dir, path.stem) or {}
        if path.stem in REUSABLE and result.get("reused_from") is None:
            return True
        if result.get("fetched") or result.get("extracted"):
            return True
    return False


def component_of(command: list[str]) -> tuple[str, list[str]]:
    """The source of a lightweight component, and the arguments of KFP's executor.

    KFP's command is ``sh -ec SCRIPT SOURCE ARGUMENTS...``; the script writes the source to a file.
    """
    script = next(i for i, part in enumerate(command) if f'"$program_path/{COMPONENT}"' in part)
    return command[script + 1], command[script + 2 :]
