"""What torch.compile would gain where eyas does not use it (docs/decisions/0012): half a layer of SmolLM2, with LoRA.

python benchmarks/compiled_layer.py [--tokens 384] [--rounds 12]

The half from attention's output on: projection, residual sum, norm, gated MLP, residual sum; thirty of them, bfloat16,
forward and back, as eyas computes them and as torch.compile does with shapes that may change. The other half, norm and
q, k and v, is half as much work; attention itself takes another course for each batch and would stay as it is.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import rms_norm, silu

from eyas.model.lora_product import Part, lora_products

HIDDEN, INNER, LAYERS, RANK, SCALING = 576, 1536, 30, 16, 2.0
WEIGHTS = {"o": (HIDDEN, HIDDEN), "gate": (INNER, HIDDEN), "up": (INNER, HIDDEN), "down": (HIDDEN, INNER)}
Half = Callable[[Any, Any, dict[str, Any]], Any]


def layer() -> dict[str, Any]:
    """Return the norm's weight, and of each linear layer W [out, in], A [r, in] and B [out, r]."""
    found: dict[str, Any] = {"norm": torch.ones(HIDDEN, dtype=torch.bfloat16)}
    for name, (out, given) in WEIGHTS.items():
        down, up = torch.randn(RANK, given) * 0.03, torch.randn(out, RANK) * 0.01
        weight = (torch.randn(out, given) * 0.03).bfloat16()
        found[name] = (weight, down.requires_grad_(), up.requires_grad_())
    return found


def as_eyas(hidden: Any, attended: Any, own: dict[str, Any]) -> Any:
    """Return what a layer gives, its LoRA products as eyas computes them."""

    def linear(x: Any, *names: str) -> tuple[Any, ...]:
        parts = [Part(lambda w=own[name][0]: w, None, own[name][1], own[name][2], SCALING) for name in names]
        return lora_products(x, None, parts)

    hidden = hidden + linear(attended, "o")[0]
    gate, up = linear(rms_norm(hidden, (HIDDEN,), own["norm"], 1e-5), "gate", "up")
    return hidden + linear(silu(gate) * up, "down")[0]


def plain(hidden: Any, attended: Any, own: dict[str, Any]) -> Any:
    """Return the same in torch's own words, for a compiler to join."""

    def linear(x: Any, name: str) -> Any:
        weight, down, up = own[name]
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ down.to(x.dtype).T
        return torch.addmm(rows @ weight.T, low, (SCALING * up).to(x.dtype).T).view(*x.shape[:-1], -1)

    hidden = hidden + linear(attended, "o")
    normal = rms_norm(hidden, (HIDDEN,), own["norm"], 1e-5)
    return hidden + linear(silu(linear(normal, "gate")) * linear(normal, "up"), "down")


def seconds(half: Half, layers: list[dict[str, Any]], tokens: int) -> float:
    """Return how long all layers take forward and back."""
    hidden, *attended = (
        torch.randn(1, tokens, HIDDEN, dtype=torch.bfloat16, requires_grad=True) for _ in range(LAYERS + 1)
    )
    for own in layers:
        for name in WEIGHTS:
            own[name][1].grad = own[name][2].grad = None
    began = time.perf_counter()
    for own, each in zip(layers, attended, strict=True):
        hidden = half(hidden, each, own)
    hidden.backward(torch.ones_like(hidden))
    return time.perf_counter() - began


def main() -> None:
    """Print both medians and what the compiler needs first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    torch.manual_seed(0)
    layers = [layer() for _ in range(LAYERS)]
    ways: dict[str, Half] = {"as eyas computes it": as_eyas, "compiled": torch.compile(plain, dynamic=True)}
    first = {name: seconds(half, layers, asked.tokens) for name, half in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(asked.rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds(ways[name], layers, asked.tokens))
    for name in ways:
        print(f"{name:20} {1e3 * statistics.median(taken[name]):6.1f} ms, the first time {first[name]:.1f} s")


if __name__ == "__main__":
    main()
