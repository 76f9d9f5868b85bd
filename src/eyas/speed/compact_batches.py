"""What of a task's batches need not be computed: proven on the model that trains, and left out."""

from collections.abc import Callable
from typing import Any

from eyas.distributed.topology import world_size
from eyas.files import in_units
from eyas.hardware import free_device_bytes, has_gpu
from eyas.recipe import Recipe
from eyas.speed.optimization import Optimization, off

BATCHES, BEGINNINGS = "compact_batches", "shared_beginnings"
HOW = {"attention": "no padding, attention by document", "mask": "no padding in batches whose mask fits 256 MiB"}


def of_language_model(recipe: Recipe, trainer: Any, closed: str | None) -> list[Optimization]:
    """Leave out padding, shared beginnings and scores that no loss asks for, under TRL's fused head."""
    from eyas.speed.compact.causal_lm import compact
    from eyas.speed.compact.probe import probe_compact

    model = trainer.model.get_base_model() if recipe.adapter else trainer.model
    closed = closed or _why_not_to_prove(model)
    if trainer.args.label_smoothing_factor:
        closed = closed or "label smoothing needs the score of every word at every position"
    batches = off(recipe, BATCHES, closed)
    if batches is None:
        apart = off(recipe, BEGINNINGS, _why_not_to_share(recipe, model))
        verdict = _probed(probe_compact, model, apart is None)
        if verdict.way is not None:
            compact(model, verdict.way, share_beginnings=apart is None)
            numbers = f"differs by {verdict.difference:.1g} of {verdict.tolerance:.1g} allowed"
            return [
                Optimization(BATCHES, True, f"{HOW[verdict.way]}; {numbers}"),
                apart or Optimization(BEGINNINGS, True, "what rows of a batch begin with is computed once"),
            ]
        batches = Optimization(BATCHES, False, f"{type(model).__name__} computes otherwise without padding")
    if recipe.speed.compact_batches is not False and not has_gpu():  # on a GPU, TRL 1.16 does this itself
        compact(model, "scores", False)
        batches = Optimization(BATCHES, False, f"{batches.why}; only positions that are learnt from are scored")
    return [batches, Optimization(BEGINNINGS, False, "compact_batches is off")]


def of_encoder(recipe: Recipe, trainer: Any, closed: str | None) -> list[Optimization]:
    """Leave out padding in the layers of an encoder."""
    from eyas.model.probes.difference import within
    from eyas.speed.compact.encoder import compact_encoder, probe_encoder

    model = trainer.model.get_base_model() if recipe.adapter else trainer.model
    batches = off(recipe, BATCHES, closed or _why_not_to_prove(model))
    if batches is not None:
        return [batches]
    difference, tolerance = _probed(probe_encoder, model)
    if not within(difference, tolerance):
        return [Optimization(BATCHES, False, f"{type(model).__name__} computes otherwise without padding")]
    compact_encoder(model)
    return [
        Optimization(BATCHES, True, f"layers see no padding; differs by {difference:.1g} of {tolerance:.1g} allowed")
    ]


COMPACTIONS = {"causal_lm": of_language_model, "encoder": of_encoder}


def _probed(probe: Callable[..., Any], model: Any, *given: Any) -> Any:
    from eyas.model.probes.float32 import in_float32

    with in_float32(model):
        return probe(model, *given)


def _why_not_to_prove(model: Any) -> str | None:
    """Return why a model cannot be asked in float32, or None."""
    from eyas.model.probes.float32 import float32_bytes

    needed, free = float32_bytes(model), free_device_bytes(world_size())
    if needed <= free:
        return None
    return f"to prove it a copy in float32 takes {in_units(needed)}, and {in_units(free)} are free"


def _why_not_to_share(recipe: Recipe, model: Any) -> str | None:
    """Return why rows that begin alike do not compute alike, or None."""
    import torch

    if recipe.adapter is not None and recipe.adapter.lora_dropout:
        return "adapter.lora_dropout draws for each row anew"
    config = model.config.get_text_config()
    if getattr(config, "attention_dropout", 0) or any(
        isinstance(module, torch.nn.Dropout) and module.p for module in model.modules()
    ):
        return "the model's dropout draws for each row anew"
    if getattr(config, "output_router_logits", False):
        return "the experts' balance is counted over each row's tokens"
    return None
