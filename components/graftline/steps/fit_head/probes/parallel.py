"""Several small fits at once, one thread each.

A fit's matrix products are narrow (as wide as there are classes), and threads that share one
spend most of the time waiting for each other: on two busy cores, two threads on one product were
27 times slower than one. Fits side by side do not wait.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

from graftline import machine

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``[work(item) for item in items]`` with the cores divided between the items."""
    items = list(items)
    cores = _cores()
    workers = max(1, min(len(items), cores))
    each = max(1, cores // max(1, workers))
    if torch.cuda.is_available():
        return [work(item) for item in items]
    before = torch.get_num_threads()
    torch.set_num_threads(each)
    try:
        with _libraries().limit(limits=each), ThreadPoolExecutor(workers) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(before)


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads of their own; to look for them takes 10 ms each time."""
    return ThreadpoolController()


def _cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS, where set, asks for fewer."""
    cores = machine.cores()
    configured = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(configured)) if configured.isdigit() and int(configured) > 0 else cores
