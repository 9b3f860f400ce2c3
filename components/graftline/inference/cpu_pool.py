"""A thread for every core, and each computes on that core alone.

The libraries below numpy and PyTorch would each start threads of their own for one matrix product,
and threads that share cores wait for each other.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def cpu_pool(count: int, *, pytorch: bool) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads compute on one core each; work that has not begun is cancelled at last.

    Args:
        count: Threads.
        pytorch: Whether they run PyTorch, which is imported then.
    """
    with threadpool_limits(1), _pytorch(count) if pytorch else _plain(count) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _plain(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "core")


@contextmanager
def _pytorch(count: int) -> Iterator[ThreadPoolExecutor]:
    import torch

    threads = torch.get_num_threads()
    try:
        yield ThreadPoolExecutor(count, "core", torch.set_num_threads, (1,))
    finally:
        torch.set_num_threads(threads)
