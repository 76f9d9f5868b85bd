"""Probes of a model whose weights may be spread over the ranks."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from eyas.distributed.gather import gather_objects
from eyas.distributed.topology import rank
from eyas.errors import PreflightError

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

Result = TypeVar("Result")


def on_whole_weights(model: "PreTrainedModel", probe: Callable[[], Result]) -> Result:
    """Return rank 0's result of a probe on every rank; every rank must call it.

    Under FSDP, rank 0 alone may have loaded the weights. Under ZeRO-3 every rank holds a part of each and helps to
    gather them; each GPU then holds the whole model while the probe runs. Raises the probe's PreflightError, on every
    rank.
    """
    sharded = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_numel")]
    result: Result | PreflightError | None = None
    if sharded or rank() == 0:
        try:
            with _gathered(sharded):
                result = probe()
        except PreflightError as error:
            result = error
    agreed: Result | PreflightError = gather_objects(result)[0]
    if isinstance(agreed, PreflightError):
        raise agreed
    return agreed


def _gathered(sharded: list["Parameter"]) -> AbstractContextManager[None]:
    if not sharded:
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(sharded)
    return gathered
