"""Weights rounded to the dtype of a release, to nearest or stochastically, and models that compute with others."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from eyas.model.quantization import torch_dtype
from eyas.recipe.export import Rounding
from eyas.recipe.model import DType

Change = Callable[[str, Any], Any]
"""From a weight's name and its value to the value that is computed with instead."""

LAST_PLACE = 2.0**-23
"""Of float32, relative to the number."""


NEAREST_KEEPS = 0.95
"""Least share of an update that rounding to nearest must keep, or the weight is rounded stochastically.

An update smaller than half the step between two numbers of the dtype is rounded away where the base is such a number.
SmolLM2-135M after one step of LoRA, in bfloat16: nearest costs a KL of 2.2e-3, 44 % of what training changed;
stochastic 2.6e-5 (`python benchmarks/merging.py`).
"""


@dataclass(frozen=True)
class Rounder:
    """How the weights of a release are rounded."""

    dtype: DType
    rounding: Rounding | None
    """None: to nearest wherever that keeps the update."""
    seed: int

    def choose(self, name: str, weight: Any, size: float, kept: Callable[[Any], float]) -> tuple[Rounding, float]:
        """Return how a weight is rounded, and what `kept` says that this leaves of its update of that size."""
        dtype = torch_dtype(self.dtype)
        left = kept(nearest(weight, dtype))
        wanted = self.rounding or ("nearest" if left >= NEAREST_KEEPS * size else "stochastic")
        if wanted == "nearest" or self.dtype == "float32":
            return "nearest", left
        return wanted, kept(stochastic(weight, dtype, name, self.seed))

    def change(self, stochastically: Iterable[str]) -> Change:
        """Return what rounds each weight, these by their names stochastically."""
        dtype, drawn = torch_dtype(self.dtype), frozenset(stochastically)

        def rounded(name: str, tensor: Any) -> Any:
            return stochastic(tensor, dtype, name, self.seed) if name in drawn else nearest(tensor, dtype)

        return rounded


def nearest(tensor: Any, dtype: Any) -> Any:
    """Return a floating tensor rounded to the nearest number of that dtype, any other as it is."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def stochastic(tensor: Any, dtype: Any, name: str, seed: int) -> Any:
    """Return a tensor rounded up or down at random, so that each weight is right on average.

    A weight a third of the way from one number of `dtype` to the next becomes the next with probability 1/3 (Gupta et
    al., arXiv:1502.02551). The draw depends on the name and the seed alone, so that it can be drawn again.
    """
    import torch

    close = tensor.to(dtype)
    toward = torch.where(tensor > close.float(), torch.inf, -torch.inf).to(dtype)
    other = torch.nextafter(close, toward)
    gap = (other.float() - close.float()).abs()
    away = (tensor - close.float()).abs() / gap  # 0 to 1/2
    draw = _draw(name, tensor, seed)
    return torch.where((draw < away) & other.isfinite(), other, close)


def nudged(name: str, tensor: Any) -> Any:
    """Return a tensor each of whose float32 numbers moved at random by at most its last place."""
    return tensor * (1 + (2 * _draw(name, tensor, 0) - 1) * LAST_PLACE)


def with_random_signs(change: Change, seed: int) -> Change:
    """Return what moves each weight as far as `change` does, but up or down at random: as large, in no direction."""
    import torch

    def moved(name: str, tensor: Any) -> Any:
        away = change(name, tensor).to(tensor.dtype) - tensor
        return tensor + torch.where(_draw(f"sign of {name}", tensor, seed) < 0.5, away, -away)

    return moved


def _draw(name: str, tensor: Any, seed: int) -> Any:
    """Return random numbers from 0 to 1, the same for the same name and seed."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.rand(tensor.shape, generator=generator).to(tensor.device)


@contextmanager
def computing_with(model: Any, change: Change) -> Iterator[None]:
    """Let a model compute, in its own dtype, with changed weights; only one module's are held twice at a time."""
    with ExitStack() as undo:
        for path, module in model.named_modules():
            own = {f"{path}.{name}": p for name, p in module.named_parameters(recurse=False) if p.is_floating_point()}
            if own:
                for hook in _hooks(module, own, change):
                    undo.callback(hook.remove)
        yield


def _hooks(module: Any, own: dict[str, Any], change: Change) -> list[Any]:
    import torch

    kept: list[dict[str, Any]] = []

    def before(*_: Any) -> None:
        kept.append({name: parameter.data for name, parameter in own.items()})
        with torch.inference_mode(False), torch.no_grad():
            for name, parameter in own.items():
                parameter.data = change(name, parameter.data).to(parameter.dtype)

    def after(*_: Any) -> None:
        for name, value in kept.pop().items():
            own[name].data = value

    return [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, always_call=True),
    ]


def held_in(model: Any, change: Change) -> None:
    """Replace each weight and each saved buffer by its change; a buffer that is no part of the file stays as it is."""
    saved = set(model.state_dict())
    for name, parameter in model.named_parameters():
        parameter.data = change(name, parameter.data)
    for path, module in model.named_modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            full = f"{path}.{name}" if path else name
            if full in saved and buffer.is_floating_point():
                setattr(module, name, change(full, buffer))


def share_rounded(model: Any, rounder: Rounder) -> float:
    """Return the share of a model's weights that are numbers of the dtype already."""
    dtype = torch_dtype(rounder.dtype)
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    same = sum(int((tensor == nearest(tensor, dtype)).sum()) for tensor in tensors)
    return same / max(1, sum(int(tensor.numel()) for tensor in tensors))
