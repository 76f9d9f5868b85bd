"""The tokenizer of a base model."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.errors import PreflightError
from eyas.model.foreign_files import refuse_foreign_base
from eyas.recipe.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def load_tokenizer(model: Model) -> "PreTrainedTokenizerBase":
    """Return the base model's tokenizer, with a padding token and the recipe's chat template if it names one.

    Raises PreflightError when it cannot be loaded, or has neither a padding nor an end token.
    """
    from transformers import AutoTokenizer

    refuse_foreign_base(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # tokenizers 0.23 raises plain Exceptions for damaged files
        raise PreflightError(f"model.name {model.name}: its tokenizer cannot be loaded: {error}") from error
    if model.chat_template is not None:
        tokenizer.chat_template = Path(model.chat_template).read_text(encoding="utf-8")
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise PreflightError(f"model.name {model.name}: its tokenizer has neither a padding token nor an end token")
    if tokenizer.pad_token is None:
        # Labels are masked by position, never by token id, so an end token that also pads still has its label.
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("%s has no padding token; its end token %r pads", model.name, tokenizer.eos_token)
    return tokenizer


def save_tokenizer(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Save a tokenizer so that transformers 4 and 5 both open it, and read the same tokens.

    transformers 5.24 writes two things that 4.57 refuses: the class name TokenizersBackend, and further special tokens
    under another key. It reads the older names too. 4.57 also takes `add_prefix_space` from the settings alone. Can go
    once no reader has transformers 4.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        before_splitting = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
        if "add_prefix_space" in before_splitting:
            settings.setdefault("add_prefix_space", before_splitting["add_prefix_space"])
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
