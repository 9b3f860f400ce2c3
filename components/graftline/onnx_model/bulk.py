"""Many images through an exported model: read and decoded beside the inference, memory bounded."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from graftline import machine
from graftline.errors import (
    DataError,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
    StoreUnreachable,
)
from graftline.images.decode import Decoded, decode_image
from graftline.onnx_model.predict import OnnxClassifier, Prediction, doubt_of

CHUNK = 256  # images whose answers are put in order together ...
CHUNK_PIXELS = 60_000_000  # ... and at most so many pixels, which bounds the memory
AHEAD = 32  # images that are read ahead for each decoding thread
AHEAD_PIXELS = 200_000_000  # decoded and waiting, 600 MB: beyond it nothing is read ahead
Read = Callable[[], bytes | np.ndarray]  # a file, or pixels as they are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer for one image, or why there is none.

    Attributes:
        image: Its name as it was given.
        top: The likeliest classes with their probabilities, best first; empty without an answer.
        probabilities: Of all classes, float32 (classes,); None without an answer.
        distance: Cosine distance to the nearest class; None where the file does not give it.
        known: Whether that is within the threshold; None where there is none.
        warning: Why the model may not see what the image shows.
        error: Why it could not be read.
    """

    image: str
    top: tuple[tuple[str, float], ...] = ()
    probabilities: np.ndarray | None = None
    distance: float | None = None
    known: bool | None = None
    warning: str | None = None
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The likeliest class; None without an answer."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """Its calibrated probability; None without an answer."""
        return self.top[0][1] if self.top else None


def predict_many(
    model: OnnxClassifier, images: Iterable[tuple[str, Read]], top: int = 1
) -> Iterator[list[Answer]]:
    """Classify any number of images; an unreadable one is an answer with its reason.

    Args:
        model: The exported file.
        images: A name and what gives the bytes, which is called in a thread.
        top: How many classes to name for each.

    Yields:
        Answers in the order of the images, some at a time.

    Raises:
        StoreUnreachable: The store that holds them is away; the same for one that lets nobody in.
    """
    chunk: list[tuple[str, Decoded | str]] = []
    pixels = 0
    for name, one in _decoded(images, model):
        chunk.append((name, one))
        pixels += _size(one)
        if len(chunk) >= CHUNK or pixels >= CHUNK_PIXELS:
            yield _answered(model, chunk, top)
            chunk, pixels = [], 0
    if chunk:
        yield _answered(model, chunk, top)


def _answered(
    model: OnnxClassifier, chunk: list[tuple[str, Decoded | str]], top: int
) -> list[Answer]:
    good = ((name, one.pixels) for name, one in chunk if isinstance(one, Decoded))
    found = iter(model.classify(good, top))
    answers = []
    for name, one in chunk:
        if isinstance(one, str):
            answers.append(Answer(image=name, error=one))
            continue
        prediction, probabilities = next(found)
        answers.append(
            _answer(prediction, probabilities, doubt_of(one, model.metadata.value_range))
        )
    return answers


def _answer(prediction: Prediction, probabilities: np.ndarray, warning: str | None) -> Answer:
    return Answer(
        image=prediction.image,
        top=prediction.top,
        probabilities=probabilities,
        distance=prediction.distance,
        known=prediction.known,
        warning=warning,
    )


def _decoded(
    images: Iterable[tuple[str, Read]], model: OnnxClassifier
) -> Iterator[tuple[str, Decoded | str]]:
    """Each name with its pixels or the reason why there are none, in order, some read ahead."""
    threads = machine.cores()
    value_range = model.metadata.value_range

    def one(read: Read) -> Decoded | str:
        try:
            data = read()
            if isinstance(data, np.ndarray):
                return Decoded(data, "array")
            return decode_image(data, value_range=value_range)
        except (StoreUnreachable, StoreAccessDenied):
            raise  # the same for all that follow
        except StoreNotFound as error:
            return f"file not found: {error.what}"
        except (DataError, StoreError) as error:
            return f"{error.what.rstrip('.')}{f': {error.why}' if error.why else ''}"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    # Nobody waits for a read that hangs, on a mount that is gone, when a command is stopped.
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[tuple[str, Future[Decoded | str]]] = deque()
    source = iter(images)
    try:
        while True:
            room = 1 if _pixels(waiting) > AHEAD_PIXELS else threads * AHEAD - len(waiting)
            for name, read in islice(source, max(0, room)):
                waiting.append((name, pool.submit(one, read)))
            if not waiting:
                return
            name, future = waiting.popleft()
            yield name, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pixels(waiting: Iterable[tuple[str, "Future[Decoded | str]"]]) -> int:
    """Decoded pixels that wait for the model."""
    done = (future for _, future in waiting if future.done() and future.exception() is None)
    return sum(_size(future.result()) for future in done)


def _size(one: Decoded | str) -> int:
    return 0 if isinstance(one, str) else one.pixels.shape[0] * one.pixels.shape[1]
