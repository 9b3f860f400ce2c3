"""From encoded images to network inputs: one at a time, or in worker processes beside a device.

The workers are for a network on an accelerator: decoding must keep up with thousands of images a
second, more than one interpreter's threads can. A worker reads encoded images from its pipe and
writes network inputs into a ring of batches in shared memory. The memory has no name, and a worker
ends when its pipe closes: a killed parent leaves neither processes nor memory behind.
"""

import math
import mmap
import multiprocessing
import os
import queue
import struct
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

import numpy as np

from graftline.errors import DataError
from graftline.images.decode import decode
from graftline.images.preprocessing import Preprocessing
from graftline.inference.runners import Array

SLOTS = 4  # batches in the ring: one on the device, one on its way, two being filled
OUTSTANDING = 2  # images a worker has in its pipe, so that it never waits for the next
HEADER = struct.Struct("<II")
STOP = -1  # in place of a free slot
FLOAT = np.dtype(np.float32)

# A large JPEG is decoded at 1/2, 1/4 or 1/8 where its shorter side still has this many pixels for
# one of the resize: one of 12 megapixels is read in a quarter of the time. The resize hides how the
# reduction was done in usual photographs (cosine 0.9997 with the features of the full one), not in
# fine patterns (below 0.9, at any ratio: what is cut out of a block of 8 x 8 pixels leaves a
# trace). So :mod:`graftline.steps.extract_features.reduction` measures it on the data first, and
# `full_decoding` leaves it out. Smaller photographs are decoded in full.
OVERSAMPLING = 2.5


def network_input(data: bytes, preprocessing: Preprocessing, out: Array) -> None:
    """Write an encoded image as the network takes it.

    Args:
        data: The file's bytes.
        preprocessing: From pixels to network input.
        out: (3, S, S), contiguous; written in place.

    Raises:
        DataError: It cannot be decoded.
    """
    shortest = None if preprocessing.full_decoding else smallest_side(preprocessing)
    pixels = decode(data, shortest=shortest, value_range=preprocessing.value_range)
    preprocessing.write_input(pixels, out)


def smallest_side(preprocessing: Preprocessing) -> int:
    """The shorter side that a reduced JPEG keeps at least, in pixels."""
    return math.ceil(OVERSAMPLING * preprocessing.resize_size)


def undecodable(position: int, error: DataError) -> DataError:
    """The error for an image of a snapshot that cannot be decoded."""
    return DataError(
        f"Image {position} cannot be decoded: {error.what}",
        why=error.why,
        fix="Run ingest again; it rejects such images.",
    )


@dataclass
class _Batch:
    """A batch whose images are with the workers.

    Attributes:
        slot: Of the ring.
        first: Position of its first image.
        count: Images handed out so far.
        due: Those of them that were not answered yet.
        whole: Whether no more come.
        problems: What is wrong with images that cannot be decoded, by row.
    """

    slot: int
    first: int
    count: int = 0
    due: int = 0
    whole: bool = False
    problems: dict[int, DataError] = field(default_factory=dict)


