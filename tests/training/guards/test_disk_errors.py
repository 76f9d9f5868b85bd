import errno
import os

import pytest

from eyas.errors import CheckpointError
from eyas.run_directory import RunDirectory
from eyas.sealing import seal
from eyas.training.guards.disk_errors import disk_errors_as_text

ENOSPC = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    for step in (2, 4):
        (run.staging / f"checkpoint-{step}").mkdir(parents=True)
        (run.staging / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"moments")
    seal(run.staging / "checkpoint-2", run.checkpoint(2), {"step": 2})
    return run


class SafetensorError(Exception):
    """An error class with safetensors' name."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ENOSPC, "No space left on device"),
        (OSError(errno.EDQUOT, "quota"), "Disk quota exceeded"),
        (SafetensorError("Error while serializing: I/O error: … (os error 28)"), "No space left on device"),
        (Exception("Read-only file system (os error 30)"), "Read-only file system"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 17024 vs 16912"),
            "torch reports '.enf",
        ),
    ],
    ids=["os", "quota", "safetensors", "tokenizers", "torch"],
)
def test_a_disk_error_names_the_checkpoint_to_resume_from(run, error, cause):
    with (
        pytest.raises(CheckpointError, match=f"checkpoint-4 could not be written: {cause}") as raised,
        disk_errors_as_text(run),
    ):
        raise error

    assert f"newest whole checkpoint is {run.checkpoint(2)}" in str(raised.value)
    assert raised.value.__cause__ is error and not run.unfinished()


def test_a_disk_error_behind_another_error_is_recognized(run):
    with pytest.raises(CheckpointError, match="No space left on device"), disk_errors_as_text(run):
        try:
            raise ENOSPC
        except OSError as error:
            raise CheckpointError("rank 0: no space") from error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyError("column"),
        OSError(errno.ECONNREFUSED, "Connection refused"),
        OSError(errno.ENOSPC, "No space left on device", "/somewhere/else/cache"),
    ],
    ids=str,
)
def test_any_other_error_passes_unchanged(run, error):
    with pytest.raises(type(error)) as raised, disk_errors_as_text(run):
        raise error

    assert raised.value is error and run.unfinished()


def test_an_error_that_is_already_explained_passes(run):
    with pytest.raises(CheckpointError, match=r"^mended$"), disk_errors_as_text(run):
        try:
            raise ENOSPC
        except OSError:
            raise CheckpointError("mended") from None
