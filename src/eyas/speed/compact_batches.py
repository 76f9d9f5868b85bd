"""Compact batches for each kind of model: probed, then installed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eyas.distributed.topology import world_size
from eyas.files import in_units
from eyas.hardware import free_device_bytes, has_gpu
from eyas.model.adapter import METHODS
from eyas.recipe import Recipe
from eyas.speed.optimization import Optimization, off

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

BATCHES, PREFIXES = "compact_batches", "shared_beginnings"
MEANING = {"attention": "padding removed", "mask": "padding removed where the mask takes at most 256 MiB"}


def of_language_model(recipe: Recipe, trainer: "Trainer", obstacle: str | None) -> list[Optimization]:
    """Leave out padding, repeated prefixes and logits without a label, under TRL's fused head."""
    from eyas.speed.compact.causal_lm import compact
    from eyas.speed.compact.probe import probe_compact

    model = _base_model(recipe, trainer)
    if _adds_virtual_tokens(recipe):
        return _both_off("the adapter adds virtual tokens")
    obstacle = obstacle or _too_large_to_probe(model)
    if trainer.args.label_smoothing_factor:
        obstacle = obstacle or "label smoothing needs the logits of all tokens at all positions"
    if trainer.args.neftune_noise_alpha is not None:
        obstacle = obstacle or "NEFTune scales its noise by the length of a padded batch"
    batches = off(recipe, BATCHES, obstacle)
    if batches is None:
        not_shared = off(recipe, PREFIXES, _not_shareable(recipe, model))
        result = _probed(probe_compact, model, not_shared is None)
        if result.mode is not None:
            compact(model, result.mode, share_prefixes=not_shared is None)
            return [
                Optimization(BATCHES, True, f"{MEANING[result.mode]} ({result.figures.text()})"),
                not_shared or Optimization(PREFIXES, True, "common prefixes of a batch computed once"),
            ]
        batches = Optimization(BATCHES, False, f"{type(model).__name__} computes differently without padding")
    if recipe.speed.compact_batches is not False and not has_gpu():  # on a GPU, TRL 1.16 does this itself
        compact(model, "scores", False)
        batches = Optimization(BATCHES, False, f"{batches.reason}; logits only where there is a label")
    return [batches, Optimization(PREFIXES, False, "compact_batches is off")]


def of_encoder(recipe: Recipe, trainer: "Trainer", obstacle: str | None) -> list[Optimization]:
    """Leave out padding in the layers of an encoder."""
    from eyas.speed.compact.encoder import compact_encoder, probe_encoder

    model = _base_model(recipe, trainer)
    if _adds_virtual_tokens(recipe):
        return [Optimization(BATCHES, False, "the adapter adds virtual tokens")]
    batches = off(recipe, BATCHES, obstacle or _too_large_to_probe(model))
    if batches is not None:
        return [batches]
    difference = _probed(probe_encoder, model)
    if not difference.is_rounding:
        return [Optimization(BATCHES, False, f"{type(model).__name__} computes differently without padding")]
    compact_encoder(model)
    return [Optimization(BATCHES, True, f"padding removed ({difference.text()})")]


COMPACTIONS = {"causal_lm": of_language_model, "encoder": of_encoder}


def _base_model(recipe: Recipe, trainer: "Trainer") -> "PreTrainedModel":
    return trainer.model.get_base_model() if recipe.adapter else trainer.model


def _adds_virtual_tokens(recipe: Recipe) -> bool:
    """Return whether the adapter's method learns virtual tokens, which are in no batch."""
    return recipe.adapter is not None and not METHODS[recipe.adapter.method].targets


def _both_off(reason: str) -> list[Optimization]:
    return [Optimization(BATCHES, False, reason), Optimization(PREFIXES, False, reason)]


def _probed(probe: Callable[..., Any], model: "PreTrainedModel", *given: Any) -> Any:
    from eyas.model.probes.float32 import in_float32

    with in_float32(model):
        return probe(model, *given)


def _too_large_to_probe(model: "PreTrainedModel") -> str | None:
    """Return the reason why a model cannot be probed in float32, or None."""
    from eyas.model.probes.float32 import float32_bytes

    needed, free = float32_bytes(model), free_device_bytes(world_size())
    if needed <= free:
        return None
    return f"the probe needs {in_units(needed)} for a float32 copy, and {in_units(free)} are free"


def _not_shareable(recipe: Recipe, model: "PreTrainedModel") -> str | None:
    """Return the reason why rows with the same prefix compute different values, or None."""
    if recipe.adapter is not None and recipe.adapter.dropout:
        return "the adapter's dropout differs between rows"
    random = _random_settings(model)
    if random:
        return f"the model's {random[0]} differs between rows"
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        return "the experts' balance counts each row's tokens"
    return None


def _random_settings(model: "PreTrainedModel") -> list[str]:
    """Return what makes a model's layers random in training: settings of its config, or dropout modules.

    Many models keep no dropout module and read the config in their forward pass: OPT, Falcon, Mixtral's routers.
    """
    import torch

    settings = model.config.get_text_config().to_dict().items()
    named = [
        f"{name} {value}"
        for name, value in settings
        if isinstance(value, float) and value > 0 and ("drop" in name or "jitter" in name) and not _of_a_head(name)
    ]
    modules = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p]
    return named or [f"dropout {module.p}" for module in modules]


def _of_a_head(setting: str) -> bool:
    """Return whether a setting concerns a classifier's head, which a language model has not."""
    return setting.startswith(("classifier", "summary"))
