"""A thread that dies for lack of memory ends the process, rather than leave others waiting for it.

``Thread.start`` waits until the new thread has said that it runs. One that finds no memory for its
first statements never says so; CPython mentions it to ``sys.unraisablehook``, and the step hung in
one of 16 starved runs. A worker of ``concurrent.futures`` that fails outside of its work only logs
it, and whoever waits for the result waits for ever.

Where there is no memory for the hook either, nothing is mentioned to anybody (one of 48 starved
runs). So a thread that was there before watches those that were started.
"""

import _thread
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from typing_extensions import override

RESERVE = 2 * 2**20  # bytes, given back so that the cause can be printed
POOLS = "concurrent.futures"  # the logger of its workers
LOOKS = 12  # seconds that a thread may take to begin; those of a stopped process do not count
PATIENCE = 10.0  # seconds in which the cause is to be said
STDOUT = 1
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


class _Ending:
    """Ends the process once, with a cause that is printed even where nothing else can be done."""

    def __init__(self, end: End, last_words: str) -> None:
        self._end = end
        self._last_words = last_words.encode()
        self._reserve = [bytearray(RESERVE)]
        self._first = threading.Lock()

    def lost(self, error: BaseException | None) -> None:
        if not isinstance(error, MemoryError):
            return
        try:
            self._reserve.clear()
            if not self._first.acquire(blocking=False):
                time.sleep(PATIENCE)  # the first one is still saying it, or waits for this one
                return
            try:
                self._end(error)
            except BaseException:
                os.write(STDOUT, self._last_words)
        finally:
            os._exit(1)


@contextmanager
def lost_threads(end: End, last_words: str) -> Iterator[None]:
    """End the process where a thread that others wait for dies for lack of memory.

    Args:
        end: Says so, within this process; exit code 1 follows whatever it does.
        last_words: Written to standard output if ``end`` finds no memory either.
    """
    ending = _Ending(end, last_words)
    unraisable, uncaught = sys.unraisablehook, threading.excepthook

    def on_unraisable(failure: Any) -> None:
        if failure.err_msg and "thread started by" in failure.err_msg:
            # Nothing but memory is missing there; its clean-up fails in turn, with a KeyError.
            ending.lost(MemoryError("a thread could not begin"))
        unraisable(failure)

    def on_uncaught(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and not failure.thread.daemon:  # nobody waits for the others
            ending.lost(failure.exc_value)
        uncaught(failure)

    watched, pools, over = _Lost(ending.lost), logging.getLogger(POOLS), threading.Event()
    pools.addFilter(watched)
    sys.unraisablehook, threading.excepthook = on_unraisable, on_uncaught
    try:
        _thread.start_new_thread(_watch, (over, ending.lost))  # waits for nothing
        yield
    finally:
        over.set()
        pools.removeFilter(watched)
        sys.unraisablehook, threading.excepthook = unraisable, uncaught


def _watch(over: threading.Event, lost: Callable[[BaseException | None], None]) -> None:
    """Look every second whether a thread that was started has begun."""
    try:
        looks: dict[int, int] = {}
        while not over.wait(1.0):
            # Where CPython keeps threads between their start and their first statement.
            starting = [id(thread) for thread in list(getattr(threading, "_limbo", ()))]
            looks = {each: looks.get(each, 0) + 1 for each in starting}
            if max(looks.values(), default=0) > LOOKS:
                raise MemoryError("a thread has not begun")
    except MemoryError as error:
        lost(error)
