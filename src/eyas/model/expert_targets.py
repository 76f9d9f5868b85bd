"""Targets of an adapter that are experts: parameters, where patterns name the layers of earlier versions."""

from typing import TYPE_CHECKING

from eyas.model.peft_refusals import pefts_refusals

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


def as_expert_targets(config: "PeftConfig", empty: "PreTrainedModel") -> dict[str, list[str]]:
    """Return the parameters that peft adapts in place of layers, by the patterns that name them.

    transformers 5 holds the experts of a layer in one parameter for each product. peft 0.21 still takes the names of
    their layers, such as `down_proj`. It fuses some of them, so all of these patterns have one entry. `config` is
    changed.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    patterns = getattr(config, "target_modules", None)
    if not patterns or not hasattr(config, "target_parameters"):
        return {}
    given = set(config.target_parameters or [])
    with pefts_refusals():
        convert_peft_config_for_transformers(config, empty, None)
    added = tuple(f".{target}" for target in set(config.target_parameters or []) - given)
    if not added:
        return {}
    named = patterns if isinstance(patterns, str) else ", ".join(sorted(patterns - config.target_modules))
    return {named: [name for name, _ in empty.named_parameters() if name.endswith(added)]}
