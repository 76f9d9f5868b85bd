"""`accelerate`, for ranks that import nothing from the working folder.

For DeepSpeed, accelerate 1.15 adds the working folder to PYTHONPATH. A `sitecustomize.py` there, in a run of somebody
else, would run in every rank, before any code of ours.
"""

import os

from accelerate.commands.accelerate_cli import main
from accelerate.utils import launch

launch.env_var_path_add = lambda name, _folder: os.environ.get(name, "")

if __name__ == "__main__":
    main()
