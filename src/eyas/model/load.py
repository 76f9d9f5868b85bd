"""The base model: its config, its empty shape, its weights."""

import logging
from collections.abc import Iterable, Sequence
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from eyas.errors import PreflightError
from eyas.model.foreign_files import refuse_foreign_base
from eyas.model.prequantized import quantized_as
from eyas.model.quantization import (
    bits_and_bytes_config,
    falcon_can_be_quantized,
    left_unquantized,
    stay_as_quantized,
    torch_dtype,
)
from eyas.recipe.model import Model, Quantization

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

POSITIONS = ("max_position_embeddings", "max_seq_len")
"""Names of a config's number of positions; the second is MPT's."""


def load_config(model: Model, labels: Sequence[str] | None = None) -> "PretrainedConfig":
    """Return the base model's config, with a head for these classes if there are any.

    Raises PreflightError for a name that is neither a folder nor on the hub, and for a folder with foreign code.
    """
    from transformers import AutoConfig

    refuse_foreign_base(model)

    classes = {} if labels is None else {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }  # fmt: skip
    try:
        return AutoConfig.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code, **classes
        )
    except (OSError, ValueError) as error:
        raise PreflightError(
            f"model.name {model.name}: neither a folder with a model nor on the hub: {error}"
        ) from error


def empty_model(
    config: "PretrainedConfig", auto_model: str, trust_remote_code: bool = False, attention: str | None = None
) -> "PreTrainedModel":
    """Return the model on the meta device: every module and shape, no weights, no memory."""
    import torch
    import transformers

    options = {} if attention is None else {"attn_implementation": attention}
    with torch.device("meta"):
        return getattr(transformers, auto_model).from_config(config, trust_remote_code=trust_remote_code, **options)


def load_model(
    model: Model,
    quantization: Quantization | None,
    config: "PretrainedConfig",
    auto_model: str,
    in_full_precision: Sequence[str] = (),
) -> tuple["PreTrainedModel", list[str]]:
    """Return the base model with its weights, and the names of its newly initialized parameters.

    Modules `in_full_precision` are not quantized (see `kept_in_full_precision`). Under ZeRO-3 the training arguments
    must exist already, so that weights are sharded while they load. Raises PreflightError for weights that cannot be
    loaded, and for a quantization or attention that differs from the requested one.
    """
    import transformers
    from safetensors import SafetensorError

    options: dict[str, Any] = {"dtype": torch_dtype(model.dtype)}
    if model.attn_implementation is not None:
        options["attn_implementation"] = model.attn_implementation
    if quantization is not None:
        options |= quantized_as(bits_and_bytes_config(quantization, model, in_full_precision), config)
    try:
        with falcon_can_be_quantized():
            loaded, information = getattr(transformers, auto_model).from_pretrained(
                model.name,
                config=config,
                revision=model.revision,
                use_safetensors=model.use_safetensors,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are looked at below
                **options,
            )
    except (OSError, SafetensorError, UnpicklingError) as error:
        raise PreflightError(f"model.name {model.name}: its weights cannot be loaded: {error}") from error
    except ValueError as error:  # settings that contradict each other, for example in generation_config.json
        raise PreflightError(f"model.name {model.name}: its settings cannot be loaded: {error}") from error
    stay_as_quantized(loaded)
    if quantization is not None:
        _refuse_unquantized(model, loaded)
    _refuse_other_attention(model, loaded)
    return loaded, sorted(
        {*information["missing_keys"], *_replaced_head(model, config, information["mismatched_keys"])}
    )


def model_limits_of(model: "PreTrainedModel") -> tuple[int, int]:
    """Return the model's longest input in tokens (without a stated limit, 2³¹) and its number of token ids.

    A model with padding among its positions (see `padding_position`) counts a row's positions from the next one.
    """
    text, padding = model.config.get_text_config(), padding_position(model)
    stated = (getattr(text, name, None) for name in POSITIONS)
    positions = next((int(number) for number in stated if number), 2**31)
    return positions if padding is None else positions - padding - 1, int(text.vocab_size)


def padding_position(model: "PreTrainedModel") -> int | None:
    """Return the padding token's id where the table of positions has a row for it, as RoBERTa's; else None.

    Such a model finds its padding by that id.
    """
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and "position" in name.rpartition(".")[2]:
            padding: int | None = module.padding_idx
            return padding
    return None


def base_classes(config: "PretrainedConfig", auto_model: str) -> list[str]:
    """Return the class names of a base that already is a classifier of this kind; empty for any other base."""
    head = auto_model.removeprefix("AutoModel")
    if not any(name.endswith(head) for name in config.architectures or []):
        return []
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def _replaced_head(
    model: Model, config: "PretrainedConfig", mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]
) -> list[str]:
    """Return the parameters of a head for other classes than the base's; such a head is new.

    Raises PreflightError for any other weight whose shape is not that of the model.
    """
    shapes = {name: (tuple(stored), tuple(wanted)) for name, stored, wanted in mismatched}
    classes = (load_config(model).num_labels, config.num_labels) if shapes else (0, 0)
    for name, (stored, wanted) in shapes.items():
        if (stored[0], wanted[0]) != classes or stored[1:] != wanted[1:]:
            raise PreflightError(
                f"model.name {model.name}: {name} has the shape {stored}, and its config says {wanted}"
            )
    if shapes:
        logger.info(
            f"the head of {model.name} has {classes[0]} classes, the rows have {classes[1]}: a new one is trained"
        )
    return list(shapes)


def _refuse_unquantized(model: Model, loaded: "PreTrainedModel") -> None:
    names = left_unquantized(loaded)
    if names:
        raise PreflightError(
            f"{model.name}: quantization was requested, but {len(names)} linear layers would stay in full precision, "
            f"such as {names[0]}; name them in quantization.llm_int8_skip_modules if that is intended"
        )


def _refuse_other_attention(model: Model, loaded: "PreTrainedModel") -> None:
    requested, used = model.attn_implementation, getattr(loaded.config, "_attn_implementation", None)
    if requested is not None and used != requested:
        raise PreflightError(f"model.attn_implementation: {requested} was requested, but {used} would run")
