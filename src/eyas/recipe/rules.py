"""What a recipe may not say at once: well-formed, and cannot be meant. Each rule is named as what it enforces."""

import re
from collections.abc import Iterator

from eyas.recipe.adapter import FULL_PRECISION_ONLY, INITIALIZATIONS
from eyas.recipe.data import Data
from eyas.recipe.model import Quantization
from eyas.recipe.recipe import Recipe

Contradiction = tuple[str, str]
"""A dotted path and why its value cannot stand."""


def contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    """Yield each value of a recipe that cannot stand beside the others."""
    for rule in RULES:
        found = rule(recipe)
        if found is not None:
            yield found


def _is_commit(revision: str | None) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision or "") is not None


def _quantized_weights_need_an_adapter(recipe: Recipe) -> Contradiction | None:
    if recipe.quantization is None or recipe.adapter is not None:
        return None
    return "quantization", "quantized weights cannot be trained; add an adapter section or remove this one"


def _weights_have_one_quantization(recipe: Recipe) -> Contradiction | None:
    if recipe.quantization is None or not (recipe.quantization.load_in_4bit and recipe.quantization.load_in_8bit):
        return None
    return "quantization.load_in_8bit", "weights are stored in 4 or in 8 bits, not both; remove one"


def _a_quantization_quantizes(recipe: Recipe) -> Contradiction | None:
    if recipe.quantization is None or recipe.quantization.load_in_4bit or recipe.quantization.load_in_8bit:
        return None
    return "quantization", "neither load_in_4bit nor load_in_8bit is true; set one or remove the section"


def _only_four_bit_settings_for_four_bit_weights(recipe: Recipe) -> Contradiction | None:
    if recipe.quantization is None or not recipe.quantization.load_in_8bit:
        return None
    stray = sorted(name for name in recipe.quantization.model_fields_set if name.startswith("bnb_4bit"))
    defaults = Quantization()
    changed = [name for name in stray if getattr(recipe.quantization, name) != getattr(defaults, name)]
    return (f"quantization.{changed[0]}", "has no effect on 8-bit weights; remove it") if changed else None


def _an_adapter_begins_as_asked(recipe: Recipe) -> Contradiction | None:
    start = recipe.adapter.library_arguments.get("init_lora_weights") if recipe.adapter else None
    if not isinstance(start, str):
        return None
    if start in INITIALIZATIONS:
        return "adapter.init_lora_weights", f"{start}: {INITIALIZATIONS[start]}"
    if start == "olora" and recipe.model.dtype != "float32":  # opened again, its logits were off by 2e-4 in bfloat16
        return (
            "adapter.init_lora_weights",
            "olora needs model.dtype: float32; on others it would not be opened as trained",
        )
    if recipe.quantization is not None and start.startswith(FULL_PRECISION_ONLY):
        return "adapter.init_lora_weights", f"{start} needs a base in full precision; remove it or the quantization"
    return None


def _remote_code_is_pinned(recipe: Recipe) -> Contradiction | None:
    if not recipe.model.trust_remote_code or _is_commit(recipe.model.revision):
        return None
    return "model.trust_remote_code", "remote code runs only when model.revision is a full 40-digit commit hash"


def _micro_batches_fill_the_global_batch(recipe: Recipe) -> Contradiction | None:
    batch, micro = recipe.training.global_batch_size, recipe.training.per_device_train_batch_size
    if batch % micro == 0:
        return None
    return (
        "training.global_batch_size",
        f"{batch} is not a multiple of per_device_train_batch_size {micro}; the accumulation would not divide",
    )


def _precision_is_one(recipe: Recipe) -> Contradiction | None:
    if not (recipe.training.bf16 and recipe.training.fp16):
        return None
    return "training.fp16", "bf16 and fp16 are both true; choose one"


def _warmup_ends_before_the_run(recipe: Recipe) -> Contradiction | None:
    if recipe.training.max_steps < 0 or recipe.training.warmup_steps < recipe.training.max_steps:
        return None
    return "training.warmup_steps", f"the warm-up is as long as the run (max_steps {recipe.training.max_steps})"


