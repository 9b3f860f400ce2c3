"""From encoded images to network inputs: one at a time, or in worker processes beside a device.

The workers are for a network on an accelerator: decoding must keep up with thousands of images a
second, more than one interpreter's threads can. A worker reads encoded images from its pipe and
writes network inputs into a ring of batches in shared memory. The memory has no name, and a worker
ends when its pipe closes: a killed parent leaves neither processes nor memory behind.
"""

import math
import multiprocessing
import queue
import struct
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import numpy as np

from graftline.errors import DataError
from graftline.pixels import decode
from graftline.preprocessing import Preprocessing
from graftline.runners import Array

SLOTS = 4  # batches in the ring: one on the device, one on its way, two being filled
OUTSTANDING = 2  # images a worker has in its pipe, so that it never waits for the next
HEADER = struct.Struct("<II")
STOP = -1  # in place of a free slot

# A large JPEG is decoded at 1/2, 1/4 or 1/8 where its shorter side still has this many pixels for
# one of the resize. From there on the resize hides how the reduction was done: features keep a
# cosine of 0.9997 with those of the full photograph, and one of 12 megapixels is read in a quarter
# of the time. Smaller photographs are decoded in full.
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
    shortest = math.ceil(OVERSAMPLING * preprocessing.resize_size)
    preprocessing.write_input(decode(data, shortest=shortest), out)


def undecodable(position: int, error: DataError) -> DataError:
    """The error for an image of a snapshot that cannot be decoded."""
    return DataError(
        f"Image {position} cannot be decoded: {error.what}",
        why=error.why,
        fix="Run ingest again; it sets such images aside.",
    )


class DecodingWorkers:
    """Decodes batches ahead of their use. A context manager.

    Args:
        preprocessing: From bytes to network input.
        batch_size: Images in a batch.
        workers: Processes.
    """

    def __init__(self, preprocessing: Preprocessing, batch_size: int, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy the device's state
        size = preprocessing.input_size
        shape = (SLOTS, batch_size, 3, size, size)
        memory = context.RawArray("f", int(np.prod(shape)))
        self.ring: Array = np.frombuffer(memory, np.float32).reshape(shape)
        self.batch_size = batch_size
        self._free: queue.Queue[int] = queue.Queue()
        self._ready: queue.Queue[tuple[int, int] | BaseException | None] = queue.Queue()
        self._stopping = threading.Event()
        self._feeder: threading.Thread | None = None
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for slot in range(SLOTS):
            self._free.put(slot)
        for _ in range(workers):
            here, there = context.Pipe()
            process = context.Process(
                target=_work, args=(there, memory, shape, preprocessing.to_dict()), daemon=True
            )
            process.start()
            there.close()  # the worker's copy is the only one: both ends see the other's end
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> "DecodingWorkers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
                raise item
            yield item

    def release(self, slot: int) -> None:
        """Say that a slot may be filled again."""
        self._free.put(slot)

    def _feed(self, images: Iterator[bytes], first: int) -> None:
        """Hand images to workers in order and batches to the consumer in order."""
        try:
            while (slot := self._free.get()) != STOP and not self._stopping.is_set():
                batch = list(islice(images, self.batch_size))
                if not batch:
                    break
                self.ring[slot, len(batch) :] = 0.0
                self._fill(slot, batch, first)
                first += len(batch)
                self._ready.put((slot, len(batch)))
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _fill(self, slot: int, batch: list[bytes], first: int) -> None:
        """One batch through all workers; each gets the next image as it finishes one."""
        waiting = iter(enumerate(batch))
        open_ = 0
        for pipe in self._pipes * OUTSTANDING:
            open_ += self._send(pipe, slot, next(waiting, None))
        while open_:
            for pipe in self._answering():
                try:
                    answer = pipe.recv_bytes()
                except (EOFError, OSError) as error:
                    raise DataError(
                        "A decoding worker ended unexpectedly.",
                        why="It may have been killed for want of memory.",
                        fix="Give the step more memory, or fewer cores.",
                    ) from error
                _, row = HEADER.unpack_from(answer)
                if problem := answer[HEADER.size :].decode():
                    what, _, why = problem.partition("\n")
                    raise undecodable(first + row, DataError(what, why=why or None))
                open_ += self._send(pipe, slot, next(waiting, None)) - 1

    def _answering(self) -> list[Connection]:
        """Pipes with an answer in them; waits for one."""
        return [pipe for pipe in wait(self._pipes) if isinstance(pipe, Connection)]

    def _send(self, pipe: Connection, slot: int, item: tuple[int, bytes] | None) -> int:
        if item is None:
            return 0
        row, data = item
        pipe.send_bytes(HEADER.pack(slot, row) + data)
        return 1


def _work(pipe: Connection, memory: Any, shape: tuple[int, ...], preprocessing: Any) -> None:
    """Decode until the pipe closes."""
    import signal

    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threadpool_limits(1)
    prepare = Preprocessing.from_dict(preprocessing)
    ring = np.frombuffer(memory, np.float32).reshape(shape)
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
