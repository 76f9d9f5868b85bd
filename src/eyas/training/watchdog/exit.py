"""Exit of a rank from a job that cannot continue.

The exit is os._exit: the main thread may be blocked in a collective of NCCL, where no exception and no signal handler
of Python reaches it. A launcher then has no rank left to wait for.
"""

import faulthandler
import os
from contextlib import suppress
from typing import NoReturn

from eyas.distributed.topology import rank
from eyas.errors import CheckpointError, Preempted
from eyas.files import write_text
from eyas.run_directory import RunDirectory
from eyas.training.resume.checkpoints import newest_whole
from eyas.training.watchdog.lookout import Lookout
from eyas.training.watchdog.peers import RankInfo, exit_within
from eyas.training.watchdog.ranks import RankView
from eyas.training.watchdog.report import RollCall, merged, report, summary

ANSWER_SECONDS = 3.5
"""Time for which the ranks wait for each other's stacks."""
LATE_SECONDS = 1.5
"""Time for the stacks of ranks that were stopped or need a signal."""
REPORT_SECONDS = 2.0
"""Time for which the other ranks wait for the report."""
LAST_SECONDS = 9.0
"""Time after which an exiting rank is gone, whatever still holds it."""


def lost_rank(who: RankInfo, seen: RankView, run: RunDirectory) -> str:
    """Return why a rank is lost, and how to continue, as text."""
    how = f"exited with {seen.left}" if seen.left else "is gone: something killed it, or it crashed"
    return f"rank {who.rank} (pid {who.pid} on {who.host}), at step {seen.step}, {how}; {how_to_resume(run)}"


def how_to_resume(run: RunDirectory) -> str:
    """Return the checkpoint to continue from, as text."""
    newest = newest_whole(run)
    return f"continue from {newest} with --resume" if newest else "there is no checkpoint yet; --resume starts again"


def exit_hung_job(run: RunDirectory, lookout: Lookout, roll_call: RollCall, reason: str) -> NoReturn:
    """Collect the stacks of all ranks, write the report, and exit."""
    exit_within(LAST_SECONDS)
    try:
        message = _hold(run, lookout, roll_call, reason)
    except OSError as error:
        faulthandler.dump_traceback(file=2)
        message = f"{reason}; no report could be written: {error}"
    exit_now(run, message)


def exit_now(run: RunDirectory, message: str) -> NoReturn:
    """Print and record a message, and exit with code 1."""
    exit_within(LAST_SECONDS)
    record_lost(run, message)
    _leave(message, 1)


def record_lost(run: RunDirectory, message: str) -> None:
    """Record on rank 0 that a run which has begun lost a rank."""
    if rank() == 0:
        with suppress(OSError, CheckpointError):
            if run.read_manifest().get("status") == "running":
                run.record(status="lost", reason=message)


def exit_preempted(message: str) -> NoReturn:
    """Print a message and exit as after a signal."""
    _leave(f"preempted: {message}", Preempted.EXIT_CODE)


def _leave(message: str, code: int) -> NoReturn:
    # Not through sys.stderr: the main thread may hang in it and hold its lock.
    with suppress(OSError):
        os.write(2, f"[rank {rank()}] {message}\n".encode())
    os._exit(code)


def _hold(run: RunDirectory, lookout: Lookout, roll_call: RollCall, reason: str) -> str:
    """Hold the roll call, and return this rank's last message."""
    roll_call.call(reason)
    view = lookout.view()
    roll_call.answer(rank(), view)
    expected = {each.rank for each in view if not each.left and each.state != "gone"}
    stopped = {each.rank for each in view if each.state == "stopped"}
    roll_call.await_answers(expected - stopped, ANSWER_SECONDS)
    for index in stopped:
        lookout.processes.wake(index)  # only now, as all ranks continue when it does; it can then write its stacks
    for index in expected - stopped - roll_call.answers(expected).keys():
        lookout.processes.request_stacks(index)
    roll_call.await_answers(expected, LATE_SECONDS)
    views = roll_call.answers(expected)
    message = f"the job hangs: {reason}"
    if rank() == min(views) or not roll_call.await_report(REPORT_SECONDS):
        standings = merged(views, rank())
        stacks = [roll_call.stacks(each.rank) for each in standings]
        write_text(run.hang_report, report(reason, standings, stacks))
        roll_call.mark_reported()
        message = f"{summary(standings)}. {reason}. Stacks of all ranks: {run.hang_report}; {how_to_resume(run)}"
    for index in expected - views.keys():
        lookout.processes.kill(index)  # a launcher would wait half a minute for it
    return message
