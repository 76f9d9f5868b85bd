"""Refusals of a model and its adapter on the meta device, before rows are read."""

from typing import TYPE_CHECKING

from eyas.errors import PreflightError
from eyas.model.adapter import resolve
from eyas.model.load import empty_model, load_config
from eyas.model.prequantized import refuse_other_quantization
from eyas.model.quantization import kept_in_full_precision
from eyas.recipe import Recipe
from eyas.tasks import TASKS
from eyas.tasks.argument_refusals import library_refusals
from eyas.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def refuse_model(recipe: Recipe) -> None:
    """Build a recipe's model and adapter without weights.

    Raises PreflightError at the setting for a model of another kind, an attention that it does not have, or an adapter
    that peft refuses or that would not do what the recipe says.
    """
    task, model = TASKS[recipe.task], recipe.model
    config = load_config(model, recipe.data.labels)
    _refuse_other_kinds(recipe, task, config)
    refuse_other_quantization(config, recipe.quantization, model)
    with library_refusals(recipe, "model.name" if model.attn_implementation is None else "model.attn_implementation"):
        empty = empty_model(config, task.auto_model, model.trust_remote_code, model.attn_implementation)
    _refuse_unsupported(recipe, empty)
    if recipe.adapter is not None:
        kept_in_full_precision(empty, recipe.quantization, recipe.adapter.trained_in_full)  # refuses unknown layers
        resolve(recipe.adapter, task.peft_task_type, empty)


def _refuse_other_kinds(recipe: Recipe, task: Task, config: "PretrainedConfig") -> None:
    import transformers

    kinds, code = getattr(transformers, task.auto_model)._model_mapping, getattr(config, "auto_map", None) or {}
    if type(config) not in kinds and task.auto_model not in code:
        raise PreflightError(
            f"model.name: {recipe.model.name} is a {config.model_type} model, and transformers has none of that kind "
            f"for task {recipe.task}; name another model, or change the task"
        )


def _refuse_unsupported(recipe: Recipe, empty: "PreTrainedModel") -> None:
    kind = type(empty).__name__
    if recipe.training.activation_checkpointing and not empty.supports_gradient_checkpointing:
        raise PreflightError(f"training.activation_checkpointing: {kind} does not support it; remove it")
    router = recipe.training.library_arguments.get("router_aux_loss_coef")
    if router is not None and not hasattr(empty.config.get_text_config(), "output_router_logits"):
        raise PreflightError(f"training.router_aux_loss_coef: {kind} has no router of experts; remove it")