def _a_run_is_longer_than_its_patience(recipe: Recipe) -> Contradiction | None:
    patience, steps = recipe.training.divergence_patience, recipe.training.max_steps
    if patience is None or steps < 0 or patience < steps:
        return None
    return "training.divergence_patience", f"the run has no more steps (max_steps {steps}), so it would never stop"


def _a_lora_is_there_to_fuse(recipe: Recipe) -> Contradiction | None:
    if not recipe.speed.fused_lora or recipe.adapter is not None:
        return None
    return "speed.fused_lora", "there is no adapter; remove it"


def _only_four_bit_weights_are_dequantized(recipe: Recipe) -> Contradiction | None:
    if recipe.speed.dequantized_gib is None or (recipe.quantization and recipe.quantization.load_in_4bit):
        return None
    return "speed.dequantized_gib", "there are no 4-bit weights; remove it"


def _beginnings_are_of_instructions(recipe: Recipe) -> Contradiction | None:
    if recipe.speed.shared_beginnings is None or recipe.task == "sft":
        return None
    return "speed.shared_beginnings", f"has no effect on task {recipe.task}; remove it"


def _beginnings_are_shared_in_compact_batches(recipe: Recipe) -> Contradiction | None:
    if not recipe.speed.shared_beginnings or recipe.speed.compact_batches is not False:
        return None
    return "speed.shared_beginnings", "is a part of compact_batches, which is false; remove one"


def _evaluation_steps_need_held_out_rows(recipe: Recipe) -> Contradiction | None:
    if recipe.training.eval_steps is None or recipe.data.evaluation is not None or recipe.data.holdout is not None:
        return None
    return "training.eval_steps", "there are no held-out rows; add data.evaluation or data.holdout"


def _the_best_model_needs_a_metric(recipe: Recipe) -> Contradiction | None:
    extra = recipe.training.library_arguments
    if not extra.get("load_best_model_at_end"):
        return None
    if "metric_for_best_model" not in extra:
        return "training.load_best_model_at_end", "name the metric: metric_for_best_model"
    if recipe.training.eval_steps is None:
        return "training.load_best_model_at_end", "the best model is found by evaluating; set eval_steps"
    return None


def _the_order_of_rows_is_found_again(recipe: Recipe) -> Contradiction | None:
    extra = recipe.training.library_arguments
    if extra.get("train_sampling_strategy") == "batch_rebalance":
        return "training.train_sampling_strategy", "batch_rebalance cannot be resumed exactly; use group_by_length"
    if (extra.get("accelerator_config") or {}).get("use_seedable_sampler") is False:
        return (
            "training.accelerator_config",
            "without use_seedable_sampler a resumed run takes other rows; remove it",
        )
    return None


def _logs_and_saves_end_an_epoch_together(recipe: Recipe) -> Contradiction | None:
    extra = recipe.training.library_arguments
    if extra.get("logging_strategy") != "epoch" or extra.get("save_strategy") == "epoch":
        return None
    return (
        "training.logging_strategy",
        "a run resumed at an epoch's end would lose its line; set save_strategy: epoch",
    )


def _rows_are_held_out_in_one_way(recipe: Recipe) -> Contradiction | None:
    if recipe.data.evaluation is None or recipe.data.holdout is None:
        return None
    return "data.holdout", "held-out rows come from data.evaluation already; remove one"


def _sources_are_weighted_together(recipe: Recipe) -> Contradiction | None:
    weighted = [source.weight is not None for source in recipe.data.training_sources]
    if any(weighted) and not all(weighted):
        return f"data.train.{weighted.index(False)}", "has no weight and others have; give each one, or none"
    if weighted == [True]:
        return "data.train", "a single source has nothing to be weighed against; remove its weight"
    if recipe.data.evaluation is not None and recipe.data.evaluation.weight is not None:
        return "data.evaluation.weight", "held-out rows are not mixed; remove it"
    if recipe.data.stopping_strategy != "first_exhausted" and not any(weighted):
        return "data.stopping_strategy", "has no effect on sources without weights; remove it"
    return None


