"""A resumed run opens no pickle that could run code."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def tensors_only(deepspeed: bool) -> Iterator[None]:
    """Let torch.load, whoever calls it, open tensors and plain values alone; anything else in a file is refused.

    DeepSpeed 0.19.8 asks for whole pickles when it reads its own checkpoints; the plain classes that it keeps in them
    are allowed by name.
    """
    import torch

    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_deepspeed_records() if deepspeed else []):
            yield
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before


def _deepspeed_records() -> list[type]:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
