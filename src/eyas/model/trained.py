"""A run's model, opened from disk for evaluation, merging and generation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.errors import CheckpointError
from eyas.model.adapter import refuse_unmergeable
from eyas.model.foreign_files import refuse_foreign_files, refuse_importing_adapter
from eyas.model.load import empty_model, load_config, load_model
from eyas.model.padding import pad_like
from eyas.model.peft_refusals import pefts_refusals
from eyas.model.quantization import dequantize, kept_in_full_precision, torch_dtype, weights_in
from eyas.model.saved import refuse_unsound, saved_names, saved_tensors
from eyas.model.tokenizer import load_tokenizer
from eyas.recipe import Recipe
from eyas.sealing import refuse_unless_sealed

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, dtype
    from torch.nn import Module
    from transformers import PreTrainedModel


def load_base(
    recipe: Recipe, auto_model: str, labels: Sequence[str] | None, dtype: "dtype", quantized: bool = True
) -> "PreTrainedModel":
    """Return the base that the adapter was trained on, computing in `dtype`.

    A quantized one is dequantized. With `quantized` false it is the published base instead, which a 4-bit adapter has
    never seen. New layers, such as a classifier's head, are drawn with the recipe's seed, so they are the same each
    time.
    """
    import torch

    config = load_config(recipe.model, labels)
    quantization, unquantized = recipe.quantization if quantized else None, []
    if quantization is not None and recipe.adapter is not None:
        empty = empty_model(config, auto_model, recipe.model.trust_remote_code)
        unquantized = kept_in_full_precision(empty, quantization, recipe.adapter.trained_in_full)
    torch.manual_seed(recipe.training.seed)
    base, _ = load_model(recipe.model, quantization, config, auto_model, unquantized)
    if labels is not None:
        pad_like(load_tokenizer(recipe.model), base)
    return dequantize(base, dtype).eval()


def load_tuned(
    recipe: Recipe,
    auto_model: str,
    labels: Sequence[str] | None,
    dtype: "dtype",
    folder: Path,
    quantized: bool = True,
    look_at_base: Callable[["PreTrainedModel"], None] | None = None,
) -> "PeftModel":
    """Return the base (see `load_base`) with the saved adapter attached, computing in `dtype`.

    `look_at_base` receives the base before the adapter is attached. Raises CheckpointError for an adapter that is
    absent, changed since it was sealed, unsound, incomplete or made for another base; peft itself only warns about an
    empty one. The files are checked before the base is loaded.
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
    # PiSSA and OLoRA take their start out of the base, and the same start comes only from the same dtype. Attaching
    # rounds the file's float32 to that dtype, so the file is read again.
    model = weights_in(attached(load_base(recipe, auto_model, labels, made_on, quantized), folder, saved), dtype)
    model.load_adapter(str(folder), "default", torch_device=model.device.type)
    return model


def load_saved(folder: Path, auto_model: str, dtype: "dtype") -> "PreTrainedModel":
    """Return a whole model that eyas wrote, computing in `dtype`.

    Raises CheckpointError where there is none, or a file has changed since it was sealed.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no model here; make it with eyas merge")
    refuse_unless_sealed(folder)
    refuse_foreign_files(folder)
    return load_unsealed(folder, auto_model, dtype)


def load_unsealed(folder: Path, auto_model: str, dtype: "dtype") -> "PreTrainedModel":
    """Return a whole model whose folder is not sealed yet, computing in `dtype`.

    Raises CheckpointError where transformers cannot open it without running code of the folder.
    """
    import transformers
    from safetensors import SafetensorError

    try:
        model = getattr(transformers, auto_model).from_pretrained(
            str(folder), dtype=dtype, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be opened: {error}") from error
    return model.eval()


def refuse_unless_it_opens(folder: Path, auto_model: str) -> None:
    """Refuse a whole model with missing or unexpected tensors. Raises CheckpointError."""
    import transformers

    _, information = getattr(transformers, auto_model).from_pretrained(
        str(folder), dtype="auto", local_files_only=True, output_loading_info=True, trust_remote_code=False
    )
    wrong = {kind: sorted(map(str, names))[:3] for kind, names in information.items() if names}
    if wrong:
        raise CheckpointError(f"{folder}: does not open as {auto_model}: {wrong}")


def attached(base: "PreTrainedModel", folder: Path, saved: Mapping[str, "Tensor"]) -> "PeftModel":
    """Return a base with the adapter of a folder, whose tensors are `saved`.

    A base on the meta device stays there.

    Raises CheckpointError where the file's tensors are not exactly those of the adapter on this base.
    """
    from peft import PeftModel

    device = base.device.type
    refuse_importing_adapter(folder)
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
        raise CheckpointError(f"{folder}: does not fit this base; lacks {missing[:3]}, has unexpected {extra[:3]}")
    return model.eval()


def merged(tuned: "PeftModel") -> "PreTrainedModel":
    """Merge the adapter of a model into its base, and return the base.

    An output head tied to the embeddings first gets its own weight if the adapter sits on either: a merge into one
    would change the other. They are tied again if both end up equal. Raises ExportError for a method that does not
    merge.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    refuse_unmergeable(tuned.peft_config["default"].peft_type.value.lower())
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


def _base_of(layer: "Module") -> "Module":
    """Return the base's layer inside an adapter's wrappers."""
    base = getattr(layer, "base_layer", getattr(layer, "original_module", layer))
    return base if base is layer else _base_of(base)