def _a_stream_has_a_last_step(recipe: Recipe) -> Contradiction | None:
    if not recipe.data.streaming or recipe.training.max_steps > 0:
        return None
    return "data.streaming", "a stream has no length to count epochs by; set training.max_steps"


def _a_stream_is_read_in_order(recipe: Recipe) -> Contradiction | None:
    if not recipe.data.streaming:
        if recipe.data.shuffle_buffer:
            return "data.shuffle_buffer", "has no effect without data.streaming; remove it"
        return None
    needs_all_rows = {
        "data.holdout": recipe.data.holdout is not None,
        "data.near_duplicates": recipe.data.near_duplicates is not None,
        "data.train.rows": any(source.rows is not None for source in recipe.data.training_sources),
        "data.stopping_strategy": recipe.data.stopping_strategy != "first_exhausted",
        "training.packing": bool(recipe.training.library_arguments.get("packing")),
        "training.train_sampling_strategy": "train_sampling_strategy" in recipe.training.library_arguments,
        "evaluation.json_fields": bool(recipe.evaluation.json_fields),
    }
    path = next((path for path, used in needs_all_rows.items() if used), None)
    return (path, "needs all rows at once, and data.streaming reads them one by one; remove one") if path else None


def _json_fields_are_for_generated_answers(recipe: Recipe) -> Contradiction | None:
    if not recipe.evaluation.json_fields or recipe.task == "sft":
        return None
    return "evaluation.json_fields", f"a {recipe.task} model writes no JSON; remove it"


def _class_settings_are_for_classification(recipe: Recipe) -> Contradiction | None:
    of_the_other = {
        "sft": {"labels", "pad_to_max_length", "longer_than_model"},
        "sequence_classification": {"answers_only", "end_of_turn", "chat_template_kwargs", "streaming"},
    }[recipe.task]
    given = recipe.data.model_fields_set & of_the_other
    changed = sorted(name for name in given if getattr(recipe.data, name) != Data.model_fields[name].default)
    return (f"data.{changed[0]}", f"has no effect on task {recipe.task}; remove it") if changed else None


def _a_longest_answer_fits(recipe: Recipe) -> Contradiction | None:
    if recipe.task != "sft" or recipe.evaluation.max_new_tokens <= recipe.training.max_length:
        return None
    return "evaluation.max_new_tokens", "an answer would be longer than any row trained on (training.max_length)"


def _offline_is_for_wandb(recipe: Recipe) -> Contradiction | None:
    if recipe.tracking.mode == "online" or recipe.tracking.report_to == "wandb":
        return None
    return "tracking.mode", "only wandb has an offline mode; set tracking.report_to: wandb or remove it"


RULES = (
    _quantized_weights_need_an_adapter,
    _weights_have_one_quantization,
    _a_quantization_quantizes,
    _only_four_bit_settings_for_four_bit_weights,
    _an_adapter_begins_as_asked,
    _remote_code_is_pinned,
    _micro_batches_fill_the_global_batch,
    _precision_is_one,
    _warmup_ends_before_the_run,
    _a_run_is_longer_than_its_patience,
    _a_lora_is_there_to_fuse,
    _only_four_bit_weights_are_dequantized,
    _beginnings_are_of_instructions,
    _beginnings_are_shared_in_compact_batches,
    _evaluation_steps_need_held_out_rows,
    _the_best_model_needs_a_metric,
    _the_order_of_rows_is_found_again,
    _logs_and_saves_end_an_epoch_together,
    _rows_are_held_out_in_one_way,
    _sources_are_weighted_together,
    _a_stream_has_a_last_step,
    _a_stream_is_read_in_order,
    _json_fields_are_for_generated_answers,
    _class_settings_are_for_classification,
    _a_longest_answer_fits,
    _offline_is_for_wandb,
)
