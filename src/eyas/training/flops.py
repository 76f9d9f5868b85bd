"""The count of floating-point operations, under ZeRO-3 too."""

from typing import Any

from eyas.distributed.topology import running_topology
from eyas.training.card import weights_in


def count_flops_of_whole_parameters(trainer: Any) -> None:
    """Let a trainer under ZeRO-3 count the operations of all weights.

    transformers 5.23 counts those that happen to be gathered on a rank at the moment; a resumed run gathers others.
    """
    import torch

    model = trainer.model
    if running_topology(trainer.accelerator).strategy != "zero-3":
        return
    embeddings = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, torch.nn.Embedding)}
    weights = sum(weights_in(parameter) for name, parameter in model.named_parameters() if name not in embeddings)
    trainer.floating_point_ops = lambda inputs: 6 * inputs["input_ids"].numel() * weights  # forward 2, backward 4
