"""A rank that is killed, stopped or hung: the job exits in time, names it, and resumes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT
from trials import assert_the_same

FALCON = ROOT / "recipes" / "falcon7b_lora.yaml"
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
          "accelerate_configs/ddp.yaml", "--main_process_port", "0", "launch/train.py"]  # fmt: skip
TROUBLE = "tests/faults/trouble_in_a_step.py"
LIMITS = {"set_up_seconds": 60, "step_seconds": 3, "save_seconds": 5}
LEAVES_A_KILL = 15
LEAVES_A_HANG = LIMITS["save_seconds"] + 10
STEPS = 100
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def recipe(overrides_for):
    """Return the arguments of a training that is long enough to be hit."""
    shown = [word for word in overrides_for(FALCON) if not word.startswith("training.max_steps")]
    return [
        FALCON, *shown, f"watchdog={json.dumps(LIMITS)}", f"training.max_steps={STEPS}", "training.save_steps=10",
        "training.packing=false", "training.global_batch_size=4", "training.per_device_train_batch_size=2",
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def words(recipe, run):
    return [*recipe, f"run_directory={run}"]


def beats(run):
    """Return each rank's last heartbeat."""
    files = run.glob(".heartbeats/*/rank*.json")
    return {beat["rank"]: beat for beat in (json.loads(file.read_text()) for file in files)}


def pid_of(run, rank, after_step=12):
    """Return a rank's process id after so many steps."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        beat = beats(run).get(rank)
        if beat is not None and beat["step"] >= after_step:
            return beat["pid"]
        time.sleep(0.02)
    raise AssertionError(f"rank {rank} has not come to step {after_step}")


def wait_for_line(run, number):
    """Wait until a run has logged so many steps."""
    deadline, metrics = time.monotonic() + 100, run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < number:
        assert time.monotonic() < deadline, f"{run} has not logged step {number}"
        time.sleep(0.002)


def status(run):
    return json.loads((run / "manifest.json").read_text())["status"]


def seconds_of(run):
    """Return the training seconds of a finished run."""
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["train_runtime"]


def hang_report(run):
    """Return the summary of a report, and the stacks of each rank."""
    head, *stacks = (run / "hang_report.txt").read_text().split("\n== rank ")
    return head.splitlines()[1], stacks


class Launched:
    """A job of two ranks under a real launcher."""

    def __init__(self, words, folder):
        self._errors = folder / "stderr"
        with self._errors.open("w") as stream:
            self._launcher = subprocess.Popen(
                [*LAUNCH, *map(str, words)], cwd=ROOT, stderr=stream, stdout=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def leaves_within(self, seconds):
        """Return the launcher's exit code and all stderr; it must end by itself."""
        try:
            return self._launcher.wait(seconds), self._errors.read_text()
        finally:
            self._launcher.terminate()
            self._launcher.wait()


def resumed(fork_server, words, run):
    """Resume a run; it must finish and delete its heartbeats."""
    codes, text = fork_server.run([*words, "--resume"], run.with_name("resumed.log"), ranks=2)
    assert set(codes) == {0}, text[-3000:]
    assert status(run) == "finished"
    assert not (run / ".heartbeats").exists()
    return run


@pytest.mark.slow
def test_a_killed_rank_ends_a_launched_job_and_is_named(words, run, tmp_path):
    job = Launched(words, tmp_path)

    os.kill(pid := pid_of(run, 1), signal.SIGKILL)
    code, output = job.leaves_within(LEAVES_A_KILL)

    assert code != 0
    assert f"[rank 0] rank 1 (pid {pid} on " in output and "is gone: " in output
    assert re.search(r"continue from \S+/checkpoint-\d+ with --resume", output)


@pytest.mark.slow
def test_a_stopped_rank_ends_a_launched_job_with_the_stacks_of_both(words, run, tmp_path):
    job = Launched(words, tmp_path)

    os.kill(pid := pid_of(run, 1), signal.SIGSTOP)
    code, output = job.leaves_within(LEAVES_A_HANG)

    summary, stacks = hang_report(run)
    assert code != 0
    assert f"[rank 0] {summary}" in output
    assert f"rank 1 (pid {pid} on " in summary and "is stopped (SIGSTOP)" in summary
    assert len(stacks) == 2 and all("transformers/trainer.py" in stack for stack in stacks)


@pytest.mark.slow
def test_a_killed_rank_0_ends_rank_1_with_a_message_and_the_run_resumes(words, run, tmp_path, fork_server):
    job = fork_server.start(words, tmp_path / "log", ranks=2)

    os.kill(pid := pid_of(run, 0), signal.SIGKILL)

    assert job.wait(LEAVES_A_KILL) == [-signal.SIGKILL, 1]
    assert f"[rank 1] rank 0 (pid {pid} on " in job.text()
    assert "Traceback" not in job.text()
    resumed(fork_server, words, run)


