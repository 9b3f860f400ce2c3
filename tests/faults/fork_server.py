"""A process that has imported everything and forks: no point of a campaign pays for imports.

Under strace each fork is watched from its first own instruction on, so that the K-th system call is
the K-th of the code under test::

    with ForkServer(["graftline.steps.ingest.step"]) as server:
        done = server.run(CODE, [], folder, strace=["-e", "inject=fsync:error=EIO:when=3"])
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SERVER = """
import importlib, json, os, sys, traceback

for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writable)
        output = os.open(order["output"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(number, target)
        os.environ.update(order["environment"])
        sys.argv = ["-c", *order["arguments"]]
        os.read(readable, 1)
        code = 0
        try:
            exec(compile(order["code"], "<code>", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)
    os.close(readable)
    print(pid, flush=True)
    sys.stdin.readline()
    os.write(writable, b"x")
    os.close(writable)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
TIMEOUT = 240


@dataclass(frozen=True)
class Done:
    """How a fork ended.

    Attributes:
        returncode: As of ``subprocess``: negative for a signal.
        output: Standard output and standard error together.
    """

    returncode: int
    output: str


class Fork:
    """A fork at work, to be watched and killed as a process of ``subprocess`` is."""

    def __init__(self, pid: int, output: Path, ends: Callable[[], int]) -> None:
        self.pid = pid
        self._output = output
        self._code: int | None = None
        self._late = threading.Timer(TIMEOUT, self.kill)
        self._late.daemon = True
        self._late.start()
        self._thread = threading.Thread(target=self._follow, args=(ends,), daemon=True)
        self._thread.start()

    def _follow(self, ends: Callable[[], int]) -> None:
        try:
            self._code = ends()
        finally:
            self._late.cancel()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        self._thread.join(timeout)
        assert self._code is not None, f"it has not ended within {timeout} s"
        return self._code

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def lines(self) -> Iterator[str]:
        """What it prints, line by line, until it has ended."""
        text = ""
        with self._output.open(errors="replace") as stream:
            while True:
                ended = self._code is not None
                *whole, text = (text + stream.read()).split("\n")
                yield from whole
                if ended:
                    return
                time.sleep(0.005)

    def done(self) -> Done:
        """How it ended, once it has."""
        return Done(self.wait(), self._output.read_text(errors="replace"))


class ForkServer:
    """Runs code in forks, one after the other."""

    def __init__(self, imports: Sequence[str]) -> None:
        # The real binary: a shim of pyenv would be traced, or killed, in its place.
        python = os.path.realpath(sys.executable)
        packages = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [python, "-B", "-c", SERVER, json.dumps(list(imports))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1"},
        )
        assert self._answer() == "ready"

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def run(
        self,
        code: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        strace: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        begun: Callable[[int], None] | None = None,
    ) -> Done:
        """Run code in a fork until it ends, or is ended; arguments as of :meth:`start`."""
        fork = self.start(
            code, arguments, folder, strace=strace, environment=environment, begun=begun
        )
        return fork.done()

    def start(
        self,
        code: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        strace: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        begun: Callable[[int], None] | None = None,
    ) -> Fork:
        """Run code in a fork; the next one must wait for its end.

        Args:
            code: Sees ``sys.argv``.
            arguments: What stands there.
            folder: Holds its output, and the trace where ``strace`` writes none of its own.
            strace: Options; None traces nothing.
            environment: More variables.
            begun: Is given the fork's process number before it starts.
        """
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "output"
        output.write_bytes(b"")
        order = {"code": code, "arguments": list(arguments), "output": str(output)}
        self._tell(json.dumps({**order, "environment": dict(environment or {})}))
        pid = int(self._answer())
        tracer = _attached(pid, strace) if strace is not None else None
        if begun is not None:
            begun(pid)
        self._tell("go")

        def ends() -> int:
            status = int(self._answer())
            if tracer is not None:
                tracer.wait(timeout=30)
            return status

        return Fork(pid, output, ends)


def _attached(pid: int, options: Sequence[str]) -> subprocess.Popen[str]:
    """An strace that watches a process from now on."""
    strace = shutil.which("strace")
    assert strace is not None
    tracer = subprocess.Popen(
        [strace, "-f", *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    assert "attached" in line, line
    threading.Thread(target=tracer.stderr.read, daemon=True).start()
    return tracer
