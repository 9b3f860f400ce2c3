"""A thread that dies for lack of memory ends the process, rather than leave others waiting for it.

``Thread.start`` waits until the new thread has said that it runs. One that finds no memory for its
first statements never says so; CPython mentions it to ``sys.unraisablehook``, and the step hung in
one of 16 starved runs. A worker of ``concurrent.futures`` that fails outside of its work only logs
it, and whoever waits for the result waits for ever.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from typing_extensions import override

RESERVE = 2 * 2**20  # bytes, given back so that the cause can be printed
POOLS = "concurrent.futures"  # the logger of its workers
End = Callable[[MemoryError], object]


class _Lost(logging.Filter):
    """Sees what a worker logs as it dies."""

    def __init__(self, lost: Callable[[BaseException | None], None]) -> None:
        super().__init__()
        self._lost = lost

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            self._lost(record.exc_info[1])
        return True


@contextmanager
def lost_threads(end: End) -> Iterator[None]:
    """End the process where a thread that others wait for dies for lack of memory.

    Args:
        end: Says so, within this process; exit code 1 follows whatever it does.
    """
    reserve = [bytearray(RESERVE)]
    ending = threading.Lock()
    unraisable, uncaught = sys.unraisablehook, threading.excepthook

    def lost(error: BaseException | None) -> None:
        if not isinstance(error, MemoryError):
            return
        try:
            reserve.clear()
            if ending.acquire(blocking=False):  # else a second one, most often of the end itself
                end(error)
        finally:
            os._exit(1)

    def on_unraisable(failure: Any) -> None:
        if failure.err_msg and "thread started by" in failure.err_msg:
            lost(failure.exc_value)
        unraisable(failure)

    def on_uncaught(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and not failure.thread.daemon:  # nobody waits for the others
            lost(failure.exc_value)
        uncaught(failure)

    watched, pools = _Lost(lost), logging.getLogger(POOLS)
    pools.addFilter(watched)
    sys.unraisablehook, threading.excepthook = on_unraisable, on_uncaught
    try:
        yield
    finally:
        pools.removeFilter(watched)
        sys.unraisablehook, threading.excepthook = unraisable, uncaught
