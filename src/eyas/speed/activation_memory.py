"""How much memory a model's forward pass holds on to for the backward pass: measured on the model that trains."""

from typing import Any

SHORT, LONG = 8, 24
"""Tokens of two rows: what the longer one holds more, it holds for its tokens, and weights are in neither."""


def kept_bytes_per_token(model: Any) -> float:
    """Return the bytes that a forward pass keeps for each token, its output head left out.

    `model` is a transformers model or a peft one around it, in training mode. What grows with the square of a row, as
    eager attention's scores do, is only counted for short rows.
    """
    import torch

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # so that training draws what it would have drawn
        return (_kept_bytes(model, LONG) - _kept_bytes(model, SHORT)) / (LONG - SHORT)


def _kept_bytes(model: Any, length: int) -> int:
    import torch

    storages: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids = torch.arange(length, device=model.device)[None] % inner.config.get_text_config().vocab_size
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = inner.base_model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert outputs.last_hidden_state.requires_grad  # and holds what was noted until here
    return sum(storages.values())
