"""Tokens that end an answer: one list for everything that generates, and for every saved model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def stop_at(model: "PreTrainedModel | PeftModel", tokens: Sequence[int]) -> None:
    """Make a language model stop at these tokens too, next to those of its generation_config.

    All other settings stay as they were published. transformers 5.24 refuses to save a changed config whose settings
    contradict each other (a temperature without sampling, as in Llama 2's), and saves an unchanged one with a warning.
    So the hash is set, which tells that the config is unchanged.
    """
    if not model.can_generate():
        return
    config = model.generation_config
    ends = list(dict.fromkeys([*tokens, *stop_tokens(config)]))
    config.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
    config._original_object_hash = hash(config)


def prepare_to_save(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase", trained: Sequence[int]
) -> None:
    """Give a model that will be saved its stop tokens: the `trained` ones, its tokenizer's and its base's.

    Its other special tokens become the tokenizer's, as transformers' Trainer sets them before its first step.
    transformers writes the generation_config of a model next to its weights. Does nothing for a classifier.
    """
    from transformers.trainer_utils import align_special_tokens

    if not model.can_generate():
        return
    align_special_tokens(model, tokenizer)
    ends = [*trained] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id, *trained]
    stop_at(model, ends)


def stop_tokens(config: "GenerationConfig") -> list[int]:
    """Return the stop tokens of a generation_config, which holds none, one or several."""
    ends = config.eos_token_id
    return [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [int(ends)]
