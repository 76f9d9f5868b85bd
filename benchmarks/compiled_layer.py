"""What compiling half a layer gains (docs/decisions/0012): thirty of SmolLM2's, with LoRA, in bfloat16, and back.

python benchmarks/compiled_layer.py [--tokens 384] [--rounds 12]

The half from attention's output on, as eyas computes it without and with `speed.compiled_layers`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import rms_norm, silu

from eyas.model.compiled_layers import Linear, behind_attention
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


def step_by_step(hidden: Any, attended: Any, own: dict[str, Any]) -> Any:
    """Return what a layer gives, one step after the other."""

    def linear(x: Any, *names: str) -> tuple[Any, ...]:
        parts = [Part(lambda w=own[name][0]: w, None, own[name][1], own[name][2], SCALING) for name in names]
        return lora_products(x, None, parts)

    hidden = hidden + linear(attended, "o")[0]
    gate, up = linear(rms_norm(hidden, (HIDDEN,), own["norm"], 1e-5), "gate", "up")
    return hidden + linear(silu(gate) * up, "down")[0]


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
    compiled = torch.compile(behind_attention, dynamic=True)

    def as_a_piece(hidden: Any, attended: Any, own: dict[str, Any]) -> Any:
        linears = [Linear(*own[name], SCALING) for name in WEIGHTS]
        return compiled(hidden[0], attended[0], own["norm"], 1e-5, *linears)[None]

    ways: dict[str, Half] = {"step by step": step_by_step, "compiled": as_a_piece}
    first = {name: seconds(half, layers, asked.tokens) for name, half in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(asked.rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds(ways[name], layers, asked.tokens))
    for name in ways:
        print(f"{name:20} {1e3 * statistics.median(taken[name]):6.1f} ms, the first time {first[name]:.1f} s")


if __name__ == "__main__":
    main()
