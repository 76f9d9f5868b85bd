"""Import the libraries once, then fork a process for each requested training.

A real `launch/train.py` costs ten seconds of imports; a fork of this process costs none. It is asked in lines of JSON,
`{"argv": [...], "environment": {...}, "log": ..., "stdin": ..., "folder": ...}`, and answers each with a process id;
that process's exit code is written into a file of that name, in the folder that is the only argument.
"""

import gc
import json
import os
import runpy
import select
import sys
import traceback
from pathlib import Path


def main(codes):
    children = set()
    print(os.getpid(), flush=True)
    while True:
        readable, _, _ = select.select([0], [], [], 0.01)
        if readable:
            line = sys.stdin.readline()
            if not line:
                return
            pid = fork(json.loads(line))
            children.add(pid)
            print(pid, flush=True)
        for pid in list(children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                children.remove(pid)
                (codes / f".{pid}").write_text(str(os.waitstatus_to_exitcode(status)))
                (codes / f".{pid}").rename(codes / str(pid))


def fork(asked):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if asked["stdin"] is not None:
            os.dup2(os.open(asked["stdin"], os.O_RDONLY), 0)
            sys.stdin = os.fdopen(0, closefd=False)
        os.chdir(asked["folder"])
        os.environ.update(asked["environment"])
        sys.argv = asked["argv"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import datasets  # noqa: F401
    import torch
    import trl.trainer.sft_trainer  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401

    import eyas.tasks
    import eyas.training.run  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # no fork searches, or copies, the libraries' half a million objects
    main(Path(sys.argv[1]))
