"""Cache key of the prepared rows. Each part has a name, so that a miss can be explained."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.data.cache import Key
from eyas.data.examples import ModelLimits
from eyas.data.sources import digest_of_source
from eyas.files import digest_of_files
from eyas.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIBRARIES = ("transformers", "tokenizers", "jinja2")
WITHOUT_EFFECT = {"train", "evaluation", "test", "cache_directory", "pad_to_max_length"}
"""Fields of `data` that change no prepared row. Sources are keyed by their bytes and their own fields."""


def key_of(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", limits: ModelLimits) -> Key:
    """Return the key of a recipe's prepared rows."""
    data, training = recipe.data, recipe.training
    sources = {"training": data.training_sources, "held-out": list(data.held_out_sources.values())}
    return {
        "task": recipe.task,
        **{f"{name} rows": [digest_of_source(source) for source in listed] for name, listed in sources.items()},
        **{f"{name} sources": [source.model_dump() for source in listed] for name, listed in sources.items()},
        **{f"data.{name}": value for name, value in data.model_dump(exclude=WITHOUT_EFFECT).items()},
        "tokenizer": _digest_of_tokenizer(tokenizer),
        "chat template": _digest(str(tokenizer.chat_template)),
        "training.max_length": training.max_length,
        "training.packing": bool(training.library_arguments.get("packing")),
        "training.seed": training.seed,
        "positions of the model": limits.positions,
        "vocabulary of the model": limits.vocabulary_size,
        "classes of the model": list(limits.classes),
        "eyas": digest_of_files(Path(__file__).parent.rglob("*.py")),
        **{library: version(library) for library in LIBRARIES},
    }


def _digest_of_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the digest of a tokenizer without its chat template: vocabulary, merges, normalizer, special tokens."""
    backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else str(sorted(tokenizer.get_vocab().items()))
    return _digest(f"{type(tokenizer).__name__} {backend} {tokenizer.special_tokens_map} {tokenizer.padding_side}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
