"""Conclusions of a rank from its view of the others. Real ranks are in tests/faults/test_rank_faults.py."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from eyas.recipe.watchdog import Watchdog
from eyas.run_directory import RunDirectory
from eyas.training.events import events
from eyas.training.watchdog.heartbeat import DONE, Beat, Pulse, read_beat, write_beat
from eyas.training.watchdog.peers import Processes, RankInfo, rank_info, watched_by
from eyas.training.watchdog.ranks import RankView, WatchClock, forgiven, granted, hang, lost
from eyas.training.watchdog.report import RollCall, Standing, merged, odd_one_out, report, summary, wait_for
from eyas.training.watchdog.watch import watch_ranks

LIMITS = Watchdog(set_up_seconds=100, step_seconds=10, save_seconds=50)
WAITS = "/lib/torch/distributed/distributed_c10d.py:9 in all_reduce"
WORKS = "/lib/transformers/trainer.py:7 in training_step"
BEAT = Beat(rank=0, pid=1, phase="step", step=5, progress=20, count=9)


def seen(rank, phase="step", beaten_at=0.0, moved_at=0.0, state="running", left="", step=5):
    beat = replace(BEAT, rank=rank, phase=phase, left=left, step=step)
    return RankView(rank, state, beat, beaten_at, moved_at)


def stands(rank, progress=20, where=WAITS, state="running", left=""):
    return Standing(rank, f"host{rank}", 100 + rank, "step", 5, progress, 12.0, state, where, left)


@pytest.mark.parametrize(
    ("standings", "ranks", "how"),
    {
        "a stopped one, though it was woken to tell its stacks": (
            [stands(0), stands(1, progress=30, state="stopped", where=WORKS), stands(2)], [1], "is stopped (SIGSTOP)",
        ),
        "one that lives and does not answer": ([stands(0, where=""), stands(1)], [0], "runs, but does not answer"),
        "one on another machine": ([stands(0), stands(1, where="", state="unknown")], [1], "dead, stopped or cut off"),
        "the one with the least progress": (
            [stands(0, progress=21), stands(1, progress=21), stands(2, progress=19)], [2], f"it is at {WAITS}",
        ),
        "the one whose main thread is not in a collective": (
            [stands(0), stands(1, where=WORKS), stands(2, where="/lib/torch/autograd/graph.py:1 in backward")],
            [1], f"is at {WORKS} while the others wait",
        ),
        "the one that is left at work": ([stands(0), stands(1, left=DONE, progress=0)], [0], "is the only one at work"),
        "none, when all wait": ([stands(0), stands(1)], [], "at the same step and all are waiting"),
        "none, when all work": (
            [stands(0, where=WORKS), stands(1, where=WORKS)], [], "at the same step and all are working",
        ),
    }.values(),
)  # fmt: skip
def test_the_odd_one_out_is_named(standings, ranks, how):
    ranks_found, how_found = odd_one_out(standings)

    assert ranks_found == ranks
    assert how in how_found
    assert (
        f"rank {ranks[0]} (pid 10{ranks[0]} on host{ranks[0]}) " if ranks else "cannot tell which rank is at fault"
    ) in summary(standings)


def test_a_rank_is_stopped_if_any_rank_saw_that_or_else_as_it_reports():
    views = {
        0: [stands(0), stands(1, where="", state="stopped", progress=3), stands(2, where="", progress=3)],
        1: [stands(0, where=""), stands(1, where=WORKS), stands(2, where="")],
    }

    zero, one, two = merged(views, me=1)

    assert (zero.where, zero.state) == (WAITS, "running")
    assert (one.where, one.state, one.progress) == (WORKS, "stopped", 20)
    assert (two.condition, two.progress) == ("runs, but does not answer", 20)


def test_a_report_has_a_line_for_each_rank_and_the_stacks_of_each():
    text = report("rank 0 has not moved", [stands(0), stands(1, where="")], ["File a in b", ""])

    assert text.splitlines()[1] == "rank 1 (pid 101 on host1) runs, but does not answer"
    assert len([line for line in text.splitlines() if line.startswith(("   0  host0", "   1  host1"))]) == 2
    assert "== rank 0: the stacks of all its threads ==\nFile a in b\n" in text
    assert text.endswith("none: it runs, but does not answer\n")


@pytest.mark.parametrize("phase", ["set-up", "step", "save"])
def test_each_phase_has_its_limit(phase):
    limit = LIMITS.seconds_in(phase)
    here = [seen(0, phase, moved_at=1), seen(1, phase, beaten_at=1)]

    assert hang(0, here, LIMITS, now=1 + limit) is None
    assert hang(0, [here[0], replace(here[1], beaten_at=99)], LIMITS, now=2 + limit).startswith(
        f"rank 0 has not moved for {limit + 1} s in phase {phase} (watchdog.{phase.replace('-', '_')}_seconds: {limit})"
    )
    assert hang(0, [replace(here[0], moved_at=99), here[1]], LIMITS, now=2 + limit).startswith("rank 1 has been silent")


def test_a_rank_that_has_exited_or_is_invisible_is_not_accused():
    me = seen(0, moved_at=1000)

    assert hang(0, [me, seen(1, left=DONE)], LIMITS, now=1001) is None
    assert hang(0, [me, seen(1, left="KeyError: 'x'")], LIMITS, now=1001) is None
    assert hang(0, [me, RankView(1, "unknown")], LIMITS, now=1001) is None
    assert hang(0, [me, RankView(1, "running")], LIMITS, now=1001) is not None


def test_a_beat_from_another_machine_may_be_late():
    assert hang(0, [seen(0, moved_at=28), seen(1, state="unknown")], LIMITS, now=29) is None
    assert hang(0, [seen(0, moved_at=28), seen(1, state="unknown")], LIMITS, now=31) is not None


def test_ranks_may_wait_for_a_save_and_their_time_restarts_after_it():
    here = [seen(0, "save", moved_at=1, beaten_at=40), seen(1, moved_at=1, beaten_at=40)]
    here = granted(here, LIMITS, now=40)
    assert hang(1, here, LIMITS, now=40) is None

    here = granted([seen(0, moved_at=41, beaten_at=49), here[1]], LIMITS, now=49)

    assert hang(1, here, LIMITS, now=50) is None
    assert "rank 1 has not moved for 11 s in phase step" in hang(1, here, LIMITS, now=51)


def test_a_rank_that_has_exited_extends_no_limit():
    here = granted([seen(0, "save", left=DONE), seen(1, moved_at=1)], LIMITS, now=40)

    assert hang(1, here, LIMITS, now=40) is not None


def test_a_rank_that_was_paused_accuses_no_other():
    clock, here = WatchClock(1000.0), [seen(0), seen(1)]
    for second in (1001, 1002, 5000, 5001):  # stopped for more than an hour, then woken before the others' next beat
        now = clock.look(second)

        assert hang(0, here, LIMITS, now) is None

    here = [each.seen(replace(each.beat, count=10, progress=21), "running", now) for each in here]
    assert hang(0, here, LIMITS, clock.look(5002)) is None


def test_an_unchanged_beat_does_not_count_as_a_new_one():
    first = RankView(0).seen(BEAT, "running", now=3)
    again = first.seen(BEAT, "stopped", now=4)
    beaten = again.seen(replace(BEAT, count=10), "running", now=5)
    unread = beaten.seen(None, "running", now=6)

    assert (first.beaten_at, first.moved_at) == (again.beaten_at, again.moved_at) == (3, 3)
    assert again.state == "stopped"
    assert (beaten.beaten_at, beaten.moved_at) == (5, 3) and unread == beaten


def test_a_rank_that_cannot_write_beats_ignores_silence():
    here = forgiven([seen(0, moved_at=99), seen(1)], now=99)

    assert hang(0, here, LIMITS, now=100) is None


def test_killed_ranks_come_before_failed_ones_and_those_before_their_followers():
    follower = seen(1, left="RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer", state="gone")
    failed, killed = seen(2, left="KeyError: 'x'"), seen(3, state="gone")
    others = [seen(4), seen(5, left=DONE, state="gone"), seen(0, state="gone")]

    assert [each.rank for each in lost(0, [follower, failed, killed, *others])] == [3, 2, 1]


def test_a_rank_watches_its_machine_and_the_first_rank_watches_other_machines():
    ranks = [RankInfo(rank, host, 7, host, True) for rank, host in enumerate("aaabbbccc")]

    assert watched_by(1, ranks) == {0, 1, 2}
    assert watched_by(4, ranks) == {0, 3, 4, 5}
    assert watched_by(3, ranks) == {0, 3, 4, 5, 6}


def test_a_process_is_seen_running_stopped_and_gone_and_can_be_woken_and_killed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    here = rank_info(tmp_path)
    processes = Processes(0, [here, replace(here, rank=1, pid=child.pid), replace(here, rank=2, space="elsewhere")])

    assert (processes.state(0), processes.state(1), processes.state(2)) == ("running", "running", "unknown")
    os.kill(child.pid, signal.SIGSTOP)
    assert wait_for(lambda: processes.state(1) == "stopped", 5)
    processes.wake(1)
    assert wait_for(lambda: processes.state(1) == "running", 5)
    processes.kill(1)
    assert wait_for(lambda: processes.state(1) == "gone", 5)  # none has waited for it: a zombie
    child.wait()
    assert processes.state(1) == "gone"
    processes.kill(2)


def test_a_beat_is_read_whole_or_not_at_all(tmp_path):
    write_beat(tmp_path, BEAT)
    (tmp_path / "rank1.json").write_text('{"rank": 1, "pid"')

    assert read_beat(tmp_path, 0) == BEAT
    assert read_beat(tmp_path, 1) is None and read_beat(tmp_path, 2) is None


def test_the_first_call_of_a_hang_gives_the_reason(tmp_path):
    assert RollCall(tmp_path).reason is None
    RollCall(tmp_path).call("rank 3 is silent")
    RollCall(tmp_path).call("rank 0 does not move")

    assert RollCall(tmp_path).reason == "rank 3 is silent"


def test_answers_come_with_stacks_and_the_wait_for_others_has_a_limit(tmp_path):
    roll_call, view = RollCall(tmp_path), [stands(0), stands(1, where="")]
    roll_call.answer(0, view)

    started = time.monotonic()
    roll_call.await_answers([0, 1], 0.2)

    assert 0.2 <= time.monotonic() - started < 2
    assert roll_call.answers([0, 1]) == {0: view}
    assert "test_watchdog.py" in roll_call.stacks(0) and roll_call.stacks(1) == ""


def test_a_process_writes_its_stacks_on_a_signal_while_its_lock_is_held(tmp_path):
    script = tmp_path / "locked.py"
    script.write_text(
        "import ctypes, pathlib, sys\n"
        "from eyas.training.watchdog.peers import stacks_on_signal\n"
        "with stacks_on_signal(pathlib.Path(sys.argv[1])):\n"
        "    print(flush=True)\n"
        "    ctypes.PyDLL(None).sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, str(script), str(tmp_path / "stacks")], stdout=subprocess.PIPE)
    child.stdout.readline()
    here = rank_info(tmp_path)

    Processes(0, [here, replace(here, rank=1, pid=child.pid)]).request_stacks(1)

    assert wait_for(lambda: "locked.py" in (tmp_path / "stacks").read_text(), 5)
    child.kill()
    child.wait()


def test_the_save_phase_lasts_from_its_step_until_the_checkpoint_is_written():
    pulse = Pulse()

    def phase_after(event, step, **wanted):
        trainer = SimpleNamespace(state=TrainerState(global_step=step), control=TrainerControl(**wanted))
        getattr(events(trainer, [pulse]), event)(None, trainer.state, trainer.control)
        return pulse.phase

    early = ["on_train_begin", "on_epoch_begin", "on_step_begin", "on_substep_end", "on_pre_optimizer_step"]
    assert {phase_after(event, 0) for event in early} == {"set-up"}
    assert phase_after("on_step_end", 1) == "step"
    assert phase_after("on_step_end", 2, should_save=True) == "save"
    assert phase_after("on_prediction_step", 2) == "save"
    assert phase_after("on_save", 2) == "step"
    assert phase_after("on_train_end", 2) == "save"
    assert (pulse.step, pulse.progress) == (2, 10)


def test_a_watch_starts_without_old_files_and_deletes_its_own(tmp_path):
    run, earlier = RunDirectory(tmp_path), tmp_path / ".heartbeats" / "0123abcd"
    earlier.mkdir(parents=True)
    write_beat(earlier, replace(BEAT, rank=1, count=99))
    RollCall(earlier).call("rank 1 is silent")

    with watch_ranks(run, LIMITS, Pulse()):
        time.sleep(1.5)
        (now,) = run.heartbeats.iterdir()

        assert now != earlier
        assert read_beat(now, 0).pid == os.getpid() and read_beat(now, 0).count >= 2
        assert read_beat(now, 1) is None and RollCall(now).reason is None

    assert not run.heartbeats.exists()


def test_an_error_of_this_rank_passes_unchanged_and_is_published(tmp_path):
    run = RunDirectory(tmp_path)

    with pytest.raises(KeyError, match="x"), watch_ranks(run, LIMITS, Pulse()):
        raise KeyError("x")

    (folder,) = run.heartbeats.iterdir()
    assert read_beat(folder, 0).left == "KeyError: 'x'"
