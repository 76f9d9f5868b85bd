"""The base model: its config, its empty shape, its weights."""

from collections.abc import Sequence
from typing import Any

from eyas.errors import PreflightError
from eyas.model.precision import torch_dtype
from eyas.model.quantization import (
    bits_and_bytes_config,
    falcon_can_be_quantized,
    left_unquantized,
    stay_as_quantized,
)
from eyas.recipe.model import Model, Quantization


def load_config(model: Model, labels: Sequence[str] | None = None) -> Any:
    """Return the base model's config, with a head for these classes if there are any."""
    from transformers import AutoConfig

    classes = {} if labels is None else {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }  # fmt: skip
    try:
        return AutoConfig.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code, **classes
        )
    except (OSError, ValueError) as error:
        raise PreflightError(
            f"model.name {model.name}: neither a folder with a model nor on the hub: {error}"
        ) from error


def empty_model(config: Any, auto_model: str, trust_remote_code: bool = False) -> Any:
    """Return the model on the meta device: every module and shape, no weights, no memory."""
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, auto_model).from_config(config, trust_remote_code=trust_remote_code)


def load_model(
    model: Model, quantization: Quantization | None, config: Any, auto_model: str, in_full: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """Return the base model with its weights, and the names of parameters that it had to initialise at random.

    Layers that will be trained `in_full` are left out of the quantization. Under ZeRO-3 the training arguments must
    exist already, so that weights are sharded while they load. Raises PreflightError when the weights cannot be had, or
    not in the quantization or with the attention that was asked for.
    """
    import transformers

    options: dict[str, Any] = {"dtype": torch_dtype(model.dtype)}
    if model.attn_implementation is not None:
        options["attn_implementation"] = model.attn_implementation
    if quantization is not None:
        options["quantization_config"] = bits_and_bytes_config(quantization, model, in_full)
    try:
        with falcon_can_be_quantized():
            loaded, information = getattr(transformers, auto_model).from_pretrained(
                model.name,
                config=config,
                revision=model.revision,
                use_safetensors=model.use_safetensors,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                **options,
            )
    except OSError as error:
        raise PreflightError(f"model.name {model.name}: its weights cannot be loaded: {error}") from error
    stay_as_quantized(loaded)
    passed_over = left_unquantized(loaded, in_full) if quantization is not None else []
    if passed_over:
        raise PreflightError(
            f"{model.name}: quantization was asked for, and {len(passed_over)} linear layers would stay in full "
            f"precision, such as {passed_over[0]}; name them in quantization.llm_int8_skip_modules if that is meant"
        )
    asked = model.attn_implementation
    used = getattr(loaded.config, "_attn_implementation", None)
    if asked is not None and used != asked:
        raise PreflightError(f"model.attn_implementation: {asked} was asked for and {used} would run")
    return loaded, sorted(information["missing_keys"])


def model_limits_of(config: Any) -> tuple[int, int]:
    """Return how many tokens the model reads at most (without a stated limit, no limit), and how many ids it knows."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or 2**31), int(text.vocab_size)
