"""One padding token for the tokenizer, the config and every batch."""

import logging
from typing import TYPE_CHECKING

from eyas.errors import PreflightError
from eyas.model.load import model_limits_of, padding_position

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def pad_with_a_known_token(tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel") -> None:
    """Let a tokenizer pad with a token that the model has; the model may be empty.

    A model that finds its padding by an id (see `padding_position`) gets that token. A padding token without an
    embedding is replaced by the end token. Raises PreflightError where neither is possible.
    """
    needed, pads, end = padding_position(model), tokenizer.pad_token_id, tokenizer.eos_token_id
    vocabulary = model_limits_of(model)[1]
    if needed is not None and needed != pads:
        chosen, why = needed, f"{type(model).__name__} counts positions by that token"
    elif pads >= vocabulary:
        chosen, why = end, f"{tokenizer.pad_token!r} is token {pads}, and the model has {vocabulary:,} token ids"
    else:
        return
    token = None if chosen is None or chosen >= vocabulary else tokenizer.convert_ids_to_tokens(chosen)
    if token is None:
        raise PreflightError(
            f"model.name {tokenizer.name_or_path}: cannot pad with its {tokenizer.pad_token!r} ({why}), "
            "nor with another; set pad_token in its tokenizer_config.json to one of the model's tokens"
        )
    tokenizer.pad_token = token
    logger.info("%s: %r pads (%s)", tokenizer.name_or_path, token, why)


def pad_like(tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel") -> None:
    """Write the tokenizer's padding token into the config of a classifier.

    A decoder classifies a text by its last token that is not padding, and it knows padding by the config alone.
    """
    pad_with_a_known_token(tokenizer, model)
    before = model.config.get_text_config().pad_token_id
    if before == tokenizer.pad_token_id:
        return
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    logger.info(
        "%s: config.pad_token_id is now %s, the tokenizer's %r; before: %s",
        model.config.name_or_path, tokenizer.pad_token_id, tokenizer.pad_token, before,
    )  # fmt: skip
