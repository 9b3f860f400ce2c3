"""Fits side by side: each on a thread of its own, with its share of the cores."""

import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from graftline import machine
from graftline.steps.fit_head.probes.parallel import side_by_side


def test_four_fits_on_four_cores_run_at_once_on_one_thread_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    all_there = threading.Barrier(4, timeout=60)
    before = torch.get_num_threads()

    def work(number: int) -> tuple[int, set[int]]:
        all_there.wait()  # passed only if all four run at once
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        return number * 10, blas

    found = side_by_side(work, range(4))
    assert [result for result, _ in found] == [0, 10, 20, 30]
    assert set.union(*(blas for _, blas in found)) == {1}
    assert torch.get_num_threads() == before


def test_the_user_can_ask_for_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = side_by_side(lambda _: threading.get_ident(), range(8))
    assert len(set(threads)) == 1


def test_an_error_of_one_fit_is_raised_and_the_threads_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 // number, [1, 0])
    assert torch.get_num_threads() == before


def test_small_fits_run_one_after_another_on_one_thread_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    here = threading.get_ident()

    def work(number: int) -> tuple[int, int, set[int]]:
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        return number, threading.get_ident(), blas

    found = side_by_side(work, range(3), product=1000)
    # On one thread each, as when they run at once: the sums are the same bytes.
    assert found == [(number, here, {1}) for number in range(3)]
