"""A user's mistake prints as text and exits with 1; anything else keeps its traceback."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from eyas.distributed.topology import rank, world_size
from eyas.errors import EyasError, Preempted

LIBRARIES = (
    "accelerate", "bitsandbytes", "datasets", "deepspeed", "filelock", "fsspec", "httpx", "httpx2", "numexpr",
    "torch", "wandb",
)  # fmt: skip


@contextmanager
def mistakes_as_text() -> Iterator[None]:
    """Print known mistakes without a traceback, leave with 75 when told to; quieten what libraries say."""
    quieten_libraries()
    logging.basicConfig(level=logging.INFO if rank() == 0 else logging.ERROR, format="%(levelname)s %(message)s")
    try:
        yield
    except EyasError as mistake:
        where = f"[rank {rank()}] " if world_size() > 1 else ""
        print(f"{where}{type(mistake).__name__}: {mistake}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except Preempted as reason:
        print(f"preempted: {reason}", file=sys.stderr, flush=True)
        raise SystemExit(Preempted.EXIT_CODE) from None


def quieten_libraries() -> None:
    """Leave eyas's own lines to read: no telemetry, no notices to library authors, bars on a terminal only."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # cut downloads that resume; what fails is said by eyas
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl|peft|accelerate|torch")
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
