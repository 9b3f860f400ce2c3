"""Steps of a local run start in a warm process: libraries are imported once, then forked.

A step's process spends seconds on importing PyTorch, timm, MLflow and scikit-learn; six steps
spend it six times. A server process imports them once, in the order in which the steps need them,
and forks for each task; a task that comes early starts with what is there. Each step is still a
process of its own, with its own log and its own failure. ``GRAFTLINE_COLD=1`` turns this off.

Steps that reuse an earlier run's results need no PyTorch, and must not wait for its import: where
the store has results, the large libraries are imported only once a step has computed something.
"""

import array
import atexit
import contextlib
import gc
import importlib
import itertools
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from graftline.steps.runtime import read_result
from graftline.tracking.client import set_client_defaults

COLD_VARIABLE = "GRAFTLINE_COLD"
IMPORT = "import"  # the key of a request to import the large libraries
OPEN = "open"  # the key of a request to open MLflow's database
CALL = "call"  # the key of a request to call a function
BESIDE = "beside"  # the key of a request to call one beside the steps, once all is imported
ANSWER = "\0answer "  # before what a called function returned
REUSABLE = ("fit_head", "fine_tune", "evaluate", "export_onnx")
MLFLOW = (  # first: the checks before a run wait for it
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)
LIGHT = (  # what every step needs, and what those need that compute nothing
    *MLFLOW,
    "kfp.dsl.executor_main",
    "graftline.steps.ingest.step",
    "graftline.steps.watch.step",
    "graftline.steps.extract_features.step",
    "graftline.steps.evaluate.same_model",
    "graftline.steps.promote.step",
)
LARGE = (  # in the order in which the steps of a run need them
    "torch",
    "timm",  # of which extract_features makes the network
    "graftline.steps.fit_head.step",
    "sklearn.linear_model",
    "graftline.steps.evaluate.step",
    "graftline.steps.export_onnx.step",
    "mlflow.onnx",
    # Saving a model asks which package each module is of, for which all of them are looked
    # through: half a second. Private; where it is gone, the step looks by itself.
    "mlflow.utils.requirements_utils:_init_packages_to_modules_map",
)
NEEDS = {  # the last of them that a step needs: without it, it would import the same again
    "extract_features": "timm",
    "extract_share": "timm",
    "fit_head": "sklearn.linear_model",
    "fine_tune": "sklearn.linear_model",
    "evaluate": "graftline.steps.evaluate.step",
    "export_onnx": "graftline.steps.export_onnx.step",
}
FUNCTION = "--function_to_execute"  # of KFP's executor
Request = tuple[dict[str, Any], int, int]  # with descriptors for its output and status
_LENGTH = struct.Struct("<I")
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

    def answer(self) -> Any:
        """What a called function returned; None where it did not."""
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
    """The server process, as the command line sees it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._asked = False
        self._import_next = False
        self._opened: set[str] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
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
            head = _LENGTH.pack(len(data))
            if descriptors:
                socket.send_fds(self._socket, [head], descriptors)
            else:
                self._socket.sendall(head)
            self._socket.sendall(data)

    def close(self) -> None:
        """Let the server end; steps that still run are left to themselves."""
        self._socket.close()
        self._process.kill()  # it may be in the middle of an import of seconds
        self._process.wait()


def _where(environment: dict[str, str]) -> dict[str, Any]:
    """The environment and folder of a fork."""
    return {"environment": environment, "folder": str(Path.cwd())}


@contextlib.contextmanager
def warm_process(*, wanted: bool = True) -> Iterator[WarmServer | None]:
    """A warm process, where this machine can and the user has not turned it off."""
    cold = os.environ.get(COLD_VARIABLE, "") not in ("", "0")
    if not wanted or cold or not hasattr(os, "pidfd_open"):
        yield None
        return
    server = WarmServer()
    try:
        yield server
    finally:
        server.close()


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


def serve(connection: socket.socket) -> None:
    """Import the libraries, forking for each request in between, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the steps and the command
    gc.disable()  # what is imported stays; looking through it again and again took a quarter longer
    os.environ["_KFP_RUNTIME"] = "true"  # as in a step: kfp without its client and compiler
    set_client_defaults()
    children: dict[int, tuple[int, int]] = {}
    wanted: list[str | Request] = list(LIGHT)

    def begin(request: Request) -> None:
        of_others = [status for _, status in children.values()]
        for waiting in wanted:
            if not isinstance(waiting, str):
                of_others += waiting[1:]
        pid, status = _fork(connection, of_others, *request)
        handle = os.pidfd_open(pid)
        children[handle] = (pid, status)
        selector.register(handle, selectors.EVENT_READ)

    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(0 if wanted else None):
                if key.fileobj is connection:
                    request = _receive(connection)
                    if request is None:
                        return
                    _enlist(wanted, request)
                else:
                    selector.unregister(key.fileobj)
                    _report(key.fd, *children.pop(key.fd))
            if wanted:
                first = wanted.pop(0)
                if not isinstance(first, str):
                    begin(first)
                    continue
                with contextlib.suppress(Exception):  # the step that needs it says what is wrong
                    _make_ready(first)


