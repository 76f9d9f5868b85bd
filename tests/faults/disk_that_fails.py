"""launch/train.py, on a disk that fails in the save of one step, or just before it: EYAS_TEST_DISK=what:step:bytes.

`full` leaves so many bytes free once the save has begun, `filled` before it begins, `small` lets no file grow larger,
`readonly` takes the folder that is written to away, `broken` lets each fsync fail.
"""

import errno
import os
import resource
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from transformers import Trainer, TrainerCallback

WHAT, STEP, BYTES = os.environ["EYAS_TEST_DISK"].split(":")
plain_save, plain_train = Trainer._save_checkpoint, Trainer.train


def fill(run):
    with (run.parent / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(shutil.disk_usage(run).free - int(BYTES), 1))


def small(_run):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(BYTES), int(BYTES)))


def readonly(run):
    staging = run / "checkpoints" / ".staging"
    staging.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", staging], check=True)


def broken(_run):
    def fails(_handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.fsync = fails


class BeforeTheSave(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if WHAT == "filled" and state.global_step == int(STEP):
            fill(Path(args.output_dir).parents[1])


def save(self, *arguments):
    if WHAT != "filled" and self.state.global_step == int(STEP):
        FAILURES[WHAT](Path(self.args.output_dir).parents[1])
    return plain_save(self, *arguments)


def train(self, *arguments, **options):
    self.add_callback(BeforeTheSave())
    return plain_train(self, *arguments, **options)


FAILURES = {"full": fill, "small": small, "readonly": readonly, "broken": broken}
Trainer._save_checkpoint, Trainer.train = save, train
sys.argv[0] = "launch/train.py"
runpy.run_path("launch/train.py", run_name="__main__")
