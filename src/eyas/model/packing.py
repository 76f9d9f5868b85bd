"""Safe packing: probe the model, then mask or refuse it where documents leak."""

from typing import TYPE_CHECKING

from eyas.errors import PreflightError
from eyas.model.document_mask import is_masked, mask
from eyas.model.packing_probe import PackingResult, probe_packing
from eyas.model.probes.whole_weights import on_whole_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def pack_safely(model: "PreTrainedModel") -> PackingResult:
    """Install the mask that a model needs for packed documents.

    Returns the probe's result with the mask in place. The result holds for forward passes with `use_cache=False`, as
    TRL makes them. Given a cache, transformers 5.24 does not look for documents in a row, and every family leaks.
    Raises PreflightError, on every rank, when documents would read each other.
    """
    result = on_whole_weights(model, lambda: probe_packing(model))
    if result.mode == "block_diagonal" and not is_masked(model):
        mask(model)
        result = on_whole_weights(model, lambda: probe_packing(model))
    if result.mode is None:
        raise PreflightError(result.text())
    return result
