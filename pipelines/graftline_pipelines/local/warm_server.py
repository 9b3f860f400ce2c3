"""The warm process itself: it imports the libraries of the steps and forks for each of them.

What is wanted stands in one list, in order: modules to import, and requests that wait for some of
them. See :mod:`graftline_pipelines.local.warm` for the other end.
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
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from graftline.tracking.client import set_client_defaults
from graftline_pipelines.local import warm_place
from graftline_pipelines.local.warm import (
    ANSWER,
    BESIDE,
    CALL,
    COMPONENT,
    IMPORT,
    INTERRUPT,
    LENGTH,
    OPEN,
)
from graftline_pipelines.local.warm_libraries import (
    CODE,
    DATABASE,
    LARGE,
    LIGHT,
    MLFLOW,
    NEEDS,
    QUERIES,
    REST,
    make_ready,
)

FUNCTION = "--function_to_execute"  # of KFP's executor
Request = tuple[dict[str, Any], int, int]  # with descriptors for its output and status


class Server:
    """Serves one command after the other."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, tuple[int, int]] = {}  # by pidfd: process, pipe for its code
        self._databases: dict[str, tuple[int, int] | None] = {}

    def serve(self, connection: socket.socket) -> None:
        """Import the libraries, forking for each request in between, until the other end closes."""
        wanted: list[str | Request] = list(LIGHT)
        self._selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(0 if wanted else None):
                if key.fileobj is connection:
                    request = _receive(connection)
                    if request is None:
                        self._leave(connection, wanted)
                        return
                    _enlist(wanted, request)
                else:
                    self._ended(key.fd)
            if wanted:
                first = wanted.pop(0)
                if not isinstance(first, str):
                    self._begin(connection, wanted, first)
                    continue
                with contextlib.suppress(Exception):  # the step that needs it says what is wrong
                    make_ready(first)
                if first.startswith(DATABASE):
                    self._databases[first] = _file_of(first)

    def interrupt(self, *_: object) -> None:
        """Hand Ctrl-C on to what runs."""
        for handle in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGINT)

    def still_good(self) -> bool:
        """Whether MLflow's databases are the files that were opened, with the tables made then."""
        return all(_file_of(uri) == file for uri, file in self._databases.items())

    def _begin(
        self, connection: socket.socket, wanted: list[str | Request], request: Request
    ) -> None:
        of_others = [status for _, status in self._children.values()]
        for waiting in wanted:
            if not isinstance(waiting, str):
                of_others += waiting[1:]
        pid, status = _fork(connection, of_others, *request)
        handle = os.pidfd_open(pid)
        self._children[handle] = (pid, status)
        self._selector.register(handle, selectors.EVENT_READ)

    def _ended(self, handle: int) -> None:
        self._selector.unregister(handle)
        _report(handle, *self._children.pop(handle))

    def _leave(self, connection: socket.socket, wanted: list[str | Request]) -> None:
        """The command has ended: nobody waits for what it asked."""
        self._selector.unregister(connection)
        connection.close()
        for request in wanted:
            if not isinstance(request, str):
                for descriptor in request[1:]:
                    os.close(descriptor)

    def the_rest(self) -> Iterator[Callable[[], None]]:
        """What the next command's forks would do, piece by piece."""
        for name in (*REST, *(f"{QUERIES}{uri}" for uri in self._databases)):
            yield partial(_try_to_make_ready, name)

    def end_children(self) -> None:
        """What a command that is gone left running: it saves what it has, and ends."""
        for handle in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGTERM)
        while self._children:
            for key, _ in self._selector.select():
                self._ended(key.fd)


def main(descriptor: int, address: Path | None, seconds: float) -> None:
    """Serve the command that holds the other end, then those that come to the address.

    Args:
        descriptor: Of the connection.
        address: Where to wait for the next command; None to end with the first.
        seconds: How long to wait each time.
    """
    server = Server()
    signal.signal(INTERRUPT, server.interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the steps and the command
    gc.disable()  # what is imported stays; looking through it again and again took a quarter longer
    os.environ["_KFP_RUNTIME"] = "true"  # as in a step: kfp without its client and compiler
    set_client_defaults()
    connection: socket.socket | None = socket.socket(fileno=descriptor)
    while connection is not None:
        server.serve(connection)
        server.end_children()
        if address is None:
            return
        connection = warm_place.wait(
            address, seconds, meanwhile=server.the_rest(), still_good=server.still_good
        )


def _try_to_make_ready(name: str) -> None:
    with contextlib.suppress(Exception):
        make_ready(name)


def _file_of(uri: str) -> tuple[int, int] | None:
    """Which file a database is: another one under its name is another database."""
    with contextlib.suppress(OSError):
        found = Path(uri.partition("///")[2]).stat()
        return found.st_dev, found.st_ino
    return None


def _enlist(wanted: list[str | Request], request: Request) -> None:
    """Put what a request asks for among what is wanted."""
    asked = request[0]
    if IMPORT in asked:
        wanted += [*LARGE, *REST]
    elif OPEN in asked:
        wanted.insert(0, asked[OPEN])
    elif BESIDE in asked:
        wanted.append(request)
    elif CALL in asked:
        wanted.insert(_after_mlflow(wanted), request)
    else:
        wanted.insert(_after_needs(wanted, asked["arguments"]), request)
        wanted.append(CODE)  # while the first step runs; afterwards it takes no time


def _after_mlflow(wanted: list[str | Request]) -> int:
    """Where a call belongs among what is wanted: behind MLflow and its open database."""
    needed = [
        position
        for position, each in enumerate(wanted)
        if isinstance(each, str) and (each in MLFLOW or each.startswith(DATABASE))
    ]
    return max(needed, default=-1) + 1


def _after_needs(wanted: list[str | Request], arguments: list[str]) -> int:
    """Where a component belongs among what is wanted: behind what it needs of that."""
    named = dict(itertools.pairwise(arguments)).get(FUNCTION, "")
    needed = NEEDS.get(named, "")
    return wanted.index(needed) + 1 if needed in wanted else 0


def _receive(connection: socket.socket) -> Request | None:
    """A request with the descriptors for its output and status; of an import, without them."""
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 2)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
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
            signal.signal(INTERRUPT, signal.SIG_DFL)
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
    main(
        int(sys.argv[1]),
        Path(sys.argv[2]) if sys.argv[2:] else None,
        float(sys.argv[3]) if sys.argv[3:] else 0.0,
    )
