"""Parallel encoding of rows, with results in their order."""

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from eyas.hardware import usable_cores

ROWS_AT_ONCE = 500
WORTH_A_PROCESS = 5000
"""Rows that take longer to encode than a process takes to start."""
MOST_PROCESSES = 16

Encode = Callable[[Sequence[int]], Any]


def encoded(encode: Encode, rows: Sequence[int], what: str) -> Iterator[tuple[Sequence[int], Any]]:
    """Yield batches of the rows with the result of `encode` for each, in order, with a progress bar named `what`.

    The processes are forked, so that they share tokenizer and rows without a copy. This process does all the work
    where forking is not safe (macOS), and for few rows. Memory is bounded: at most two batches per process are queued.
    """
    from tqdm import tqdm

    with tqdm(total=len(rows), desc=what, unit=" rows", leave=False, disable=None) as bar:  # on a terminal only
        for batch, result in _results(encode, rows):
            yield batch, result
            bar.update(len(batch))


def _results(encode: Encode, rows: Sequence[int]) -> Iterator[tuple[Sequence[int], Any]]:
    batches = (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
    processes = min(usable_cores(), MOST_PROCESSES, len(rows) // WORTH_A_PROCESS)
    if processes < 2 or sys.platform != "linux":
        yield from ((batch, encode(batch)) for batch in batches)
        return
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, fork, initializer=_remember, initargs=(encode,)) as pool:
        waiting: deque[tuple[Sequence[int], Future[Any]]] = deque()
        for batch in batches:
            waiting.append((batch, pool.submit(_encode, batch)))
            if len(waiting) == 2 * processes:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)


def _next(waiting: deque[tuple[Sequence[int], Future[Any]]]) -> tuple[Sequence[int], Any]:
    batch, future = waiting.popleft()
    return batch, future.result()


_remembered: list[Encode] = []
"""Encode function of a forked process. A function that holds a tokenizer cannot be sent to it."""


def _remember(encode: Encode) -> None:
    _remembered[:] = [encode]


def _encode(batch: Sequence[int]) -> Any:
    return _remembered[0](batch)
