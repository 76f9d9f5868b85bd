"""Errors as text on the command line, and quiet libraries."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from eyas.disk_faults import disk_fault
from eyas.distributed.store import is_first_to_report, keep_store_for_reports
from eyas.distributed.topology import rank, world_size
from eyas.errors import EyasError, Preempted

LIBRARIES = (
    "accelerate", "bitsandbytes", "datasets", "deepspeed", "filelock", "fsspec", "httpx", "httpx2", "numexpr",
    "torch", "wandb",
)  # fmt: skip


NOTICES = {
    "DeepSpeed": "Setting accelerator to CPU",
    # bitsandbytes 0.50's kernel for inference on CPUs, which no weight here is packed for (`stay_as_quantized`).
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
}
"""Warnings of libraries that concern no user: a part of the text, by logger."""


@contextmanager
def errors_as_text() -> Iterator[None]:
    """Print an EyasError or a disk error and exit with 1; on Preempted, exit with 75, or 130 after Ctrl-C.

    A reason that several ranks have is printed by one of them. Every other exception keeps its traceback. Libraries
    print warnings and errors only.
    """
    quieten_libraries()
    logging.basicConfig(level=logging.INFO if rank() == 0 else logging.ERROR, format="%(levelname)s %(message)s")
    try:
        yield
    except EyasError as error:
        _hold_signals()
        if is_first_to_report(str(error)):
            where = f"[rank {rank()}] " if world_size() > 1 else ""
            print(f"{where}{error}", file=sys.stderr, flush=True)
        keep_store_for_reports()
        raise SystemExit(1) from None
    except Exception as error:
        if (cause := disk_fault(error)) is None:
            raise
        file = getattr(error, "filename", None)
        where = f"{os.fsdecode(file)}: " if file is not None else ""
        print(f"{where}{cause}; free some space, or check who may read and write there", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except Preempted as reason:
        _hold_signals()
        if is_first_to_report():
            print(f"{type(reason).__name__.lower()}: {reason}", file=sys.stderr, flush=True)
        keep_store_for_reports()
        raise SystemExit(reason.EXIT_CODE) from None


def _hold_signals() -> None:
    """Let a rank that ends report why: a launcher sends it SIGTERM as soon as another one has ended."""
    if world_size() > 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP})


def quieten_libraries() -> None:
    """Turn off telemetry and library notices; show progress bars on a terminal only."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # hides retries of a download; eyas reports a failed one
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl|peft|accelerate|torch")
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    for logger, notice in NOTICES.items():
        logging.getLogger(logger).addFilter(partial(_is_other, notice))


def _is_other(notice: str, record: logging.LogRecord) -> bool:
    return notice not in record.getMessage()
