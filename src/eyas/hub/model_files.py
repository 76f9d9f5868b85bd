"""Which files of a model's repository a run reads."""

import re

from eyas.errors import PreflightError
from eyas.hub.snapshot import Tree

SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".spm", ".bpe")
"""Endings of configs, tokenizers and chat templates, which stand at the top of a repository."""
TEMPLATES = "additional_chat_templates/"
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


def model_files(who: str, tree: Tree, weights: bool, safetensors: bool, code: bool) -> list[str]:
    """Return the files of a model's commit that are read: config and tokenizer, the weights and the code on request.

    `who` names the model in messages. Raises PreflightError for a repository that is no model, or whose weights are not
    in the format asked for.
    """
    if "config.json" not in tree:
        what = "is an adapter; name the base model" if "adapter_config.json" in tree else "has no config.json"
        raise PreflightError(f"{who}: {what}")
    files = [path for path in tree if path.endswith(SMALL) and (path.startswith(TEMPLATES) or "/" not in path)]
    if code:
        files += [path for path in tree if path.endswith(".py")]
    return sorted(files + (weight_files(who, tree, safetensors) if weights else []))


def weight_files(who: str, tree: Tree, safetensors: bool) -> list[str]:
    """Return the files with a model's weights, of one format. Raises PreflightError where there are none.

    `tree` may also be the files of a local folder.
    """
    found = {format: [path for path in tree if format.fullmatch(path)] for format in (SAFETENSORS, PICKLES)}
    chosen = found[SAFETENSORS if safetensors else PICKLES]
    if not chosen and safetensors and found[PICKLES]:
        raise PreflightError(
            f"{who}: its weights are pickles ({found[PICKLES][0]}) and not safetensors. Set "
            "model.use_safetensors: false to load them all the same, with torch's restricted loader"
        )
    if not chosen:
        raise PreflightError(
            f"{who}: has no weights in {'safetensors' if safetensors else 'pytorch_model.bin'}; "
            f"it has {', '.join(sorted(tree)[:8])}"
        )
    whole = [path for path in chosen if "-of-" not in path]  # transformers takes one whole file before any shards
    if whole:
        return whole
    count = int(re.findall(r"\d+", chosen[0])[-1])
    if len(chosen) != count:
        raise PreflightError(f"{who}: has {len(chosen)} of {count} weight files ({chosen[0]} …); bring the rest here")
    return chosen
