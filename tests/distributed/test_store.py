"""Communication of real processes before a process group exists."""

import os
import subprocess
import sys
import time

import pytest

from eyas.distributed.store import broadcast_from_rank_zero, first_on_each_node
from trials import free_port

PROGRAM = """
import os, sys, time
from eyas.distributed import store
from eyas.errors import EyasError, PreflightError
rank = int(os.environ["RANK"])

def decide():
    if case == "refused":
        raise PreflightError("the hub says no")
    if case == "gone":
        store._store().wait(["rank 1 is here"])
        os._exit(9)
    return [rank, "a" * 40]

def act(beat):
    began = time.monotonic()
    while case == "slow" and rank == 0 and time.monotonic() - began < 7:
        time.sleep(0.2)
        beat()
    if case == "hung" and rank == 0:
        time.sleep(7)
    print("acted", rank, flush=True)

case = sys.argv[1]
if case == "gone" and rank == 1:
    store._store().set("rank 1 is here", "")
if case == "early" and rank == 1:
    store._store()
    time.sleep(3)
try:
    print("told", store.broadcast_from_rank_zero("commits", decide), flush=True)
    if case == "early":
        store.wait_for_all_ranks("nothing to do")
        sys.exit()
    store.WAIT_SECONDS, store.BEAT_SECONDS = 4.0, 0.1
    store.first_on_each_node("files", act)
except EyasError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(1)
if case == "then a group":
    import torch.distributed as dist
    dist.init_process_group("gloo")
    values = [None, None]
    dist.all_gather_object(values, rank)
    print("gathered", values, flush=True)
"""


def run(case, ranks=2):
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, case], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
                              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(ranks)
    ]  # fmt: skip
    told = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], told


def test_a_single_process_opens_no_store():
    assert broadcast_from_rank_zero("x", lambda: [1]) == [1]
    seen = []
    first_on_each_node("y", lambda beat: seen.append(beat()))
    assert seen == [None]


@pytest.mark.slow
def test_every_rank_gets_rank_0_s_decision_and_a_process_group_can_follow():
    codes, told = run("then a group")

    assert codes == [0, 0]
    assert all(f"told [0, '{'a' * 40}']" in text and "gathered [0, 1]" in text for text in told), told


@pytest.mark.slow
def test_a_refusal_of_rank_0_ends_the_others_with_its_message():
    codes, told = run("refused")

    assert codes == [1, 1]
    assert told[0] == "PreflightError the hub says no\n"
    assert told[1] == "PreflightError the hub says no\n"


@pytest.mark.slow
def test_a_rank_waits_for_a_slow_one_that_beats_and_not_for_a_hung_one():
    codes, told = run("slow")
    assert codes == [0, 0] and "acted 1" in told[1]

    began = time.monotonic()
    codes, told = run("hung")
    assert codes[1] == 1 and "has sent nothing for 4 s (files on" in told[1]
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_rank_0_that_ends_early_waits_for_a_rank_that_has_not_read_yet():
    codes, told = run("early")

    assert codes == [0, 0] and f"told [0, '{'a' * 40}']" in told[1], told


@pytest.mark.slow
def test_the_wait_for_a_dead_rank_0_has_a_limit():
    codes, told = run("gone")

    assert codes[0] == 9 and codes[1] != 0
    assert "RankError rank 0 has exited (commits)" in told[1], told
