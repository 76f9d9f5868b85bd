"""The tokenizer that belongs to a base model."""

import logging
from typing import Any

from eyas.errors import PreflightError
from eyas.recipe.model import Model

logger = logging.getLogger(__name__)


def load_tokenizer(model: Model) -> Any:
    """Return the base model's own tokenizer, with a padding token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise PreflightError(f"model.name {model.name}: its tokenizer cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        # Labels are masked by position, never by token id, so an end token that also pads is still learnt.
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("%s has no padding token; its end token %r pads", model.name, tokenizer.eos_token)
    return tokenizer
