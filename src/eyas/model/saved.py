"""Tensors that peft saves of an adapter: names, shapes, values, writing and checking."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.errors import CheckpointError

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
"""Shape of each tensor by its name in the file."""

ADAPTER_CONFIG = "adapter_config.json"
PAIRS = {"lora_A": "lora_B", "lora_embedding_A": "lora_embedding_B"}
"""Factors of an update, which is zero where either of them is."""


def saved_names(model: "PeftModel") -> dict[str, "str | Tensor"]:
    """Return an adapter's tensor names in its file, each with the tensor's name in the model.

    The names are peft's own: it gets a state dict that holds names in place of tensors. A prompt-learning method
    computes its embeddings instead, and has them in place of a name.
    """
    from peft import get_peft_model_state_dict

    names: dict[str, str | Tensor] = get_peft_model_state_dict(
        model, state_dict={name: name for name in model.state_dict()}, save_embedding_layers=False
    )
    return names


def saved_shapes(model: "PeftModel") -> Shapes:
    """Return the whole shape of each tensor of an adapter's file."""
    tensors = _tensors_of(model)
    return {
        saved: tuple(_shape(tensors[source] if isinstance(source, str) else source))
        for saved, source in saved_names(model).items()
    }


def gathered(model: "PeftModel") -> dict[str, "Tensor"]:
    """Return an adapter's tensors by their names in the model, gathered where they are sharded.

    Every rank must call it. The frozen base is not gathered: it is not saved with an adapter.
    """
    tensors = _tensors_of(model)
    wanted = {source: tensors[source] for source in saved_names(model).values() if isinstance(source, str)}
    with _whole(list(wanted.values())):
        return {name: _copy(tensor) for name, tensor in wanted.items()}


def write_adapter(model: "PeftModel", state: Mapping[str, "Tensor"], folder: Path) -> None:
    """Write an adapter of these tensors (see `gathered`) as peft does.

    Embeddings under an adapter are not written with it: they belong to the base and are frozen. Sets in the config
    are written in order, so that two runs write the same bytes. The generation_config tells readers of the adapter
    where its answers end.
    """
    model.save_pretrained(folder, state_dict=dict(state), save_embedding_layers=False)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    config, file = model.peft_config["default"], folder / ADAPTER_CONFIG
    written = json.loads(file.read_text(encoding="utf-8"))
    ordered = {name: sorted(value) for name, value in config.to_dict().items() if isinstance(value, set)}
    file.write_text(json.dumps(written | ordered, indent=2, sort_keys=True), encoding="utf-8")


def digest(tensor: "Tensor") -> str:
    """Return the SHA-256 of a tensor's values."""
    import torch

    return hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()


def digests(tensors: Mapping[str, "Tensor"]) -> dict[str, str]:
    """Return the digest of each tensor by its name."""
    return {name: digest(tensor) for name, tensor in tensors.items()}


def saved_tensors(folder: Path) -> dict[str, "Tensor"]:
    """Return all tensors of the folder's safetensors files. No pickle is opened.

    Raises CheckpointError for a damaged file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= load_file(file)
        except SafetensorError as error:
            raise CheckpointError(f"{file}: is damaged: {error}") from None
    return tensors


def check_saved(folder: Path, shapes: Shapes, untouched: Mapping[str, str] | None = None) -> int:
    """Reopen an adapter or model that was just written, and return its number of parameters.

    `untouched` are the digests before the first step; without them, an untrained adapter passes.
    Raises CheckpointError for a missing, extra, misshapen or non-finite tensor, and where training changed none.
    """
    saved = saved_tensors(folder)
    refuse_other_names(folder, saved.keys(), shapes.keys())
    for name, tensor in saved.items():
        if tuple(tensor.shape) != shapes[name]:
            raise CheckpointError(f"{folder}: {name} was saved as {tuple(tensor.shape)}, trained as {shapes[name]}")
    _refuse_nonfinite(folder, saved)
    if untouched is not None:
        refuse_unsound(folder, saved)
        if untouched and digests(saved) == untouched:
            raise CheckpointError(f"{folder}: training changed no tensor of the adapter")
    return sum(tensor.numel() for tensor in saved.values())


def refuse_other_names(folder: Path, saved: Set[str], wanted: Set[str]) -> None:
    """Refuse a file with missing or unexpected tensors. Raises CheckpointError."""
    missing, extra = sorted(wanted - saved), sorted(saved - wanted)
    if missing or extra:
        raise CheckpointError(f"{folder}: the saved file lacks {missing[:3]} and has unexpected {extra[:3]}")


def refuse_unsound(folder: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Refuse weights that cannot be the result of training: none, not finite, or every update zero.

    Raises CheckpointError.
    """
    if not tensors:
        raise CheckpointError(f"{folder}: holds no tensor")
    _refuse_nonfinite(folder, tensors)
    updates = list(_updates(tensors))
    if updates and not any(all(factor.any() for factor in factors) for factors in updates):
        raise CheckpointError(f"{folder}: every update is zero, so the adapter is identical to the base model")


def _refuse_nonfinite(folder: Path, tensors: Mapping[str, "Tensor"]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{folder}: {name} holds NaN or Inf; resume from an earlier checkpoint")


def _updates(tensors: Mapping[str, "Tensor"]) -> Iterator[list["Tensor"]]:
    """Yield the factors of each low-rank update: both of them, or the only one."""
    for first, second in PAIRS.items():
        for name, tensor in tensors.items():
            if f".{first}" in name:
                other = tensors.get(name.replace(f".{first}", f".{second}"))
                yield [tensor] if other is None else [tensor, other]
            elif f".{second}" in name and name.replace(f".{second}", f".{first}") not in tensors:
                yield [tensor]


def _tensors_of(model: "PeftModel") -> dict[str, "Tensor"]:
    """Return every parameter and buffer by name; a shared one appears under each of its names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _shape(tensor: "Tensor") -> tuple[int, ...]:
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


@contextmanager
def _whole(tensors: list["Tensor"]) -> Iterator[None]:
    """Gather the tensors that ZeRO-3 has sharded, on every rank."""
    sharded = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded):
        yield


def _copy(tensor: "Tensor") -> "Tensor":
    """Return a tensor's values on the CPU, gathered where FSDP2 has sharded it."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().to("cpu", copy=True)
