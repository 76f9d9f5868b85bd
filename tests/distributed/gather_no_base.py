"""launch/train.py, where collecting the whole model is an error. Started in test_adapter_settings.py."""

import runpy
import sys

from accelerate import Accelerator
from deepspeed import DeepSpeedEngine


def fails(*_, **__):
    raise AssertionError("the frozen base was gathered")


Accelerator.get_state_dict = DeepSpeedEngine._zero3_consolidated_16bit_state_dict = fails
sys.argv[0] = "launch/train.py"
runpy.run_path("launch/train.py", run_name="__main__")
