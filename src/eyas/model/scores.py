"""A language model's scores at the positions that are asked for, and at no other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def scores_at(model: Any, asked: Any) -> Iterator[None]:
    """Let a causal language model score the `asked` [rows, length] positions alone: logits [1, positions, vocabulary].

    The output head of a small model costs as much as its layers, and most positions are not learnt from.
    """

    def keep_asked(_module: Any, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[asked][None]
        return output

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hook = inner.base_model.register_forward_hook(keep_asked)
    try:
        yield
    finally:
        hook.remove()
