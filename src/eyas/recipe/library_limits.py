"""Limits of library arguments that their annotations do not state.

Names are read from the libraries' sources. Ranges are those in which the libraries work; a test compares both with the
imported libraries.
"""

import ast
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field

from eyas.recipe.library_signatures import (
    Argument,
    class_arguments,
    enumeration,
    function_arguments,
    mapping_type,
    one_of,
    refusals,
)
from eyas.recipe.library_sources import function_in, text_keys, value_in
from eyas.recipe.yaml_reader import Path

_BELOW_ONE = Annotated[float, Field(ge=0, lt=1)]
_NOT_NEGATIVE = Annotated[float, Field(ge=0)]
_POSITIVE = Annotated[float, Field(gt=0)]
_COUNT = Annotated[int, Field(gt=0)]
_INDEX = Annotated[int, Field(ge=0)]
_SEED = Annotated[int, Field(ge=0, lt=2**64)]
_PASSED_BY_THE_TRAINER = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")

RANGES: dict[str, Any] = {
    "adam_beta1": _BELOW_ONE,
    "adam_beta2": _BELOW_ONE,
    "adam_epsilon": _NOT_NEGATIVE,
    "alpha_pattern": dict[str, _POSITIVE] | None,
    "bnb_4bit_quant_storage": Literal["float16", "float32", "int8", "uint8", "float64", "bfloat16"] | None,
    "d_initial": _POSITIVE,
    "data_seed": _SEED | None,
    "dataloader_num_workers": _INDEX,
    "dataloader_prefetch_factor": _COUNT | None,
    "ddp_bucket_cap_mb": _COUNT | None,
    "ddp_timeout": _COUNT,
    "eval_accumulation_steps": _COUNT | None,
    "eval_delay": _NOT_NEGATIVE,
    "include_num_input_tokens_seen": Literal["all", "non_padding", "no"] | bool,
    "label_names": list[Literal["labels"]] | None,
    "label_smoothing_factor": Annotated[float, Field(ge=0, le=1)],
    "layers_to_transform": list[_INDEX] | _INDEX | None,
    "llm_int8_skip_modules": list[str] | None,
    "llm_int8_threshold": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "neftune_noise_alpha": _POSITIVE | None,
    "optim_args": Annotated[str, Field(pattern=r"^[ \w]+=[^,=]+(,[ \w]+=[^,=]+)*$")] | None,
    "pad_to_multiple_of": _COUNT | Literal["auto"] | None,
    "projection_prng_key": _SEED,
    "rank_pattern": dict[str, _COUNT] | None,
    "router_aux_loss_coef": _NOT_NEGATIVE | None,
    "torch_empty_cache_steps": _COUNT | None,
    "trainable_token_indices": list[_INDEX] | dict[str, list[_INDEX]] | None,
}
"""Values that work, by argument."""


def problems_of(argument: str, annotation: Any, value: Any, section: Mapping[str, Any]) -> dict[Path, str]:
    """Return why a value of a library argument is refused: a message for each place in the value.

    `section` holds the settings next to it.
    """
    types = _MAPPINGS[argument](section) if argument in _MAPPINGS else [annotation, *_limits_of(argument)]
    return next(filter(None, (refusals(each, value) for each in types)), {})


def schedule_arguments(schedule: object) -> dict[str, Argument]:
    """Return the arguments of a learning-rate schedule that `lr_scheduler_kwargs` may set; none for an unknown name."""
    function = _schedule_functions().get(schedule)
    if function is None:
        return {}
    arguments = function_arguments("transformers.optimization", function)
    source = function_in("transformers.optimization", function)
    if source.args.kwarg is not None:  # it passes all of them to a class
        returned = next(node.value for node in source.body if isinstance(node, ast.Return))
        assert isinstance(returned, ast.Call)
        arguments = class_arguments("transformers.optimization", ast.unparse(returned.func))
    return {name: argument for name, argument in arguments.items() if name not in _PASSED_BY_THE_TRAINER}


