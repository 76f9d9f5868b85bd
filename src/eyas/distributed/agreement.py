"""Small reductions over all ranks after a step."""

from collections.abc import Sequence
from typing import Any


class Agreement:
    """Maximum or mean over all ranks, identical on each.

    So all ranks act at the same step. It uses gloo, even where gradients use NCCL: a reduction on the GPU would wait
    for the GPU's queue.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        single = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
        self._group: Any = None if single else dist.new_group(backend="gloo")

    def highest(self, values: Sequence[int]) -> list[int]:
        """Return the element-wise maximum over all ranks. Every rank must call it."""
        if self._group is None:
            return list(values)
        import torch
        import torch.distributed as dist

        maxima = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(maxima, op=dist.ReduceOp.MAX, group=self._group)
        return [int(value) for value in maxima]

    def mean(self, value: float) -> float:
        """Return the mean over all ranks, identical to the last bit on each. Every rank must call it."""
        if self._group is None:
            return value
        import torch
        import torch.distributed as dist

        mine = torch.tensor(value, dtype=torch.float64)
        values = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(values, mine, group=self._group)
        return float(torch.stack(values).mean())
