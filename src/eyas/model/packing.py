"""Safe packing: probe the model, then mask or refuse it where documents leak."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from eyas.distributed.gather import gather_objects
from eyas.distributed.topology import rank
from eyas.errors import PreflightError
from eyas.model.document_mask import is_masked, mask
from eyas.model.packing_probe import PackingResult, probe_packing

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel


def pack_safely(model: "PreTrainedModel") -> PackingResult:
    """Install the mask that a model needs for packed documents.

    Returns the probe's result with the mask in place. The result holds for forward passes with `use_cache=False`, as
    TRL makes them. Given a cache, transformers 5.24 does not look for documents in a row, and every family leaks.
    Raises PreflightError, on every rank, when documents would read each other.
    """
    result = _agreed(model)
    if result.mode == "block_diagonal" and not is_masked(model):
        mask(model)
        result = _agreed(model)
    if result.mode is None:
        raise PreflightError(result.text())
    return result


def _agreed(model: "PreTrainedModel") -> PackingResult:
    """Return rank 0's result on every rank.

    Under FSDP, rank 0 alone may have loaded the weights. Under ZeRO-3 every rank holds a part of each and helps to
    gather them; each GPU then holds the whole model while the probe runs.
    """
    sharded = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_numel")]
    result: PackingResult | PreflightError | None = None
    if sharded or rank() == 0:
        try:
            with _gathered(sharded):
                result = probe_packing(model)
        except PreflightError as error:
            result = error
    agreed = gather_objects(result)[0]
    if isinstance(agreed, PreflightError):
        raise agreed
    assert isinstance(agreed, PackingResult)
    return agreed


def _gathered(sharded: list["Parameter"]) -> AbstractContextManager[None]:
    if not sharded:
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(sharded)
    return gathered
