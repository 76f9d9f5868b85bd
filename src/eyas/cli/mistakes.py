"""A user's mistake prints as text and exits with 1; anything else keeps its traceback."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from eyas.distributed.topology import rank, world_size
from eyas.errors import EyasError


@contextmanager
def mistakes_as_text() -> Iterator[None]:
    """Print the five known mistakes without a traceback; quieten what libraries say about themselves."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.INFO if rank() == 0 else logging.ERROR, format="%(levelname)s %(message)s")
    for library in ("httpx", "datasets", "accelerate", "deepspeed", "torch", "numexpr", "fsspec", "bitsandbytes", "filelock"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        yield
    except EyasError as mistake:
        where = f"[rank {rank()}] " if world_size() > 1 else ""
        print(f"{where}{type(mistake).__name__}: {mistake}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
