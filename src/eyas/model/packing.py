"""Packing that is safe: the model is probed, helped where it can be, and refused where it cannot."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from eyas.distributed.gather import gather_objects
from eyas.distributed.topology import rank
from eyas.errors import PreflightError
from eyas.model.document_mask import is_masked, mask
from eyas.model.packing_probe import probe_packing
from eyas.model.packing_verdict import PackingVerdict


def pack_safely(model: Any) -> PackingVerdict:
    """Install what the model needs to keep packed documents apart, and return the verdict with that in place.

    It holds for forward passes with `use_cache=False`, as TRL makes them: given a cache, transformers 5.23 looks for no
    documents in a row, and every family leaks. Raises PreflightError, on every rank, when documents would read each
    other.
    """
    verdict = _agreed(model)
    if verdict.way == "block_diagonal" and not is_masked(model):
        mask(model)
        verdict = _agreed(model)
    if verdict.way is None:
        raise PreflightError(verdict.text())
    return verdict


def _agreed(model: Any) -> PackingVerdict:
    """Return rank 0's verdict on every rank.

    FSDP may have loaded the weights on rank 0 alone. Under ZeRO-3 every rank holds a part of each, and takes part in
    bringing them together; each GPU then holds the whole model for the length of the probe.
    """
    sharded = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_numel")]
    found: PackingVerdict | PreflightError | None = None
    if sharded or rank() == 0:
        try:
            with _gathered(sharded):
                found = probe_packing(model)
        except PreflightError as error:
            found = error
    agreed = gather_objects(found)[0]
    if isinstance(agreed, PreflightError):
        raise agreed
    assert isinstance(agreed, PackingVerdict)
    return agreed


def _gathered(sharded: list[Any]) -> AbstractContextManager[None]:
    if not sharded:
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(sharded)
    return gathered
