"""Llama-like layers of which all behind the attention is one compiled piece: fewer passes over memory than torch's own.

The piece is attention's projection, residual sum, norm, gated MLP and residual sum, with their LoRA, and all of it
backwards. Attention itself takes another course for each batch, and stays as it is.
"""

import os
import types
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import silu

from eyas.model.comparison import nearness
from eyas.model.float32 import in_float32
from eyas.model.lora_linear import dense_weight, has_one_plain_adapter
from eyas.model.lora_probe import random_update
from eyas.model.probed import without_dropout

PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
"""What such a layer consists of, by transformers' names, and its MLP:"""
PARTS_OF_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
CACHE = "TORCHINDUCTOR_CACHE_DIR"
ROWS = 512
"""Of the probe. The compiler takes it for the usual number, and makes loops over a few rows for one thread alone."""


class Linear(NamedTuple):
    """A frozen layer, W [out, in], and its LoRA, A [r, in] and B [out, r], or None."""

    weight: Any
    down: Any
    up: Any
    scaling: float


def behind_attention(
    hidden: Any, attended: Any, norm: Any, eps: float, output: Linear, gate: Linear, up: Linear, down: Linear
) -> Any:
    """Return what a layer gives [tokens, width] for its input and for what its attention has read [tokens, heads]."""
    hidden = hidden + _product(attended, output)
    exact = hidden.float()
    exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + eps)
    normal = norm * exact.to(hidden.dtype)
    return hidden + _product(silu(_product(normal, gate)) * _product(normal, up), down)


def _product(x: Any, linear: Linear) -> Any:
    y = x @ linear.weight.T
    if linear.down is None:
        return y
    return torch.addmm(y, x @ linear.down.to(x.dtype).T, (linear.scaling * linear.up).to(x.dtype).T)


def compile_layers(model: Any, folder: Path) -> list[Any]:
    """Let each layer that fits compute as one piece what is behind its attention. Returns these layers, if all alike.

    Those fit whose linear layers are dense, frozen and without bias, and have LoRA that is fused, or none. The compiler
    comes when the first of them computes, and keeps its libraries in `folder`. It comes again for an input without a
    gradient, of one row, or of another dtype; torch's limit is eight times, at which a run would end.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Nothing is unpickled, and no library is loaded out of /tmp, where others could have put it.
    torch._functorch.config.enable_autograd_cache = False
    if os.environ.get(CACHE, default_cache_dir()) == default_cache_dir():  # torch sets it when it is imported
        os.environ[CACHE] = str(folder)
    options = {"fx_graph_cache": False, "cpp_cache_precompile_headers": False, "compile_threads": 1}
    compiled = torch.compile(behind_attention, options=options, fullgraph=True)
    layers = [module for module in model.modules() if _fits(module)]
    if len({_kind(layer) for layer in layers}) > 1:
        return []
    for layer in layers:
        layer.__dict__["piece"] = Piece(layer, compiled)
        layer.forward = types.MethodType(_forward, layer)
    return layers


def take_compiled_apart(layers: list[Any]) -> None:
    """Let layers compute as transformers wrote them again."""
    for layer in layers:
        layer.piece.give_back()
        del layer.forward, layer.__dict__["piece"]


def probe_compiled(layers: list[Any]) -> tuple[float, float]:
    """Return how far compiled layers are from float32, and how far they may be: little further than the library's.

    The first layer is probed, as `probe_lora` probes LoRA layers. Call it as training will compute, under its autocast,
    for this is where the compiler comes.
    """
    layer, generator = layers[0], torch.Generator().manual_seed(0)
    linears = layer.piece.linears
    weight = dense_weight(_base(linears[0]))
    drawn = [torch.randn(ROWS, width, generator=generator) for width in weight.shape]
    adapted = [linear for linear in linears if linear is not _base(linear)]
    trained = [each for linear in adapted for each in linear.parameters() if each.requires_grad]

    def outcome(compute: Any, dtype: Any) -> list[Any]:
        given = [each.to(weight.device, dtype).requires_grad_() for each in drawn]
        y = compute(*given)
        return [y.detach(), *torch.autograd.grad(y.float().square().sum() / ROWS, [*given, *trained])]

    def as_written(hidden: Any, attended: Any) -> Any:
        hidden = hidden + layer.self_attn.o_proj(attended)
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    with without_dropout(layer), torch.enable_grad(), random_update(adapted):
        first = [each.to(weight.device, weight.dtype) for each in drawn]
        layer.piece.output(
            first[0], first[1].requires_grad_()
        )  # as the model's first, for which the compiler comes too
        ours, theirs = (outcome(compute, weight.dtype) for compute in (layer.piece.output, as_written))
        with torch.autocast("cpu", enabled=False), in_float32(torch.nn.ModuleList(layer.children())):
            exact = outcome(as_written, torch.float32)
        return nearness(ours, theirs, exact)


class Piece:
    """What is behind the attention of one layer."""

    def __init__(self, layer: Any, compiled: Any) -> None:
        self.linears = _linears(layer)
        self._norm, self._compiled = layer.post_attention_layernorm, compiled
        self._projection = self.linears[0].forward
        self._taken_over = False
        self.linears[0].forward = self._projected

    def attended(self, layer: Any, hidden: Any, **more: Any) -> Any:
        """Return what a layer's attention has read [..., tokens, heads], its projection left to the piece."""
        self._taken_over = True
        try:
            return layer.self_attn(hidden_states=layer.input_layernorm(hidden), **more)[0]
        finally:
            self._taken_over = False

    def output(self, hidden: Any, attended: Any) -> Any:
        """Return what the layer gives [..., tokens, width]."""
        rows = [x.reshape(-1, x.shape[-1]) for x in (hidden, attended)]
        for each in rows:
            torch._dynamo.maybe_mark_dynamic(each, 0)  # their number is another one in each batch
        linears = [_linear(each, hidden.dtype) for each in self.linears]
        return self._compiled(*rows, self._norm.weight, self._norm.variance_epsilon, *linears).view(hidden.shape)

    def give_back(self) -> None:
        """Let attention compute its projection again."""
        self.linears[0].forward = self._projection

    def _projected(self, x: Any) -> Any:
        return x if self._taken_over else self._projection(x)


