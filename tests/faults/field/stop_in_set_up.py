"""launch/train.py, of which one rank stops (SIGSTOP) or sleeps before its first step: EYAS_TEST_STOP=rank:place:how."""

import os
import runpy
import signal
import sys
import time

RANK, PLACE, HOW = os.environ["EYAS_TEST_STOP"].split(":")


def trouble(*_args, **_options):
    if HOW == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(3600)


if os.environ.get("RANK", "0") == RANK:
    if PLACE == "import":
        trouble()
    import eyas.training.run

    assert callable(getattr(eyas.training.run, PLACE))
    setattr(eyas.training.run, PLACE, trouble)
sys.argv[0] = "launch/train.py"
runpy.run_path("launch/train.py", run_name="__main__")