def warms_up(schedule: object) -> bool:
    """Return True for a schedule that begins with a warmup."""
    function = _schedule_functions().get(schedule)
    return function is None or "num_warmup_steps" in function_arguments("transformers.optimization", function)


@cache
def _schedule_functions() -> dict[object, str]:
    functions = value_in("transformers.optimization", "TYPE_TO_SCHEDULER_FUNCTION")
    members = enumeration("transformers.trainer_utils", "SchedulerType")
    assert isinstance(functions, ast.Dict)
    pairs = zip(functions.keys, functions.values, strict=True)
    return {members[key.attr]: ast.unparse(value) for key, value in pairs if isinstance(key, ast.Attribute)}


@cache
def _limits_of(argument: str) -> list[Any]:
    if argument in RANGES:
        return [RANGES[argument]]
    return [_NAMES[argument]()] if argument in _NAMES else []


def _log_levels() -> Any:
    return one_of((*text_keys(value_in("transformers.utils.logging", "log_levels")), "passive"))


def _compile_backends() -> Any:
    names = enumeration("accelerate.utils.dataclasses", "DynamoBackend").values()
    return one_of(tuple(name.lower() for name in names)) | None


def _compile_modes() -> Any:
    return one_of(tuple(text_keys(function_in("torch._inductor", "list_mode_options")))) | None


def _debug_options() -> Any:
    names = tuple(enumeration("transformers.debug_utils", "DebugOption").values())
    words = "|".join(names)
    return list[one_of(names)] | Annotated[str, Field(pattern=f"^({words})?( ({words}))*$")]  # type: ignore[misc]


_NAMES: dict[str, Callable[[], Any]] = {
    "debug": _debug_options,
    "log_level": _log_levels,
    "log_level_replica": _log_levels,
    "torch_compile_backend": _compile_backends,
    "torch_compile_mode": _compile_modes,
}
"""Readers of the types of arguments whose names stand in a library's source."""


def _schedule_kwargs(section: Mapping[str, Any]) -> list[Any]:
    schedule = section.get("lr_scheduler_type", "linear")
    known = schedule in _schedule_functions()
    return [mapping_type("lr_scheduler_kwargs", schedule_arguments(schedule)) | None] if known else []


def _checkpointing_kwargs(section: Mapping[str, Any]) -> list[Any]:
    enable = ("transformers.modeling_utils", "activation_checkpointing_enable", "PreTrainedModel")
    arguments = function_arguments(*enable) | function_arguments("torch.utils.checkpoint", "checkpoint")
    named = {
        name: each for name, each in arguments.items() if name not in ("activation_checkpointing_kwargs", "context_fn")
    }
    mapping = mapping_type("activation_checkpointing_kwargs", named, preserve_rng_state=bool, every_n_layers=_COUNT)
    return [mapping | None]


def _accelerator_config(section: Mapping[str, Any]) -> list[Any]:
    accumulation = class_arguments("accelerate.utils.dataclasses", "GradientAccumulationPlugin")
    del accumulation["num_steps"]  # the accumulation follows from global_batch_size
    nested = mapping_type("gradient_accumulation_kwargs", accumulation) | None
    config = class_arguments("transformers.trainer_pt_utils", "AcceleratorConfig")
    return [mapping_type("accelerator_config", config, gradient_accumulation_kwargs=nested) | None]


def _block_diagonal(section: Mapping[str, Any]) -> list[Any]:
    return [
        mapping_type("use_bdlora", class_arguments("peft.tuners.lora.config", "BdLoraConfig"), nblocks=_COUNT) | None
    ]


_MAPPINGS: dict[str, Callable[[Mapping[str, Any]], list[Any]]] = {
    "accelerator_config": _accelerator_config,
    "activation_checkpointing_kwargs": _checkpointing_kwargs,
    "lr_scheduler_kwargs": _schedule_kwargs,
    "use_bdlora": _block_diagonal,
}
"""Types of arguments that are mappings for another function or class of the libraries, given the section."""
