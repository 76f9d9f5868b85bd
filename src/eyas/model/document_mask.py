"""A block-diagonal mask for models that let packed documents read each other."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel


def is_masked(model: "PreTrainedModel") -> bool:
    """Return whether the mask is on this model already."""
    return keep_documents_apart in model.get_decoder()._forward_pre_hooks.values()


def mask(model: "PreTrainedModel") -> "RemovableHandle":
    """Put the mask on a model, and return the handle that removes it."""
    # On the decoder, because every caller reaches it: OPT's head calls it directly.
    return model.get_decoder().register_forward_pre_hook(keep_documents_apart, with_kwargs=True)


def keep_documents_apart(module: "nn.Module", arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Add the mask to a forward pass whose `position_ids` [batch, length] restart at each document.

    A forward pre-hook of the decoder, below the head. The mask [batch, 1, length, length] is made once for all layers.
    It takes 128 MiB for a row of 8,192 tokens in bfloat16. It holds numbers to add: OPT's eager attention
    (transformers 5.24) adds a boolean mask too, as ones and zeros, and so masks nothing.
    """
    from transformers.masking_utils import find_packed_sequence_indices

    position_ids = keywords.get("position_ids")
    if position_ids is None or keywords.get("attention_mask") is not None:
        return None
    document = find_packed_sequence_indices(position_ids)  # [batch, length], or None for one document in each row
    if document is None:
        return None
    return arguments, keywords | {"attention_mask": block_diagonal_mask(document, module.dtype)}


def block_diagonal_mask(document: "Tensor", dtype: "dtype") -> "Tensor":
    """Return [batch, 1, length, length]: 0 where a token may read another, else the dtype's lowest number.

    `document` [batch, length] numbers the document of each token. A token reads its own document up to itself.
    """
    import torch

    same = document[:, None, :, None] == document[:, None, None, :]
    readable = same.tril()
    return torch.zeros(same.shape, dtype=dtype, device=same.device).masked_fill(~readable, torch.finfo(dtype).min)