@pytest.mark.slow
def test_a_rank_exits_after_a_killed_one_even_if_its_main_thread_sleeps(words, run, tmp_path, fork_server):
    job = fork_server.start(words, tmp_path / "log", ranks=2, script=TROUBLE, EYAS_TEST_TROUBLE="0:12:asleep")

    os.kill(pid_of(run, 1), signal.SIGKILL)

    assert job.wait(LEAVES_A_KILL) == [1, -signal.SIGKILL]
    assert f"rank 1 (pid {job.pids[1]} on " in job.text()


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "codes"), [("asleep", [1, 1]), ("locked", [1, -signal.SIGKILL])])
def test_a_rank_that_hangs_in_a_step_is_named_while_it_is_alive(trouble, codes, words, run, tmp_path, fork_server):
    # Late enough for a beat since set-up: what is silent in it has that phase's limit.
    job = fork_server.start(words, tmp_path / "log", ranks=2, script=TROUBLE, EYAS_TEST_TROUBLE=f"1:30:{trouble}")

    pid_of(run, 0)

    assert job.wait(LEAVES_A_HANG) == codes
    summary, stacks = hang_report(run)
    assert f"rank 1 (pid {job.pids[1]} on " in summary and "rank 0 " not in summary
    assert ("in asleep while the others wait" if trouble == "asleep" else "does not answer") in summary
    assert f"in {trouble}\n" not in stacks[0] and f"in {trouble}\n" in stacks[1]


@pytest.mark.slow
def test_a_rank_with_an_error_of_its_own_keeps_it_and_the_other_one_names_it(words, run, tmp_path, fork_server):
    job = fork_server.start(words, tmp_path / "log", ranks=2, script=TROUBLE, EYAS_TEST_TROUBLE="1:12:raising")

    assert job.wait(60) == [1, 1]
    assert job.text().count("Traceback") == 1 and "KeyError: 'a column that is not there'" in job.text()
    assert f"[rank 0] rank 1 (pid {job.pids[1]} on " in job.text()
    assert "exited with KeyError: 'a column that is not there'" in job.text()


@pytest.mark.slow
def test_a_single_process_that_hangs_reports_itself(words, run, tmp_path, fork_server):
    job = fork_server.start(words, tmp_path / "log", script=TROUBLE, EYAS_TEST_TROUBLE="0:12:asleep")

    pid_of(run, 0)

    assert job.wait(LEAVES_A_HANG) == [1]
    summary, stacks = hang_report(run)
    assert f"rank 0 (pid {job.pids[0]} on " in summary and "in asleep" in summary
    assert len(stacks) == 1 and "in asleep\n" in stacks[0]
    assert f"[rank 0] {summary}" in job.text() and status(run) == "lost"


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory, fork_server):
    """A run without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    codes, text = fork_server.run([*recipe, f"run_directory={folder / 'run'}"], folder / "log", ranks=2)
    assert codes == [0, 0], text[-3000:]
    return folder / "run"


@pytest.mark.slow
def test_a_healthy_run_of_two_ranks_is_not_disturbed(undisturbed):
    assert status(undisturbed) == "finished"
    assert not (undisturbed / ".heartbeats").exists() and not (undisturbed / "hang_report.txt").exists()


@pytest.fixture
def signaled(words, run, tmp_path, fork_server, undisturbed):
    """Signal one of two ranks at a random moment. Returns the job, the rank, its process and the exit codes."""

    def send(number, seed, after_step, leaves):
        draw = random.Random(seed)
        victim = draw.randrange(2)
        job = fork_server.start(words, tmp_path / "log", ranks=2)
        pid = pid_of(run, victim, after_step)  # it says so once a second; until then the others take it to set up
        wait_for_line(run, draw.randint(after_step, STEPS - 15))
        time.sleep(draw.uniform(0, 5) * seconds_of(undisturbed) / STEPS)
        os.kill(pid, number)
        sent = time.monotonic()
        codes = job.wait(leaves)
        print(f"{number.name} to rank {victim}: the job has left after {time.monotonic() - sent:.1f} s")
        return job, victim, pid, codes

    return send


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(50))
def test_a_job_killed_at_any_time_exits_and_resumes_to_the_same_end(
    seed, words, run, fork_server, undisturbed, signaled
):
    job, victim, pid, codes = signaled(signal.SIGKILL, seed, after_step=0, leaves=LEAVES_A_KILL)

    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1
    assert f"[rank {1 - victim}] rank {victim} (pid {pid} on " in job.text()
    assert_the_same(resumed(fork_server, words, run), undisturbed)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(20))
def test_a_job_stopped_at_any_time_exits_and_resumes_to_the_same_end(
    seed, words, run, fork_server, undisturbed, signaled
):
    _, victim, pid, codes = signaled(signal.SIGSTOP, seed, after_step=1, leaves=LEAVES_A_HANG)

    assert 0 not in codes
    summary, stacks = hang_report(run)
    assert f"rank {victim} (pid {pid} on " in summary and "is stopped (SIGSTOP)" in summary
    assert all("transformers/trainer.py" in stack for stack in stacks)
    assert_the_same(resumed(fork_server, words, run), undisturbed)
