"""Files of a model's repository that a run reads."""

import re

from eyas.errors import PreflightError
from eyas.hub.snapshot import Tree

SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".spm", ".bpe")
"""Suffixes of configs, tokenizers and chat templates, at the top of a repository."""
ADAPTER = "adapter_config.json"
TEMPLATES = "additional_chat_templates/"
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


def model_files(label: str, tree: Tree, weights: bool, safetensors: bool, code: bool) -> list[str]:
    """Return the files to read of a model's commit: config and tokenizer, and weights and code if requested.

    `label` names the model in messages. Raises PreflightError for a repository that is not a model, and for weights
    in another format than the requested one.
    """
    if "config.json" not in tree:
        what = "is an adapter; name the base model" if ADAPTER in tree else "has no config.json"
        raise PreflightError(f"{label}: {what}")
    files = [path for path in tree if path.endswith(SMALL) and (path.startswith(TEMPLATES) or "/" not in path)]
    if code:
        files += [path for path in tree if path.endswith(".py")]
    return sorted(files + (weight_files(label, tree, safetensors) if weights else []))


def weight_files(label: str, tree: Tree, safetensors: bool) -> list[str]:
    """Return the weight files of a model in one format; raise PreflightError where there are none.

    `tree` may also be the files of a local folder. An adapter next to the weights is refused, because transformers
    would load it with them, without a word.
    """
    if ADAPTER in tree:
        raise PreflightError(
            f"{label}: has an {ADAPTER} next to its weights, so transformers would load that adapter as a part of the "
            "base; merge it into the weights, or move it to a folder of its own"
        )
    by_format = {format: [path for path in tree if format.fullmatch(path)] for format in (SAFETENSORS, PICKLES)}
    chosen = by_format[SAFETENSORS if safetensors else PICKLES]
    if not chosen and safetensors and by_format[PICKLES]:
        raise PreflightError(
            f"{label}: its weights are pickles ({by_format[PICKLES][0]}) and not safetensors. Set "
            "model.use_safetensors: false to load them anyway, with torch's restricted loader"
        )
    if not chosen:
        raise PreflightError(
            f"{label}: has no weights in {'safetensors' if safetensors else 'pytorch_model.bin'}; "
            f"it has {', '.join(sorted(tree)[:8])}"
        )
    whole = [path for path in chosen if "-of-" not in path]  # transformers takes one whole file before any shards
    if whole:
        return whole
    count = int(re.findall(r"\d+", chosen[0])[-1])
    if len(chosen) != count:
        raise PreflightError(f"{label}: has {len(chosen)} of {count} weight files ({chosen[0]} …); download the rest")
    return chosen
