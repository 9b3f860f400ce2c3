"""Several small fits at once, one thread each.

A fit's matrix products are narrow (as wide as there are classes), and threads that share one
spend most of the time waiting for each other: on two busy cores, two threads on one product were
27 times slower than one. Fits side by side do not wait.

The smallest ones do: they are Python more than products, and their threads wait for Python's lock.
With 2 classes and 213 images the search took 2.4 s on two threads and 1.0 s on one; with 10 classes
and 1,500 images the two were equal.
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
SMALL = 5_000_000  # multiplications of one product, below which fits run one after another


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, product: float = SMALL
) -> list[Result]:
    """``[work(item) for item in items]`` with the cores divided between the items.

    The results are the same bytes whether the items run at once or one after another.

    Args:
        work: A fit.
        items: What to fit.
        product: Multiplications of one product of a fit: rows x features x classes.
    """
    items = list(items)
    cores = _cores()
    workers = max(1, min(len(items), cores))
    each = max(1, cores // max(1, workers))
    if torch.cuda.is_available():
        return [work(item) for item in items]
    before = torch.get_num_threads()
    torch.set_num_threads(each)
    try:
        with _libraries().limit(limits=each):
            if product < SMALL:
                return [work(item) for item in items]
            with ThreadPoolExecutor(workers) as pool:
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
