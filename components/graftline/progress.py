"""Messages and bars of long work, for the log and for whoever listens."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

Listener = Callable[..., None]
T = TypeVar("T")
log = logging.getLogger("graftline")

_listener: Listener | None = None

PROGRESS_SECONDS = 0.25  # between two records of the same bar; a log line comes 20 times as seldom


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hand every message and every state of a bar to ``listener(event, **fields)`` as well."""
    global _listener
    _listener = listener
    try:
        yield
    finally:
        _listener = None


def message(text: str, *args: object) -> None:
    """Say one line to whoever watches: the log, and the command line."""
    log.info(text, *args)
    if _listener is not None:
        _listener("message", text=text % args if args else text)


def explain(text: str, *args: object) -> None:
    """Say why, in a sentence that the end of a local run shows: only then, so that it comes once.

    The log has it now.
    """
    log.info(text, *args)
    if _listener is not None:
        _listener("reason", text=text % args if args else text)


def progress(
    items: Iterable[T], description: str, total: int | None = None, unit: str = "images"
) -> Iterator[T]:
    """Yield the items, telling how far it has come.

    Args:
        items: What to go through.
        description: What is being done, a few words.
        total: How many there are; taken from ``len(items)`` where it has one.
        unit: What is counted.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(description, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


class Progress:
    """A bar that is advanced by hand; for work that comes in uneven pieces."""

    def __init__(self, description: str, total: int | None, unit: str = "images") -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = time.monotonic()
        self._recorded = 0.0
        self._logged = self._started

    def __enter__(self) -> "Progress":
        self._tell(force=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._tell(force=True)

    def advance(self, count: int = 1) -> None:
        """Say that ``count`` more are done."""
        self.done += count
        self._tell(force=False)

    def _tell(self, *, force: bool) -> None:
        now = time.monotonic()
        if _listener is not None and (force or now - self._recorded >= PROGRESS_SECONDS):
            self._recorded = now
            _listener(
                "progress",
                description=self.description,
                done=self.done,
                total=self.total,
                unit=self.unit,
            )
        if now - self._logged >= 20 * PROGRESS_SECONDS:
            self._logged = now
            of = f" of {self.total:,}" if self.total is not None else ""
            rate = self.done / (now - self._started)
            log.info("%s: %s%s %s, %.0f/s", self.description, f"{self.done:,}", of, self.unit, rate)