def _enlist(wanted: list[str | Request], request: Request) -> None:
    """Put what a request asks for among what is wanted."""
    asked = request[0]
    if IMPORT in asked:
        wanted += LARGE
    elif OPEN in asked:
        wanted.insert(0, asked[OPEN])
    elif BESIDE in asked:
        wanted.append(request)
    elif CALL in asked:
        wanted.insert(_after_mlflow(wanted), request)
    else:
        wanted.insert(_after_needs(wanted, asked["arguments"]), request)


def _after_mlflow(wanted: list[str | Request]) -> int:
    """Where a call belongs among what is wanted: behind MLflow and its open database."""
    needed = [
        position
        for position, each in enumerate(wanted)
        if isinstance(each, str) and (each in MLFLOW or each.startswith("sqlite:"))
    ]
    return max(needed, default=-1) + 1


def _after_needs(wanted: list[str | Request], arguments: list[str]) -> int:
    """Where a component belongs among what is wanted: behind what it needs of that."""
    named = dict(itertools.pairwise(arguments)).get(FUNCTION, "")
    needed = NEEDS.get(named, "")
    return wanted.index(needed) + 1 if needed in wanted else 0


def _make_ready(name: str) -> None:
    """Import a module, call a ``module:function``, or open the MLflow database of a URI."""
    if "://" not in name and not name.startswith("sqlite:"):
        module, _, function = name.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
        return
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from graftline.tracking.client import connect

    try:
        client = connect(name)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    finally:  # a connection to SQLite must not be carried over a fork
        for engines in (SqlAlchemyStore._engine_map, RegistryStore._engine_map):
            for engine in engines.values():
                engine.dispose()


def _receive(connection: socket.socket) -> Request | None:
    """A request with the descriptors for its output and status; of an import, without them."""
    head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 2)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            return None
        data += piece
    output, status = array.array("i", descriptors) if descriptors else (-1, -1)
    return json.loads(data), output, status


def _fork(
    connection: socket.socket,
    of_others: list[int],
    request: dict[str, Any],
    output: int,
    status: int,
) -> tuple[int, int]:
    """Start a request's work.

    Args:
        connection: To the command line.
        of_others: Descriptors of other requests: who holds one keeps its reader waiting.
        request: What to do.
        output: Where it prints.
        status: Where its exit code goes.

    Returns:
        Process id, and the descriptor for its exit code.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            connection.close()
            for descriptor in of_others:
                os.close(descriptor)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = _work(request)
        finally:
            _tell(status, code)  # the server may be gone
            os._exit(code)
    os.close(output)
    return pid, status


def _report(handle: int, pid: int, status: int) -> None:
    os.close(handle)
    _, state = os.waitpid(pid, 0)
    _tell(status, os.waitstatus_to_exitcode(state))  # a killed fork could not
    os.close(status)


def _tell(status: int, code: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(status, f"{code}\n".encode())


def _work(request: dict[str, Any]) -> int:
    """One task in the fork, as ``python -m kfp.dsl.executor_main`` would run it."""
    os.environ.clear()
    os.environ.update(request["environment"], _KFP_RUNTIME="true")
    os.chdir(request["folder"])
    for inherited in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        # What the server holds is not for a fork to take down: of PyTorch's operators that is
        # 0.2 s at the end of every step, and a temporary folder is still the server's.
        inherited.atexit = False
    gc.freeze()  # what the server imported stays shared with it
    gc.enable()
    tempfile.tempdir = None
    code = 0
    try:
        if CALL in request:
            module, _, function = request[CALL].partition(":")
            answer = getattr(importlib.import_module(module), function)(request["argument"])
            print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)
            return 0
        from kfp.dsl.executor_main import executor_main

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / COMPONENT
            path.write_text(request["source"], encoding="utf-8")
            sys.argv = ["executor_main", "--component_module_path", str(path)]
            sys.argv += request["arguments"]
            executor_main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at an exit
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return code


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
