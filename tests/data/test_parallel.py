"""Rows that several processes encode come back as if one had."""

import os
import time

import pytest

from eyas.data import parallel
from eyas.data.parallel import encoded
from eyas.errors import DataError


@pytest.fixture
def three_processes(monkeypatch):
    monkeypatch.setattr(parallel, "usable_cores", lambda: 3)
    monkeypatch.setattr(parallel, "WORTH_A_PROCESS", 1000)


def test_batches_come_back_in_order_from_several_processes(three_processes):
    tokenizer = {"not": lambda: "to be sent to a process"}  # what a function holds is there after a fork

    def encode(rows):
        time.sleep(0.2)  # so that on a busy machine the first process does not take all before there is another
        return os.getpid(), [row * len(tokenizer) for row in rows]

    found = list(encoded(encode, range(10, 5010), ""))

    assert [row for rows, _ in found for row in rows] == list(range(10, 5010))
    assert all(list(rows) == made for rows, (_, made) in found)
    processes = {process for _, (process, _) in found}
    assert 1 < len(processes) <= 3 and os.getpid() not in processes


def test_few_rows_are_encoded_in_this_process():
    assert {made for _, made in encoded(lambda rows: os.getpid(), range(1200), "")} == {os.getpid()}


def test_at_most_two_batches_per_process_are_queued(three_processes):
    taken = []

    class Rows(list):
        def __getitem__(self, piece):
            taken.append(piece)
            return list.__getitem__(self, piece)

    some = encoded(len, Rows(range(50_000)), "")
    next(some)

    assert len(taken) <= 7
    some.close()


def test_error_in_a_process_is_raised_here(three_processes):
    def encode(rows):
        raise DataError(f"row {rows[0]} cannot be")

    with pytest.raises(DataError, match="row 0 cannot be"):
        list(encoded(encode, range(5000), ""))
