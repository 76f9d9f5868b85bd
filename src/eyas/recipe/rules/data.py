"""Rules about rows, and about the scores of held-out rows."""

from eyas.recipe.data import Data
from eyas.recipe.recipe import Recipe
from eyas.recipe.rules.rule import Rule, Violation
from eyas.recipe.task_traits import TASK_TRAITS, settings_without_effect


def _held_out_rows_have_one_origin(recipe: Recipe) -> Violation | None:
    if recipe.data.evaluation is None or recipe.data.holdout is None:
        return None
    return "data.holdout", "held-out rows come from data.evaluation already; remove one"


def _test_rows_are_no_others(recipe: Recipe) -> Violation | None:
    others = [*recipe.data.training_sources, *filter(None, [recipe.data.evaluation])]
    if recipe.data.test is None or str(recipe.data.test) not in map(str, others):
        return None
    return "data.test", "these rows train or choose the released step already; name rows that nothing else reads"


def _formats_suit_the_task(recipe: Recipe) -> Violation | None:
    readable = TASK_TRAITS[recipe.task].formats
    train = recipe.data.training_sources
    paths = ["data.train"] if len(train) == 1 else [f"data.train.{index}" for index in range(len(train))]
    formats = {"data.format": recipe.data.format}
    formats |= {f"{path}.format": source.format for path, source in zip(paths, train, strict=True)}
    formats |= {f"data.{name}.format": source.format for name, source in recipe.data.held_out_sources.items()}
    for path, format_ in formats.items():
        if format_ is not None and format_ not in readable:
            return path, f"task {recipe.task} does not read {format_}; it reads {', '.join(readable)}"
    return None


def _sources_are_weighted_together(recipe: Recipe) -> Violation | None:
    weighted = [source.weight is not None for source in recipe.data.training_sources]
    if any(weighted) and not all(weighted):
        return f"data.train.{weighted.index(False)}", "has no weight, and other sources have one; set all or none"
    if weighted == [True]:
        return "data.train", "the weight of a single source has no effect; remove it"
    for name, source in recipe.data.held_out_sources.items():
        if source.weight is not None:
            return f"data.{name}.weight", "held-out rows are not mixed; remove it"
    if recipe.data.stopping_strategy != "first_exhausted" and not any(weighted):
        return "data.stopping_strategy", "has no effect on sources without weights; remove it"
    return None


def _streaming_needs_max_steps(recipe: Recipe) -> Violation | None:
    if not recipe.data.streaming or recipe.training.max_steps > 0:
        return None
    return "data.streaming", "a stream has no known number of rows to count epochs by; set training.max_steps"


def _shuffle_buffer_needs_streaming(recipe: Recipe) -> Violation | None:
    if recipe.data.streaming or not recipe.data.shuffle_buffer:
        return None
    return "data.shuffle_buffer", "has no effect without data.streaming; remove it"


def _streaming_excludes_what_needs_all_rows(recipe: Recipe) -> Violation | None:
    if not recipe.data.streaming:
        return None
    arguments = recipe.training.library_arguments
    needs_all_rows = {
        "data.holdout": recipe.data.holdout is not None,
        "data.near_duplicates": recipe.data.near_duplicates is not None,
        "data.train.rows": any(source.rows is not None for source in recipe.data.training_sources),
        "data.stopping_strategy": recipe.data.stopping_strategy != "first_exhausted",
        "training.packing": bool(arguments.get("packing")),
        "training.train_sampling_strategy": "train_sampling_strategy" in arguments,
        "evaluation.json_fields": bool(recipe.evaluation.json_fields),
    }
    path = next((path for path, used in needs_all_rows.items() if used), None)
    return (path, "needs all rows at once, and data.streaming reads them one by one; remove one") if path else None


def _data_settings_suit_the_task(recipe: Recipe) -> Violation | None:
    given = recipe.data.model_fields_set & settings_without_effect(recipe.task)
    changed = sorted(name for name in given if getattr(recipe.data, name) != Data.model_fields[name].default)
    return (f"data.{changed[0]}", f"has no effect on task {recipe.task}; remove it") if changed else None


def _only_generated_answers_are_scored(recipe: Recipe) -> Violation | None:
    if TASK_TRAITS[recipe.task].generates:
        return None
    settings = {"json_fields": recipe.evaluation.json_fields, "prompts": recipe.evaluation.prompts}
    name = next((name for name, value in settings.items() if value), None)
    return (f"evaluation.{name}", f"a {recipe.task} model generates no text; remove it") if name else None


def _answers_are_no_longer_than_rows(recipe: Recipe) -> Violation | None:
    if not TASK_TRAITS[recipe.task].generates or recipe.evaluation.max_new_tokens <= recipe.training.max_length:
        return None
    return (
        "evaluation.max_new_tokens",
        f"an answer could be longer than any training row (training.max_length {recipe.training.max_length}); lower it",
    )


RULES: tuple[Rule, ...] = (
    _held_out_rows_have_one_origin,
    _test_rows_are_no_others,
    _formats_suit_the_task,
    _sources_are_weighted_together,
    _streaming_needs_max_steps,
    _shuffle_buffer_needs_streaming,
    _streaming_excludes_what_needs_all_rows,
    _data_settings_suit_the_task,
    _only_generated_answers_are_scored,
    _answers_are_no_longer_than_rows,
)
