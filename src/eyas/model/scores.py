"""Logits of a language model at chosen positions only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@contextmanager
def scores_at(model: "PreTrainedModel", positions: "Tensor") -> Iterator[None]:
    """Let a causal language model score the true `positions` [rows, length]: logits [1, positions, vocabulary].

    Virtual tokens before the rows are not counted.

    The output head of a small model costs as much as its layers, and most positions have no label.
    """

    def keep_positions(_module: Any, _inputs: Any, output: Any) -> Any:
        read = output.last_hidden_state[:, -positions.shape[1] :]
        output.last_hidden_state = read[positions][None]
        return output

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hook = inner.base_model.register_forward_hook(keep_positions)
    try:
        yield
    finally:
        hook.remove()
