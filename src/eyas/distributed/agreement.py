"""Small questions that all ranks answer together after a step."""

from collections.abc import Sequence
from typing import Any


class Agreement:
    """The highest or the mean of numbers over all ranks, the same on each, so that all of them act on the same step.

    It goes over gloo, whatever the gradients go over: a GPU's queue would first have to be waited for.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
        self._group: Any = None if alone else dist.new_group(backend="gloo")

    def highest(self, values: Sequence[int]) -> list[int]:
        """Return, for each position, the highest value that any rank handed in. Every rank must call it."""
        if self._group is None:
            return list(values)
        import torch
        import torch.distributed as dist

        together = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(together, op=dist.ReduceOp.MAX, group=self._group)
        return [int(value) for value in together]

    def mean(self, value: float) -> float:
        """Return the mean of what the ranks handed in, on each the same to the last bit. Every rank must call it."""
        if self._group is None:
            return value
        import torch
        import torch.distributed as dist

        mine = torch.tensor(value, dtype=torch.float64)
        values = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(values, mine, group=self._group)
        return float(torch.stack(values).mean())
