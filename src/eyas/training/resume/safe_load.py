"""Loading of checkpoints without running code: torch.load opens tensors and plain values only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def tensors_only(deepspeed: bool) -> Iterator[None]:
    """Restrict every torch.load, ours or a library's, to tensors and plain values; it refuses anything else.

    DeepSpeed 0.19.8 loads its own checkpoints as whole pickles; the plain classes in them are allowed by name.
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
