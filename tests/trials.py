"""Trainings in processes that a test can kill, and the comparison of their results."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT
from eyas.export import fresh_process
from eyas.run_directory import RunDirectory
from eyas.selftest.compare_runs import first_difference

BUILD_S = 600
"""DeepSpeed's first start compiles an extension: minutes, on two busy cores."""


def free_port():
    """Return a free port below the range that the system gives to connections."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@dataclass
class Job:
    """The ranks of one training."""

    server: "ForkServer"
    pids: list[int]
    log: Path

    def running(self):
        return [pid for pid in self.pids if not (self.server.codes / str(pid)).exists()]

    def wait(self, seconds=120):
        """Return the exit code of each rank; a rank that does not exit is killed and counts as failed."""
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.005)
        hung = self.running()
        self.kill()
        assert not hung, f"ranks {hung} hung:\n{self.text()[-3000:]}"
        return [int((self.server.codes / str(pid)).read_text()) for pid in self.pids]

    def kill(self, number=signal.SIGKILL):
        for pid in self.running():
            os.kill(pid, number)

    def text(self):
        return self.log.read_text() if self.log.exists() else ""


class ForkServer:
    """Starter of trainings whose libraries are already imported."""

    def __init__(self, codes):
        self.codes = codes
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "fork_server.py"), str(codes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.process.stdout.readline()  # its imports are done

    def start(self, words, log, ranks=1, script="launch/train.py", stdin=None, folder=ROOT, last=None, **environment):
        """Start the ranks. `last` holds the words and variables that the last rank has beside those of all."""
        port, pids = free_port(), []
        more_words, more_variables = last or ((), {})
        for rank in range(ranks):
            many = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks,
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks > 1 else {}  # fmt: skip
            is_last = rank == ranks - 1
            own = {**many, **environment, **(more_variables if is_last else {})}
            argv = [str(script), *map(str, words), *(more_words if is_last else ())]
            asked = {"argv": argv, "log": str(log), "folder": str(folder), "stdin": stdin and str(stdin),
                     "environment": {key: str(value) for key, value in own.items()}}  # fmt: skip
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            pids.append(int(self.process.stdout.readline()))
        return Job(self, pids, log)

    def run(self, words, log, seconds=120, **options):
        """Start a training, wait for it and return its exit codes and its output."""
        job = self.start(words, log, **options)
        return job.wait(seconds + BUILD_S * ("ACCELERATE_USE_DEEPSPEED" in options)), job.text()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class ForkedReader:
    """The process that opens a saved artifact, as a fork: what it has imported, it need not import again."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.returncode = None

    def communicate(self, request=None):
        """Run the module on the request; return its standard output, which is not kept, and its errors."""
        if request is None:
            return None, ""
        stdin = self.folder / "request.json"
        stdin.write_text(request)
        codes, text = self.server.run(
            [], self.folder / "log", script=fresh_process.__file__, stdin=stdin, folder=Path.cwd()
        )
        self.returncode = codes[0]
        return None, text

    def kill(self):
        """Do nothing; the fork ends with its request."""


def deepspeed(stage):
    """Return the variables by which `accelerate launch` hands a ZeRO stage to its processes."""
    return {
        "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": f"ds_configs/zero{stage}.json",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": str(stage == 3).lower(),
    }  # fmt: skip


def assert_the_same(found, wanted):
    """Compare two runs, bit for bit."""
    difference = first_difference(RunDirectory(found), RunDirectory(wanted))
    assert difference is None, difference.what
