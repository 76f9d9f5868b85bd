"""Refusal of model folders that name code or files from elsewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError, PreflightError
from eyas.files import read_json
from eyas.hub.local_code import digest_of_code
from eyas.model.base_identity import base_folder
from eyas.recipe.model import Model

IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
"""Ends of the keys for which transformers 5.24 takes `owner/name`: compiled code from the hub, which it runs."""
OWN_CLASS = re.compile(r"\w+\.\w+")
"""A class in a Python file of the same folder. `owner/name--module.Class` is of another repository."""
ADAPTER_IMPORTS = ("auto_mapping", "megatron_config", "tokenizer_name_or_path", "tokenizer_kwargs")
"""Settings of an adapter for which peft 0.21 imports a module or opens a tokenizer. eyas writes none of them."""


def refuse_foreign_base(model: Model) -> None:
    """Refuse a base that names code or files from elsewhere, before a library reads its folder.

    Its own code runs only where the recipe trusts it: by the commit of a hub repository, by the digest of a local
    folder. Raises PreflightError.
    """
    folder = base_folder(model)
    refuse_foreign_files(folder, model.trust_remote_code)
    if model.trust_remote_code and model.is_local and (digest := digest_of_code(folder)) != model.code_sha256:
        raise PreflightError(f"model.code_sha256: the code in {model.name} has the digest {digest}; see eyas check")


def refuse_foreign_files(folder: Path, trusted: bool = False) -> None:
    """Refuse a model folder whose configs name compiled code of the hub, or files outside the folder.

    `trusted` code may only be its own. Raises PreflightError.
    """
    for file in sorted([*folder.glob("*config.json"), *folder.glob("*.index.json")]):
        for path, value in _texts(_object_in(file)):
            if problem := _problem(path, value, trusted):
                raise PreflightError(f"{file}: {'.'.join(path)}: {value!r} {problem}")


def refuse_importing_adapter(folder: Path) -> None:
    """Refuse an adapter whose config would import a module. Raises CheckpointError."""
    file = folder / "adapter_config.json"
    try:
        config = _object_in(file)
    except PreflightError as refusal:
        raise CheckpointError(str(refusal)) from None
    foreign = next((name for name in ADAPTER_IMPORTS if config.get(name)), None)
    if foreign is not None:
        raise CheckpointError(
            f"{file}: {foreign}: {config[foreign]!r} makes peft import code; eyas writes no such adapter. Restore it "
            "from a copy, or train again"
        )


def _object_in(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except OSError as error:
        raise PreflightError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as reason:
        raise PreflightError(f"{file}: {reason}; restore it from a copy") from None


def _texts(value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each text in a JSON value with the keys that lead to it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while waiting:
        path, here = waiting.pop()
        if isinstance(here, str):
            yield path, here
        elif isinstance(here, dict):
            waiting += [((*path, key), inner) for key, inner in here.items()]
        elif isinstance(here, list):
            waiting += [((*path, str(index)), inner) for index, inner in enumerate(here)]


def _problem(path: tuple[str, ...], value: str, trusted: bool) -> str | None:
    """Return why a text at this path of a config is refused, or None."""
    of_weights = path[0] == "weight_map" or path[-1] == "transformers_weights"
    if of_weights and Path(value).name != value:
        return "is outside the model's folder; copy the file there and name it"
    if any(key.endswith(IMPLEMENTATIONS) for key in path) and "/" in value:
        return "is compiled code from the hub, which eyas never runs; remove the setting"
    if trusted and "auto_map" in path and not OWN_CLASS.fullmatch(value):
        return "is code of another repository or folder, which nothing pins; copy the code into this one"
    return None