class DecodingWorkers:
    """Decodes batches ahead of their use. A context manager.

    The caller's main module is not imported again in the workers: it needs no guard.

    Args:
        preprocessing: From bytes to network input.
        batch_size: Images in a batch.
        workers: Processes.
    """

    def __init__(self, preprocessing: Preprocessing, batch_size: int, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy the device's state
        size = preprocessing.input_size
        shape = (SLOTS, batch_size, 3, size, size)
        self.batch_size = batch_size
        self._free: queue.Queue[int] = queue.Queue()
        self._ready: queue.Queue[tuple[int, int] | BaseException | None] = queue.Queue()
        self._begun: deque[_Batch] = deque()
        self._stopping = threading.Event()
        self._feeder: threading.Thread | None = None
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for slot in range(SLOTS):
            self._free.put(slot)
        memory = _Memory(context, math.prod(shape) * FLOAT.itemsize)
        self.ring = _ring(memory.buffer, shape)
        try:
            with _no_main_module():
                for _ in range(workers):
                    self._start(context, memory, shape, preprocessing)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        finally:
            memory.keep_mapped()

    def _start(
        self,
        context: SpawnContext,
        memory: "_Memory",
        shape: tuple[int, ...],
        preprocessing: Preprocessing,
    ) -> None:
        here, there = context.Pipe()
        self._pipes.append(here)
        process = context.Process(
            target=_work, args=(there, memory, shape, preprocessing.to_dict()), daemon=True
        )
        process.start()
        there.close()  # the worker's copy is the only one: both ends see the other's end
        self._processes.append(process)

    def __enter__(self) -> "DecodingWorkers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        self._free.put(STOP)
        if self._feeder is not None:
            self._feeder.join()  # before its pipes close, and before its images are read on
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()

    def batches(self, images: Iterable[bytes], first: int = 0) -> Iterator[tuple[int, int]]:
        """Decode images; give back each slot with :meth:`release`. Once only.

        Args:
            images: Encoded.
            first: Position of the first one, for errors.

        Yields:
            Slot of the ring, and how many images of it are filled; the rest is zero.

        Raises:
            DataError: An image cannot be decoded, or a worker died.
        """
        self._feeder = threading.Thread(
            target=self._feed, args=(iter(images), first), name="decoding", daemon=True
        )
        self._feeder.start()
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # or it would keep this frame, its callers' and their memory
            yield item

    def release(self, slot: int) -> None:
        """Say that a slot may be filled again."""
        self._free.put(slot)

    def _feed(self, images: Iterator[bytes], first: int) -> None:
        """Hand images to workers and batches to the consumer, both in order.

        The next batch is begun while the last images of one are out: no worker waits for another.
        """
        try:
            items, idle = self._items(images, first), deque(OUTSTANDING * self._pipes)
            while not self._stopping.is_set():
                while idle and (item := next(items, None)) is not None:
                    self._send(idle.popleft(), *item)
                self._hand_over()
                if not self._due():
                    break
                for pipe in self._answering():
                    self._receive(pipe)
                    idle.append(pipe)
                self._hand_over()
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _items(
        self, images: Iterator[bytes], first: int
    ) -> Iterator[tuple[int, int, bytes] | None]:
        """Slot, row and bytes of each image; None as long as answers must make a slot free."""
        batch: _Batch | None = None
        for data in images:
            if batch is None or batch.whole:
                while (slot := self._slot()) is None:
                    yield None
                if slot == STOP:
                    return
                batch = _Batch(slot, first)
                self._begun.append(batch)
                first += self.batch_size
            batch.count += 1
            batch.due += 1
            batch.whole = batch.count == self.batch_size
            yield batch.slot, batch.count - 1, data
        if batch is not None and not batch.whole:
            self.ring[batch.slot, batch.count :] = 0.0
            batch.whole = True

    def _slot(self) -> int | None:
        """A free slot. It is waited for only where no answers are: they come first."""
        try:
            return self._free.get(block=not self._due())
        except queue.Empty:
            return None

    def _due(self) -> int:
        """Images that the workers have."""
        return sum(batch.due for batch in self._begun)

    def _hand_over(self) -> None:
        """Give finished batches to the consumer, the oldest first."""
        while self._begun and self._begun[0].whole and not self._begun[0].due:
            batch = self._begun.popleft()
            if batch.problems:  # of several, the same one in every run
                row = min(batch.problems)
                raise undecodable(batch.first + row, batch.problems[row])
            self._ready.put((batch.slot, batch.count))

    def _answering(self) -> list[Connection]:
        """Pipes with an answer in them; waits for one."""
        return [pipe for pipe in wait(self._pipes) if isinstance(pipe, Connection)]

    def _receive(self, pipe: Connection) -> None:
        try:
            answer = pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise _ended() from error
        slot, row = HEADER.unpack_from(answer)
        batch = next(batch for batch in self._begun if batch.slot == slot)
        batch.due -= 1
        if problem := answer[HEADER.size :].decode():
            what, _, why = problem.partition("\n")
            batch.problems[row] = DataError(what, why=why or None)

    def _send(self, pipe: Connection, slot: int, row: int, data: bytes) -> None:
        try:
            pipe.send_bytes(HEADER.pack(slot, row) + data)
        except OSError as error:
            raise _ended() from error


def _ended() -> DataError:
    return DataError(
        "A decoding worker ended unexpectedly.",
        why="It may have been killed because it ran out of memory.",
        fix="Give the step more memory, or fewer cores.",
    )


class _Memory:
    """Memory without a name that started processes share; they get its buffer.

    Not from ``RawArray`` where the system can do otherwise: that takes it from /dev/shm, which
    containers make small, or from the disk, and writes all of it first.

    Args:
        context: That starts the processes.
        size: Bytes, zero.
    """

    def __init__(self, context: SpawnContext, size: int) -> None:
        self._size = size
        self._descriptor = _anonymous_file(size)
        self.buffer: Any
        if self._descriptor is None:
            self.buffer = context.RawArray("b", size)
            return
        try:
            self.buffer = mmap.mmap(self._descriptor, size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        if self._descriptor is None:
            return _same, (self.buffer,)
        return _mapped, (reduction.DupFd(self._descriptor), self._size)

    def keep_mapped(self) -> None:
        """All processes are started: the maps alone keep the memory from now on."""
        if self._descriptor is not None:
            os.close(self._descriptor)


def _anonymous_file(size: int) -> int | None:
    """Descriptor of a file in memory alone; None where the system has no such thing."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("graftline")
    except OSError:  # forbidden in some sandboxes
        return None
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _mapped(file: Any, size: int) -> mmap.mmap:
    descriptor = file.detach()
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _same(buffer: Any) -> Any:
    return buffer


def _ring(buffer: Any, shape: tuple[int, ...]) -> Array:
    ring: Array = np.frombuffer(buffer, FLOAT).reshape(shape)  # keeps the buffer
    return ring


_main_module = threading.Lock()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Processes that are started do not import the caller's main module.

    It may import PyTorch, or do all of its work again for lack of a guard.
    """
    with _main_module:
        real = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = real


def _work(pipe: Connection, buffer: Any, shape: tuple[int, ...], preprocessing: Any) -> None:
    """Decode until the pipe closes."""
    import signal

    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threadpool_limits(1)
    prepare = Preprocessing.from_dict(preprocessing)
    ring = _ring(buffer, shape)
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        slot, row = HEADER.unpack_from(message)
        problem = ""
        try:
            network_input(message[HEADER.size :], prepare, ring[slot, row])
        except DataError as error:
            problem = f"{error.what}\n{error.why or ''}"
        try:
            pipe.send_bytes(HEADER.pack(slot, row) + problem.encode())
        except (BrokenPipeError, OSError):
            return
