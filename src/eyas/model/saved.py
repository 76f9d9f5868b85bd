"""The tensors that peft saves of an adapter: their names, shapes and values, and how they are written."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]
"""The shape of each tensor by the name that it is saved under."""

ADAPTER_CONFIG = "adapter_config.json"
PAIRS = {"lora_A": "lora_B", "lora_embedding_A": "lora_embedding_B"}
"""Factors of an update: it is zero where either of them is."""


def saved_names(model: Any) -> dict[str, str]:
    """Return the names that peft saves an adapter's tensors under, each with the tensor's name in the model.

    The names are peft's own: it is handed a state dict that holds names in the place of tensors.
    """
    from peft import get_peft_model_state_dict

    names: dict[str, str] = get_peft_model_state_dict(
        model, state_dict={name: name for name in model.state_dict()}, save_embedding_layers=False
    )
    return names


def saved_shapes(model: Any) -> Shapes:
    """Return the shape of each tensor of an adapter's file; those of a whole one where ZeRO-3 has sharded it."""
    tensors = _tensors_of(model)
    return {saved: tuple(_shape(tensors[name])) for saved, name in saved_names(model).items()}


def gathered(model: Any) -> dict[str, Any]:
    """Return an adapter's tensors by their names in the model, whole ones where they are sharded.

    Every rank must call it. The frozen base is not gathered: it is not saved with an adapter.
    """
    tensors = _tensors_of(model)
    wanted = {name: tensors[name] for name in saved_names(model).values()}
    with _whole(list(wanted.values())):
        return {name: _copy(tensor) for name, tensor in wanted.items()}


def write_adapter(model: Any, state: Mapping[str, Any], folder: Path) -> None:
    """Write an adapter of these tensors (see `gathered`) as peft does.

    Embeddings that an adapter sits on are not written with it: they are the base's, and frozen. What the config holds
    as sets is written in order, so that two runs write the same bytes.
    """
    model.save_pretrained(folder, state_dict=dict(state), save_embedding_layers=False)
    config, file = model.peft_config["default"], folder / ADAPTER_CONFIG
    written = json.loads(file.read_text(encoding="utf-8"))
    ordered = {name: sorted(value) for name, value in config.to_dict().items() if isinstance(value, set)}
    file.write_text(json.dumps(written | ordered, indent=2, sort_keys=True), encoding="utf-8")


def digest(tensor: Any) -> str:
    """Return the SHA-256 of a tensor's values."""
    import torch

    return hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()


def digests(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each tensor by its name."""
    return {name: digest(tensor) for name, tensor in tensors.items()}


def saved_tensors(folder: Path) -> dict[str, Any]:
    """Return every tensor of the folder's safetensors files; no pickle is opened."""
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def check_saved(folder: Path, shapes: Shapes, untouched: Mapping[str, str] | None = None) -> int:
    """Reopen an adapter or model that was just written and return its number of parameters.

    `untouched` are the digests before the first step; without them, an adapter that has not been trained is sound.
    Raises CheckpointError for a missing, extra, misshapen or non-finite tensor, and where training changed none.
    """
    saved = saved_tensors(folder)
    refuse_other_names(folder, saved.keys(), shapes.keys())
    for name, tensor in saved.items():
        if tuple(tensor.shape) != shapes[name]:
            raise CheckpointError(f"{folder}: {name} was saved as {tuple(tensor.shape)}, trained as {shapes[name]}")
    _refuse_no_numbers(folder, saved)
    if untouched is not None:
        refuse_unsound(folder, saved)
        if untouched and digests(saved) == untouched:
            raise CheckpointError(f"{folder}: training changed no tensor, so the adapter is as it was before")
    return sum(tensor.numel() for tensor in saved.values())


def refuse_other_names(folder: Path, found: Any, wanted: Any) -> None:
    """Refuse a file that lacks tensors or has others besides."""
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        raise CheckpointError(f"{folder}: the saved file lacks {missing[:3]} and has {extra[:3]} besides")


def refuse_unsound(folder: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse weights that nothing can have been learnt in: none, not finite, or every update zero."""
    if not tensors:
        raise CheckpointError(f"{folder}: holds no tensor")
    _refuse_no_numbers(folder, tensors)
    updates = list(_updates(tensors))
    if updates and not any(all(factor.any() for factor in factors) for factors in updates):
        raise CheckpointError(f"{folder}: every update is zero, so the adapter is identical to the base model")


def _refuse_no_numbers(folder: Path, tensors: Mapping[str, Any]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{folder}: {name} holds NaN or infinity; resume from an earlier checkpoint")


def _updates(tensors: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield the factors of each low-rank update: both of them, or the one that is there."""
    for first, second in PAIRS.items():
        for name, tensor in tensors.items():
            if f".{first}" in name:
                other = tensors.get(name.replace(f".{first}", f".{second}"))
                yield [tensor] if other is None else [tensor, other]
            elif f".{second}" in name and name.replace(f".{second}", f".{first}") not in tensors:
                yield [tensor]


def _tensors_of(model: Any) -> dict[str, Any]:
    """Return every parameter and buffer by name; one that is shared has each of its names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


@contextmanager
def _whole(tensors: list[Any]) -> Iterator[None]:
    """Have every rank hold all of the tensors that ZeRO-3 has sharded."""
    sharded = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded):
        yield


def _copy(tensor: Any) -> Any:
    """Return a tensor's values on the CPU, those of all ranks where FSDP2 has sharded it."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().to("cpu", copy=True)
