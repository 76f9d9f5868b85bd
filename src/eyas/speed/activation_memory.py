"""Activation memory of a forward pass, measured on the model that trains."""

from typing import TYPE_CHECKING

from eyas.model.adapter import has_virtual_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SHORT, LONG = 8, 24
"""Tokens of two rows. Their difference in memory belongs to the tokens; weights are in neither."""


def kept_bytes_per_token(model: "PreTrainedModel") -> float:
    """Return the bytes that a forward pass keeps for each token, without the output head.

    `model` is a transformers model or a peft one around it, in training mode. Memory that grows with the square of a
    row, as eager attention's scores, is only counted for short rows.
    """
    import torch

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # training must draw the same numbers as without this measurement
        return (_kept_bytes(model, LONG) - _kept_bytes(model, SHORT)) / (LONG - SHORT)


def _kept_bytes(model: "PreTrainedModel", length: int) -> int:
    import torch

    storages: dict[int, int] = {}

    def record(tensor: "Tensor") -> "Tensor":
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids = torch.arange(length, device=model.device)[None] % inner.config.get_text_config().vocab_size
    row = {"input_ids": ids}
    if has_virtual_tokens(model):  # their embeddings get the gradients of all layers
        row = {"inputs_embeds": inner.get_input_embeddings()(ids).detach().requires_grad_()}
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        outputs = inner.base_model(**row, attention_mask=torch.ones_like(ids))
    assert outputs.last_hidden_state.requires_grad  # and keeps the recorded tensors alive until here
    return sum(storages.values())