def _forward(self: Any, hidden_states: Any, **more: Any) -> Any:
    if not self.training or not torch.is_grad_enabled() or not all(map(_is_simple, self.piece.linears)):
        return type(self).forward(self, hidden_states, **more)
    return self.piece.output(hidden_states, self.piece.attended(self, hidden_states, **more))


def _linears(layer: Any) -> list[Any]:
    return [layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]


def _linear(layer: Any, dtype: Any) -> Linear:
    weight = dense_weight(_base(layer)).to(dtype)
    if layer is _base(layer):
        return Linear(weight, None, None, 0.0)
    (name,) = (name for name in layer.active_adapters if name in layer.lora_A)
    return Linear(weight, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])


def _base(layer: Any) -> Any:
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def _is_simple(layer: Any) -> bool:
    return layer is _base(layer) or has_one_plain_adapter(layer)


def _fits(module: Any) -> bool:
    if {name for name, _ in module.named_children()} != PARTS:
        return False
    if {name for name, _ in module.mlp.named_children()} != PARTS_OF_MLP or not hasattr(module.self_attn, "o_proj"):
        return False
    return (
        type(module.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
        and hasattr(module.post_attention_layernorm, "variance_epsilon")
        and all(_is_frozen(linear) and _is_simple(linear) for linear in _linears(module))
    )


def _kind(layer: Any) -> Any:
    """Return what a compiler makes another piece for."""
    found: list[Any] = [layer.post_attention_layernorm.variance_epsilon]
    for linear in _linears(layer):
        adapted = linear is not _base(linear)
        ranks = {name: down.weight.shape for name, down in linear.lora_A.items()} if adapted else {}
        scaling = linear.scaling if adapted else {}
        found.append((_base(linear).weight.shape, tuple(ranks.items()), tuple(scaling.items())))
    return tuple(found)


def _is_frozen(linear: Any) -> bool:
    base = _base(linear)
    if base is not linear and "siblings" not in linear.__dict__:
        return False
    dense = "dense_weight" in base.__dict__ or type(base) is torch.nn.Linear
    return dense and base.bias is None and not base.weight.requires_grad
