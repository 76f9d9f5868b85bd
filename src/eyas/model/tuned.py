"""A base and what was trained on it, opened again from disk for evaluation, merging and generation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.model.load import load_config, load_model
from eyas.model.peft_refusals import pefts_refusals
from eyas.model.precision import torch_dtype, weights_in
from eyas.model.quantization import dequantize
from eyas.model.saved import refuse_unsound, saved_names, saved_tensors
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
    look_at_base: Callable[[Any], None] | None = None,
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
    made_on = torch_dtype(recipe.model.dtype)
    if made_on == dtype or recipe.adapter is None or not recipe.adapter.initialized_from_base:
        base = load_base(recipe, auto_model, labels, dtype, quantized)
        if look_at_base is not None:
            look_at_base(base)
        return attached(base, folder, saved)
    if look_at_base is not None:
        look_at_base(load_base(recipe, auto_model, labels, dtype, quantized))
    # What PiSSA and OLoRA take out of the base is found again only in the dtype that it was taken from. The file's
    # float32 is rounded to that dtype on its way, so it is read again.
    model = weights_in(attached(load_base(recipe, auto_model, labels, made_on, quantized), folder, saved), dtype)
    model.load_adapter(str(folder), "default", torch_device=model.device.type)
    return model


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


def refuse_unless_it_opens(folder: Path, auto_model: str) -> None:
    """Refuse a whole model whose file lacks tensors of its class, or has others. Raises CheckpointError."""
    import transformers

    _, found = getattr(transformers, auto_model).from_pretrained(
        str(folder), dtype="auto", local_files_only=True, output_loading_info=True
    )
    wrong = {what: sorted(map(str, names))[:3] for what, names in found.items() if names}
    if wrong:
        raise CheckpointError(f"{folder}: does not open as {auto_model}: {wrong}")


def attached(base: Any, folder: Path, saved: Mapping[str, Any]) -> Any:
    """Return a base with the adapter of a folder, whose tensors are `saved`; a base on the meta device stays there.

    Raises CheckpointError where the file has not just those tensors that the adapter has on this base.
    """
    from peft import PeftModel

    device = base.device.type
    try:
        with pefts_refusals():
            model = PeftModel.from_pretrained(
                base,
                str(folder),
                torch_device="cpu" if device in ("cpu", "meta") else None,
                low_cpu_mem_usage=device == "meta",
            )
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: does not fit this base: {str(error).splitlines()[-1].strip()}") from error
    expected = saved_names(model)
    missing, extra = sorted(expected.keys() - saved.keys()), sorted(saved.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(f"{folder}: does not fit this base; lacks {missing[:3]}, has {extra[:3]} besides")
    return model.eval()


def merged(tuned: Any) -> Any:
    """Return the base of a model with an adapter, the adapter merged into it.

    An output head that shares its weight with the embeddings first gets one of its own, if the adapter sits on either:
    what is merged into one would be in the other too. It shares it again where both come out the same.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    embeddings, head = tuned.get_input_embeddings(), tuned.get_output_embeddings()
    tied = head is not None and tuned.config.get_text_config().tie_word_embeddings
    if tied and any(isinstance(layer, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for layer in (embeddings, head)):
        own = _base_of(head)
        own.weight = torch.nn.Parameter(own.weight.detach().clone())
    with pefts_refusals():
        model = tuned.merge_and_unload(safe_merge=True)
    if tied and torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        model.config.get_text_config().tie_word_embeddings = True
        model.tie_weights()
    return model


def _base_of(layer: Any) -> Any:
    """Return the layer of the base that an adapter has wrapped."""
    base = getattr(layer, "base_layer", getattr(layer, "original_module", layer))
    return base if base is layer else _base_of(base)
