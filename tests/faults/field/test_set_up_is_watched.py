"""A rank that stops or hangs before the first step is found within `watchdog.set_up_seconds`."""

import os
import signal
import time

import psutil
import pytest

from conftest import ROOT
from eyas.recipe.watchdog import Watchdog
from eyas.training.watchdog.heartbeat import Beat
from eyas.training.watchdog.ranks import RankView, granted, hang

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
SCRIPT = "tests/faults/field/stop_in_set_up.py"
LIMIT = 8
MORE = pytest.mark.sweep
IN_IMPORT = [("import", 1), pytest.param("import", 0, marks=MORE)]
IN_WORK = [
    ("load_rows", 1), ("load_model", 0), pytest.param("load_rows", 0, marks=MORE),
    pytest.param("load_model", 1, marks=MORE), pytest.param("base_identity", 0, marks=MORE),
    pytest.param("apply", 1, marks=MORE), pytest.param("rehearse", 0, marks=MORE),
]  # fmt: skip


@pytest.fixture
def start(fork_server, overrides_for, tmp_path):
    """Start a training whose rank stops or sleeps in a place of its set-up."""

    def start(place, rank, how="stops", ranks=2):
        words = [*overrides_for(RECIPE), "training.per_device_train_batch_size=1", f"run_directory={tmp_path / 'run'}",
                 f"watchdog={{set_up_seconds: {LIMIT}}}", "quantization=null"]  # fmt: skip
        stop = f"{rank}:{place}:{how}"
        return fork_server.start([RECIPE, *words], tmp_path / "log", ranks, SCRIPT, EYAS_TEST_STOP=stop)

    return start


def seconds_until_gone(job, rank, stopped):
    """Return how long the other ranks stay after one stopped, and let that one end too."""
    process, deadline = psutil.Process(job.pids[rank]), time.monotonic() + 60
    while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline and stopped:
        time.sleep(0.01)
    began, others = time.monotonic(), [pid for pid in job.pids if pid != job.pids[rank]]
    while set(job.running()) & set(others) and time.monotonic() < deadline:
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize(("place", "rank"), IN_IMPORT)
def test_a_rank_that_stops_in_its_imports_is_named_by_the_others(place, rank, start):
    job = start(place, rank)

    seconds = seconds_until_gone(job, rank, stopped=True)

    assert LIMIT - 2 <= seconds <= LIMIT + 10, job.text()
    wanted = "[rank 0] rank 1 of 2 sent nothing within 8 s (start)" if rank else "the process with the store sent"
    assert wanted in job.text() and "Traceback" not in job.text(), job.text()
    os.kill(job.pids[rank], signal.SIGKILL)
    assert job.wait()[1 - rank] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("place", "rank"), IN_WORK)
def test_a_rank_that_stops_in_its_set_up_is_named_with_its_place(place, rank, start, tmp_path):
    job = start(place, rank)

    seconds = seconds_until_gone(job, rank, stopped=True)

    assert LIMIT - 2 <= seconds <= LIMIT + 10, job.text()
    assert f"rank {rank} (pid {job.pids[rank]} on " in job.text() and "is stopped (SIGSTOP)" in job.text(), job.text()
    assert "watchdog.set_up_seconds: 8" in (tmp_path / "run" / "hang_report.txt").read_text()
    assert job.wait(10)[1 - rank] == 1 and not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.slow
def test_a_single_process_that_hangs_while_its_weights_load_reports_itself(start, tmp_path):
    job = start("load_model", 0, how="sleeps", ranks=1)

    assert job.wait(60) == [1], job.text()
    assert "in phase set-up (watchdog.set_up_seconds: 8)" in job.text() and "stop_in_set_up.py" in job.text()
    assert not (tmp_path / "run" / "manifest.json").exists()


LIMITS = Watchdog(set_up_seconds=100, step_seconds=10, save_seconds=50)


def before_training(rank, count, moves):
    return Beat(rank=rank, pid=1, phase="set-up", step=0, progress=0, count=count, moves=moves)


def test_before_training_a_rank_whose_main_thread_moves_is_at_work():
    view = RankView(0)
    for now in range(1, 500):
        view = view.seen(before_training(0, count=now, moves=now), "running", now)
        assert hang(0, granted([view], LIMITS, now), LIMITS, now) is None

    for now in range(500, 610):
        view = view.seen(before_training(0, count=now, moves=499), "running", now)
    assert "rank 0 has not moved for 1" in hang(0, granted([view], LIMITS, now), LIMITS, now)


def test_before_training_a_rank_may_wait_for_one_that_works_and_not_for_one_that_is_silent():
    waits = RankView(0).seen(before_training(0, 1, 1), "running", 1)
    works = RankView(1)
    for now in range(2, 500):
        waits = waits.seen(before_training(0, now, 1), "running", now)
        works = works.seen(before_training(1, now, now), "running", now)
        assert hang(0, granted([waits, works], LIMITS, now), LIMITS, now) is None

    for now in range(500, 610):
        waits = waits.seen(before_training(0, now, 1), "running", now)
    assert hang(0, granted([waits, works], LIMITS, now), LIMITS, now).startswith("rank 0 has not moved for 1")
