"""How a rank leaves a job that cannot go on, and what it says: with a report of all ranks when one of them hangs.

It leaves by os._exit: the main thread may be blocked in a collective of NCCL, where no exception and no signal handler
of Python reaches it. A launcher then has no rank left to wait for.
"""

import faulthandler
import os
from contextlib import suppress
from typing import NoReturn

from eyas.distributed.topology import rank
from eyas.files import write_text
from eyas.run_directory import RunDirectory
from eyas.training.resume.checkpoints import newest_whole
from eyas.training.watchdog.lookout import Lookout
from eyas.training.watchdog.peers import RankInfo
from eyas.training.watchdog.ranks import RankView
from eyas.training.watchdog.report import merged, report, verdict
from eyas.training.watchdog.roll_call import RollCall
from eyas.training.watchdog.stacks import leave_within

ANSWER_SECONDS = 3.5
"""For which the ranks wait for each other's stacks, once a hang is found."""
LATE_SECONDS = 1.5
"""For which those may write theirs that were stopped, or have to be asked by a signal."""
REPORT_SECONDS = 2.0
"""For which the others wait for the report."""
LAST_SECONDS = 9.0
"""After which a rank that has to leave is gone, whatever still holds it."""


def what_is_lost(who: RankInfo, seen: RankView, run: RunDirectory) -> str:
    """Return a sentence on a rank that ended before its work did, and how to go on."""
    how = f"left with {seen.left}" if seen.left else "is gone: something killed it, or it crashed"
    return f"rank {who.rank} (pid {who.pid} on {who.host}), at step {seen.step}, {how}; {how_to_go_on(run)}"


def how_to_go_on(run: RunDirectory) -> str:
    """Return which checkpoint there is to go on from."""
    newest = newest_whole(run)
    return f"go on from {newest} with --resume" if newest else "there is no checkpoint yet; --resume begins again"


def leave_a_hang(run: RunDirectory, lookout: Lookout, roll_call: RollCall, reason: str) -> NoReturn:
    """Let every rank tell where it is, have the lowest write that down, and leave."""
    leave_within(LAST_SECONDS)
    try:
        told = _hold(run, lookout, roll_call, reason)
    except OSError as error:
        faulthandler.dump_traceback(file=2)
        told = f"{reason}; no report could be written: {error}"
    leave_at_once(run, told)


def leave_at_once(run: RunDirectory, told: str) -> NoReturn:
    """Say why, and end this process with exit code 1."""
    leave_within(LAST_SECONDS)
    if rank() == 0:
        with suppress(OSError):
            run.record(status="lost", reason=told)
    # Not through sys.stderr: the main thread may hang in it and hold its lock.
    os.write(2, f"[rank {rank()}] RankError: {told}\n".encode())
    os._exit(1)


def _hold(run: RunDirectory, lookout: Lookout, roll_call: RollCall, reason: str) -> str:
    """Hold the roll call, and return what this rank has to say in the end."""
    roll_call.call(reason)
    view = lookout.view()
    roll_call.answer(rank(), view)
    expected = {each.rank for each in view if not each.left and each.state != "gone"}
    stopped = {each.rank for each in view if each.state == "stopped"}
    roll_call.await_answers(expected - stopped, ANSWER_SECONDS)
    for index in stopped:
        lookout.processes.wake(index)  # only now, for all go on when it does; so that it can tell where it was
    for index in expected - stopped - roll_call.answers(expected).keys():
        lookout.processes.ask_for_stacks(index)
    roll_call.await_answers(expected, LATE_SECONDS)
    views = roll_call.answers(expected)
    told = f"the job hangs: {reason}"
    if rank() == min(views) or not roll_call.await_report(REPORT_SECONDS):
        standings = merged(views, rank())
        stacks = [roll_call.stacks(each.rank) for each in standings]
        write_text(run.hang_report, report(reason, standings, stacks))
        roll_call.mark_reported()
        told = f"{verdict(standings)}. {reason}. Stacks of all ranks: {run.hang_report}; {how_to_go_on(run)}"
    for index in expected - views.keys():
        lookout.processes.kill(index)  # a launcher would wait half a minute for it
    return told
