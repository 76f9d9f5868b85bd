"""Many rows at once: one process a core makes examples, and they come back in the order of the rows."""

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from eyas.hardware import usable_cores

ROWS_AT_ONCE = 500
WORTH_A_PROCESS = 5000
"""Rows that take longer to encode than a process takes to begin."""
MOST_PROCESSES = 16

Encode = Callable[[Sequence[int]], Any]


def encoded(encode: Encode, rows: Sequence[int], what: str) -> Iterator[tuple[Sequence[int], Any]]:
    """Yield batches of the rows with what `encode` makes of each, in order, whoever has made it; a bar says how far.

    The processes are forked, so that tokenizer and rows are theirs without a copy. Where that is not safe (macOS), and
    for few rows, this process does it all. Memory is bounded: no more than two batches a process are ahead.
    """
    from tqdm import tqdm

    with tqdm(total=len(rows), desc=what, unit=" rows", leave=False, disable=None) as bar:  # on a terminal only
        for batch, made in _made(encode, rows):
            yield batch, made
            bar.update(len(batch))


def _made(encode: Encode, rows: Sequence[int]) -> Iterator[tuple[Sequence[int], Any]]:
    some = (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
    processes = min(usable_cores(), MOST_PROCESSES, len(rows) // WORTH_A_PROCESS)
    if processes < 2 or sys.platform != "linux":
        yield from ((batch, encode(batch)) for batch in some)
        return
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, fork, initializer=_remember, initargs=(encode,)) as pool:
        waiting: deque[tuple[Sequence[int], Future[Any]]] = deque()
        for batch in some:
            waiting.append((batch, pool.submit(_encode, batch)))
            if len(waiting) == 2 * processes:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)


def _next(waiting: deque[tuple[Sequence[int], Future[Any]]]) -> tuple[Sequence[int], Any]:
    batch, made = waiting.popleft()
    return batch, made.result()


_remembered: list[Encode] = []
"""What a forked process encodes with; a function that holds a tokenizer cannot be sent to it."""


def _remember(encode: Encode) -> None:
    _remembered[:] = [encode]


def _encode(batch: Sequence[int]) -> Any:
    return _remembered[0](batch)
