"""launch/train.py with a fault of one rank in a step: asleep for ever, with the interpreter's lock or without
it, or raising an error of its own.
"""

import ctypes
import os
import runpy
import sys
import time

from trl import SFTTrainer

RANK, STEP, TROUBLE = os.environ["EYAS_TEST_TROUBLE"].split(":")
plain_step = SFTTrainer.training_step


def troubled_step(self, *args, **kwargs):
    if os.environ.get("RANK", "0") == RANK and self.state.global_step == int(STEP):
        TROUBLES[TROUBLE]()
    return plain_step(self, *args, **kwargs)


def asleep():
    time.sleep(3600)


def locked():
    nobody_writes, _ = os.pipe()
    ctypes.PyDLL(None).read(nobody_writes, ctypes.create_string_buffer(1), 1)


def raising():
    raise KeyError("a column that is not there")


TROUBLES = {"asleep": asleep, "locked": locked, "raising": raising}
SFTTrainer.training_step = troubled_step
sys.argv[0] = "launch/train.py"
runpy.run_path("launch/train.py", run_name="__main__")
