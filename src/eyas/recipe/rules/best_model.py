"""Rules about measures of an evaluation that choose a checkpoint or a learning rate."""

from typing import Any

from eyas.recipe.recipe import Recipe
from eyas.recipe.rules.rule import Rule, Violation
from eyas.recipe.task_traits import TASK_TRAITS

FOLLOWS_A_MEASURE = ("reduce_lr_on_plateau", "greedy")
"""Schedules of transformers that read the measure of an evaluation."""


def user_of_a_measure(recipe: Recipe) -> str | None:
    """Return the setting that makes a run read the measures of its evaluations, or None."""
    arguments = recipe.training.library_arguments
    users: dict[str, Any] = {
        "load_best_model_at_end": arguments.get("load_best_model_at_end"),
        "save_strategy": arguments.get("save_strategy") == "best",
        "lr_scheduler_type": recipe.training.lr_scheduler_type in FOLLOWS_A_MEASURE,
    }
    return next((name for name, uses in users.items() if uses), None)


def _a_measure_needs_evaluations(recipe: Recipe) -> Violation | None:
    user = user_of_a_measure(recipe)
    if user is None or recipe.training.eval_steps is not None:
        return None
    return f"training.{user}", "reads the measures of evaluations during training; set training.eval_steps"


def _the_best_model_needs_a_metric(recipe: Recipe) -> Violation | None:
    arguments, user = recipe.training.library_arguments, user_of_a_measure(recipe)
    if user in (None, "lr_scheduler_type") or arguments.get("metric_for_best_model") is not None:
        return None
    return f"training.{user}", "name the metric: metric_for_best_model"


def _the_metric_is_measured(recipe: Recipe) -> Violation | None:
    arguments = recipe.training.library_arguments
    name = arguments.get("metric_for_best_model")
    measures = ["loss", *(() if arguments.get("prediction_loss_only") else TASK_TRAITS[recipe.task].measures)]
    if name is None or name.removeprefix("eval_") in measures:
        return None
    known = ", ".join(measures)
    return "training.metric_for_best_model", f"an evaluation of this run measures {known}; found '{name}'"


def _a_metric_chooses_something(recipe: Recipe) -> Violation | None:
    arguments = recipe.training.library_arguments
    given = next((name for name in ("metric_for_best_model", "greater_is_better") if name in arguments), None)
    if given is None or user_of_a_measure(recipe) or "load_best_model_at_end" in arguments:
        return None
    return f"training.{given}", "has no effect without load_best_model_at_end: true; set it, or remove this line"


def _the_best_model_is_saved_when_it_is_measured(recipe: Recipe) -> Violation | None:
    training, arguments = recipe.training, recipe.training.library_arguments
    strategy = arguments.get("save_strategy", "steps")
    if not arguments.get("load_best_model_at_end") or strategy == "best" or training.eval_steps is None:
        return None
    if strategy != "steps":
        return (
            "training.save_strategy",
            f"load_best_model_at_end needs save_strategy: steps or best; found '{strategy}'",
        )
    if training.save_steps % training.eval_steps == 0:
        return None
    return (
        "training.save_steps",
        f"load_best_model_at_end needs a multiple of eval_steps {training.eval_steps}; found {training.save_steps}",
    )


RULES: tuple[Rule, ...] = (
    _a_measure_needs_evaluations,
    _the_best_model_needs_a_metric,
    _the_metric_is_measured,
    _a_metric_chooses_something,
    _the_best_model_is_saved_when_it_is_measured,
)
