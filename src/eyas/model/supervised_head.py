"""The language-model head on the positions that are learnt from, where TRL scores every one."""

import functools
import types
from typing import Any


def score_supervised_positions_only(model: Any) -> None:
    """Let TRL's fused head see only positions with a label; loss and gradients stay what they were.

    TRL 1.16 does this on a GPU and projects every position elsewhere, for the sake of devices that recompile with each
    shape. On a CPU that is half of the time of a chat row. It can go when TRL's `add_fused_lm_head` is compact on CPUs.
    """
    import torch

    fused = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            return fused(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        next_labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # [batch, length]
        supervised = next_labels != -100

        def keep_supervised(_module: Any, _inputs: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[supervised].unsqueeze(0)  # [1, supervised, hidden]
            return output

        hook = self.base_model.register_forward_hook(keep_supervised)
        try:
            return fused(*args, fused_lm_head=True, shift_labels=next_labels[supervised].unsqueeze(0), **kwargs)
        finally:
            hook.remove()

    model.forward = types.MethodType(forward, model)
