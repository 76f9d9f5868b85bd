"""Rounding of weights, and models that compute with changed weights."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyas.model.quantization import torch_dtype
from eyas.recipe.export import Rounding
from eyas.recipe.model import DType

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from torch.nn import Module, Parameter
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

Change = Callable[[str, "Tensor"], "Tensor"]
"""Function of (name, weight) that returns the weight to compute with instead."""

LAST_PLACE = 2.0**-23
"""Of a float32 number, relative to it."""

NEAREST_KEEPS = 0.95
"""Least share of an update that rounding to nearest must keep.

Below it, the weight is rounded stochastically.
An update smaller than half a step of the dtype is rounded away where the base is a number of that dtype.
SmolLM2-135M after one step of LoRA, in bfloat16: nearest costs a KL of 2.2e-3, 44 % of what training changed;
stochastic 2.6e-5 (`python benchmarks/merging.py`).
"""


@dataclass(frozen=True)
class Rounder:
    """Rounding of a release's weights."""

    dtype: DType
    rounding: Rounding | None
    """None chooses for each weight: to nearest wherever that keeps the update."""
    seed: int

    def choose(
        self, name: str, weight: "Tensor", size: float, kept: Callable[["Tensor"], float]
    ) -> tuple[Rounding, float]:
        """Return the rounding of a weight, and the surviving update.

        `size` is the update's sum of squares; `kept` returns the part of it that a rounded weight holds.
        """
        dtype = torch_dtype(self.dtype)
        left = kept(nearest(weight, dtype))
        wanted = self.rounding or ("nearest" if left >= NEAREST_KEEPS * size else "stochastic")
        if wanted == "nearest" or self.dtype == "float32":
            return "nearest", left
        return wanted, kept(stochastic(weight, dtype, name, self.seed))

    def change(self, stochastically: Iterable[str]) -> Change:
        """Return the function that rounds each weight; the named weights stochastically."""
        to, drawn = torch_dtype(self.dtype), frozenset(stochastically)

        def rounded(name: str, tensor: "Tensor") -> "Tensor":
            return stochastic(tensor, to, name, self.seed) if name in drawn else nearest(tensor, to)

        return rounded


def nearest(tensor: "Tensor", dtype: "dtype") -> "Tensor":
    """Round a floating tensor to nearest; return any other unchanged."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def stochastic(tensor: "Tensor", dtype: "dtype", name: str, seed: int) -> "Tensor":
    """Return a tensor rounded up or down at random, right on average.

    A weight a third of the way from one number of `dtype` to the next becomes the next with probability 1/3 (Gupta et
    al., arXiv:1502.02551). The draw depends on the name and the seed alone, so it can be repeated.
    """
    import torch

    close = tensor.to(dtype)
    toward = torch.where(tensor > close.float(), torch.inf, -torch.inf).to(dtype)
    other = torch.nextafter(close, toward)
    gap = (other.float() - close.float()).abs()
    away = (tensor - close.float()).abs() / gap  # 0 to 1/2
    draw = _draw(name, tensor, seed)
    return torch.where((draw < away) & other.isfinite(), other, close)


def nudged(name: str, tensor: "Tensor") -> "Tensor":
    """Move each float32 number at random by at most its last place."""
    return tensor * (1 + (2 * _draw(name, tensor, 0) - 1) * LAST_PLACE)


def with_random_signs(change: Change, seed: int) -> Change:
    """Return a change as large as another, but up or down at random."""
    import torch

    def moved(name: str, tensor: "Tensor") -> "Tensor":
        away = change(name, tensor).to(tensor.dtype) - tensor
        return tensor + torch.where(_draw(f"sign of {name}", tensor, seed) < 0.5, away, -away)

    return moved


def _draw(name: str, tensor: "Tensor", seed: int) -> "Tensor":
    """Return numbers from 0 to 1, repeatable by name and seed."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.rand(tensor.shape, generator=generator).to(tensor.device)


@contextmanager
def computing_with(model: "PreTrainedModel", change: Change) -> Iterator[None]:
    """Let a model compute with changed weights, in its own dtype. Only one module's weights are in memory twice."""
    with ExitStack() as undo:
        for path, module in model.named_modules():
            own = {f"{path}.{name}": p for name, p in module.named_parameters(recurse=False) if p.is_floating_point()}
            if own:
                for hook in _hooks(module, own, change):
                    undo.callback(hook.remove)
        yield


def _hooks(module: "Module", own: "dict[str, Parameter]", change: Change) -> "list[RemovableHandle]":
    """Return hooks that change a module's parameters during its forward pass."""
    import torch

    kept: list[dict[str, Tensor]] = []

    def before(*_: object) -> None:
        kept.append({name: parameter.data for name, parameter in own.items()})
        with torch.inference_mode(False), torch.no_grad():
            for name, parameter in own.items():
                parameter.data = change(name, parameter.data).to(parameter.dtype)

    def after(*_: object) -> None:
        for name, value in kept.pop().items():
            own[name].data = value

    return [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, always_call=True),
    ]


def replace_weights(model: "PreTrainedModel", change: Change) -> None:
    """Replace each weight and each saved buffer. Buffers that are not saved stay as they are."""
    saved = set(model.state_dict())
    for name, parameter in model.named_parameters():
        parameter.data = change(name, parameter.data)
    for path, module in model.named_modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            full = f"{path}.{name}" if path else name
            if full in saved and buffer.is_floating_point():
                setattr(module, name, change(full, buffer))


def share_rounded(model: "PreTrainedModel", rounder: Rounder) -> float:
    """Return the share of weights that rounding leaves as they are."""
    dtype = torch_dtype(rounder.dtype)
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    same = sum(int((tensor == nearest(tensor, dtype)).sum()) for tensor in tensors)
    return same / max(1, sum(int(tensor.numel()) for tensor in tensors))
