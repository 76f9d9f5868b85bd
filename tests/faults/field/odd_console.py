"""launch/train.py with a console that fails: EYAS_TEST_CONSOLE names how."""

import os
import runpy
import sys

HOW = os.environ["EYAS_TEST_CONSOLE"]


def a_pipe_without_a_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def redirect(descriptor):
    target = a_pipe_without_a_reader() if "pipe" in HOW else os.open("/dev/full", os.O_WRONLY)
    os.dup2(target, descriptor)


if HOW == "closed":
    os.close(1)
    sys.stdout = None
elif HOW == "ascii":
    sys.stdout = open(1, "w", encoding=HOW, closefd=False)  # noqa: SIM115
else:
    redirect(1)
    if "both" in HOW:
        redirect(2)
sys.argv[0] = "launch/train.py"
runpy.run_path("launch/train.py", run_name="__main__")
