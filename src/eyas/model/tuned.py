"""A base and what was trained on it, opened again from disk for evaluation, merging and generation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.model.adapter import refuse_unsound, saved_tensors
from eyas.model.load import load_config, load_model
from eyas.model.quantization import dequantize
from eyas.recipe import Recipe
from eyas.sealing import refuse_unless_sealed


def load_base(recipe: Recipe, auto_model: str, labels: Sequence[str] | None, dtype: Any, quantized: bool = True) -> Any:
    """Return the base whose weights training multiplied by: a quantized one dequantized, computing in `dtype`.

    With `quantized` false it is the base as published instead, which a 4-bit adapter has never seen. What the base
    lacks, such as a classifier's head, is drawn with the recipe's seed: the same one each time.
    """
    import torch

    torch.manual_seed(recipe.training.seed)
    config = load_config(recipe.model, labels)
    in_full = (recipe.adapter.modules_to_save or []) if recipe.adapter else []
    base, _ = load_model(recipe.model, recipe.quantization if quantized else None, config, auto_model, in_full)
    return dequantize(base, dtype).eval()


def load_tuned(
    recipe: Recipe,
    auto_model: str,
    labels: Sequence[str] | None,
    dtype: Any,
    folder: Path,
    quantized: bool = True,
    look_at_base: Callable[[Any], None] = lambda _base: None,
) -> Any:
    """Return the base (see `load_base`) with the saved adapter beside it, every tensor of the file in its place.

    Raises CheckpointError for an adapter that is absent, not as it was sealed, unsound, incomplete or made for another
    base; peft itself loads an empty one with a warning. What the files alone tell is told before the base is loaded.
    `look_at_base` is given the base before anything is attached to it.
    """
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder}: no adapter here; was the run finished?")
    refuse_unless_sealed(folder)
    saved = saved_tensors(folder)
    refuse_unsound(folder, saved)
    base = load_base(recipe, auto_model, labels, dtype, quantized)
    look_at_base(base)
    return _attached(base, folder, saved)


def load_saved(folder: Path, auto_model: str, dtype: Any) -> Any:
    """Return a whole model that eyas wrote, computing in `dtype`.

    Raises CheckpointError where there is none, or a byte is not as it was sealed.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no model here; make it with eyas merge")
    refuse_unless_sealed(folder)
    return load_unsealed(folder, auto_model, dtype)


def load_unsealed(folder: Path, auto_model: str, dtype: Any) -> Any:
    """Return a whole model whose folder is still being made, computing in `dtype`."""
    import transformers

    return getattr(transformers, auto_model).from_pretrained(str(folder), dtype=dtype, local_files_only=True).eval()


def _attached(base: Any, folder: Path, saved: dict[str, Any]) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        model = PeftModel.from_pretrained(base, str(folder), torch_device="cpu" if base.device.type == "cpu" else None)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: does not fit this base: {str(error).splitlines()[-1].strip()}") from error
    expected = get_peft_model_state_dict(model)
    missing, extra = sorted(expected.keys() - saved.keys()), sorted(saved.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(f"{folder}: does not fit this base; lacks {missing[:3]}, has {extra[:3]} besides")
    return model.eval()
