import inspect

import pytest
from pydantic import ValidationError

from eyas.errors import RecipeError
from eyas.recipe import Recipe, load_recipe, rules

SMALLEST = {"task": "sft", "model": {"name": "falcon"}, "data": {"train": {"path": "a/b"}}}
HELD_OUT = "data.evaluation={path: c/d}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLASSES = "task=sequence_classification"

# Each rule, the settings that break it and what is said; then, beside each, the nearest settings that keep it.
BROKEN = {
    "_quantized_weights_need_an_adapter": (
        ["quantization={load_in_4bit: true}"],
        "quantization: quantized weights cannot be trained; add an adapter section or remove this one",
        ["quantization={load_in_4bit: true}", "adapter={method: lora}"],
    ),
    "_weights_have_one_quantization": (
        ["quantization={load_in_4bit: true, load_in_8bit: true}", "adapter={method: lora}"],
        "quantization.load_in_8bit: weights are stored in 4 or in 8 bits, not both; remove one",
        ["quantization={load_in_4bit: false, load_in_8bit: true}", "adapter={method: lora}"],
    ),
    "_a_quantization_quantizes": (
        ["quantization={bnb_4bit_quant_type: nf4}", "adapter={method: lora}"],
        "quantization: neither load_in_4bit nor load_in_8bit is true; set one or remove the section",
        ["quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}", "adapter={method: lora}"],
    ),
    "_only_four_bit_settings_for_four_bit_weights": (
        ["quantization={load_in_8bit: true, bnb_4bit_quant_type: fp4}", "adapter={method: lora}"],
        "quantization.bnb_4bit_quant_type: has no effect on 8-bit weights; remove it",
        ["quantization={load_in_8bit: true, bnb_4bit_quant_type: nf4}", "adapter={method: lora}"],
    ),
    "_remote_code_is_pinned": (
        ["model.trust_remote_code=true", "model.revision=main"],
        "model.trust_remote_code: remote code runs only when model.revision is a full 40-digit commit hash",
        ["model.trust_remote_code=true", f"model.revision='{COMMIT}'"],
    ),
    "_micro_batches_fill_the_global_batch": (
        ["training.global_batch_size=16", "training.per_device_train_batch_size=6"],
        "training.global_batch_size: 16 is not a multiple of per_device_train_batch_size 6; "
        "the accumulation would not divide",
        ["training.global_batch_size=18", "training.per_device_train_batch_size=6"],
    ),
    "_precision_is_one": (
        ["training.bf16=true", "training.fp16=true"],
        "training.fp16: bf16 and fp16 are both true; choose one",
        ["training.bf16=true", "training.fp16=false"],
    ),
    "_warmup_ends_before_the_run": (
        ["training.max_steps=10", "training.warmup_steps=10"],
        "training.warmup_steps: the warm-up is as long as the run (max_steps 10)",
        ["training.max_steps=10", "training.warmup_steps=9"],
    ),
    "_a_lora_is_there_to_fuse": (
        ["speed.fused_lora=true"],
        "speed.fused_lora: there is no adapter; remove it",
        ["speed.fused_lora=true", "adapter={method: lora}"],
    ),
    "_only_four_bit_weights_are_dequantized": (
        ["speed.dequantized_gib=1", "quantization={load_in_8bit: true}", "adapter={method: lora}"],
        "speed.dequantized_gib: there are no 4-bit weights; remove it",
        ["speed.dequantized_gib=1", "quantization={load_in_4bit: true}", "adapter={method: lora}"],
    ),
    "_an_adapter_begins_as_asked": (
        ["quantization={load_in_4bit: true}", "adapter={method: lora, init_lora_weights: pissa}"],
        "adapter.init_lora_weights: pissa needs a base in full precision; remove it or the quantization",
        ["adapter={method: lora, init_lora_weights: pissa_niter_16}"],
    ),
    "_beginnings_are_of_instructions": (
        ["speed.shared_beginnings=false", "task=sequence_classification"],
        "speed.shared_beginnings: has no effect on task sequence_classification; remove it",
        ["speed.shared_beginnings=false"],
    ),
    "_beginnings_are_shared_in_compact_batches": (
        ["speed.shared_beginnings=true", "speed.compact_batches=false"],
        "speed.shared_beginnings: is a part of compact_batches, which is false; remove one",
        ["speed.shared_beginnings=true", "speed.compact_batches=true"],
    ),
    "_a_run_is_longer_than_its_patience": (
        ["training.divergence_patience=20", "training.max_steps=20"],
        "training.divergence_patience: the run has no more steps (max_steps 20), so it would never stop",
        ["training.divergence_patience=20", "training.max_steps=21"],
    ),
    "_evaluation_steps_need_held_out_rows": (
        ["training.eval_steps=5"],
        "training.eval_steps: there are no held-out rows; add data.evaluation or data.holdout",
        ["training.eval_steps=5", HELD_OUT],
    ),
    "_the_best_model_needs_a_metric": (
        ["training.load_best_model_at_end=true", "training.eval_steps=5", HELD_OUT],
        "training.load_best_model_at_end: name the metric: metric_for_best_model",
        ["training.load_best_model_at_end=true", "training.metric_for_best_model=loss", "training.eval_steps=5",
         HELD_OUT],
    ),
    "_the_order_of_rows_is_found_again": (
        ["training.train_sampling_strategy=batch_rebalance"],
        "training.train_sampling_strategy: batch_rebalance cannot be resumed exactly; use group_by_length",
        ["training.train_sampling_strategy=group_by_length"],
    ),
    "_logs_and_saves_end_an_epoch_together": (
        ["training.logging_strategy=epoch"],
        "training.logging_strategy: a run resumed at an epoch's end would lose its line; set save_strategy: epoch",
        ["training.logging_strategy=epoch", "training.save_strategy=epoch"],
    ),
    "_rows_are_held_out_in_one_way": (
        [HELD_OUT, "data.holdout=0.1"],
        "data.holdout: held-out rows come from data.evaluation already; remove one",
        ["data.holdout=0.1"],
    ),
    "_sources_are_weighted_together": (
        ["data.train=[{path: a/b, weight: 1.0}, {path: c/d}]"],
        "data.train.1: has no weight and others have; give each one, or none",
        ["data.train=[{path: a/b, weight: 1.0}, {path: c/d, weight: 2.0}]"],
    ),
    "_a_stream_has_a_last_step": (
        ["data.train={path: a.jsonl}", "data.streaming=true"],
        "data.streaming: a stream has no length to count epochs by; set training.max_steps",
        ["data.train={path: a.jsonl}", "data.streaming=true", "training.max_steps=5"],
    ),
    "_a_stream_is_read_in_order": (
        ["data.train={path: a.jsonl}", "data.streaming=true", "training.max_steps=5", "training.packing=true"],
        "training.packing: needs all rows at once, and data.streaming reads them one by one; remove one",
        ["data.train={path: a.jsonl}", "training.max_steps=5", "training.packing=true"],
    ),
    "_json_fields_are_for_generated_answers": (
        [CLASSES, "evaluation.json_fields=[source]"],
        "evaluation.json_fields: a sequence_classification model writes no JSON; remove it",
        ["evaluation.json_fields=[source]"],
    ),
    "_class_settings_are_for_classification": (
        ["data.labels=[a, b]"],
        "data.labels: has no effect on task sft; remove it",
        [CLASSES, "data.labels=[a, b]"],
    ),
    "_a_longest_answer_fits": (
        ["training.max_length=32", "evaluation.max_new_tokens=33"],
        "evaluation.max_new_tokens: an answer would be longer than any row trained on (training.max_length)",
        ["training.max_length=32", "evaluation.max_new_tokens=32"],
    ),
    "_offline_is_for_wandb": (
        ["tracking.mode=offline", "tracking.report_to=tensorboard"],
        "tracking.mode: only wandb has an offline mode; set tracking.report_to: wandb or remove it",
        ["tracking.mode=offline", "tracking.report_to=wandb"],
    ),
}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    written = tmp_path / "recipe.yaml"
    written.write_text("task: sft\nmodel: {name: falcon}\ndata: {train: {path: a/b}}\n")
    return written


def test_every_rule_is_listed_and_broken_here():
    listed = {rule.__name__ for rule in rules.RULES}
    written = {name for name, member in vars(rules).items() if inspect.isfunction(member) and name.startswith("_")} - {
        "_is_commit"
    }

    assert len(listed) >= 15
    assert listed == written == BROKEN.keys()


@pytest.mark.parametrize("rule", BROKEN)
def test_what_contradicts_itself_is_refused_with_the_rule_s_own_words(rule, file):
    overrides, told, _ = BROKEN[rule]

    with pytest.raises(RecipeError) as refused:
        load_recipe(file, overrides)

    (line,) = str(refused.value).splitlines()
    assert line.endswith(f": {told}")


@pytest.mark.parametrize("rule", BROKEN)
def test_the_nearest_settings_that_do_not_contradict_are_taken(rule, file):
    _, _, mended = BROKEN[rule]

    assert list(rules.contradictions(load_recipe(file, mended))) == []


def test_the_best_model_is_found_by_evaluating(file):
    with pytest.raises(RecipeError, match="the best model is found by evaluating; set eval_steps"):
        load_recipe(file, ["training.load_best_model_at_end=true", "training.metric_for_best_model=loss", HELD_OUT])


@pytest.mark.parametrize("setting", ["labels=[a, b]", "pad_to_max_length=true", "longer_than_model=filter"])
def test_no_setting_of_classification_is_taken_in_silence_by_another_task(setting, file):
    name = setting.partition("=")[0]
    with pytest.raises(RecipeError, match=f"data.{name}: has no effect on task sft; remove it"):
        load_recipe(file, [f"data.{setting}"])

    assert load_recipe(file, [CLASSES, f"data.{setting}"]).data.model_fields_set >= {name}


def test_contradictions_are_told_together_by_line(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "task: sft\nmodel: {name: falcon}\ndata: {train: {path: a/b}}\n"
        "training:\n  bf16: true\n  fp16: true\nquantization:\n  load_in_8bit: true\n  bnb_4bit_quant_type: fp4\n"
    )

    with pytest.raises(RecipeError) as refused:
        load_recipe(file)

    assert str(refused.value).splitlines() == [
        f"{file}:6:3: training.fp16: bf16 and fp16 are both true; choose one",
        f"{file}:7:1: quantization: quantized weights cannot be trained; add an adapter section or remove this one",
        f"{file}:9:3: quantization.bnb_4bit_quant_type: has no effect on 8-bit weights; remove it",
    ]


def test_a_short_commit_does_not_pin_remote_code(file):
    for revision in ("0123456", COMMIT + "0", COMMIT.upper()):
        with pytest.raises(RecipeError, match="full 40-digit commit hash"):
            load_recipe(file, ["model.trust_remote_code=true", f"model.revision='{revision}'"])


def test_a_recipe_cannot_be_changed_after_it_was_read():
    recipe = Recipe.model_validate(SMALLEST)

    with pytest.raises(ValidationError, match="frozen"):
        recipe.training.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        recipe.task = "sequence_classification"


def test_nothing_is_cast():
    for wrong in ({"seed": "42"}, {"seed": 42.0}, {"bf16": "true"}, {"bf16": 1}, {"learning_rate": "2e-4"}):
        with pytest.raises(ValidationError):
            Recipe.model_validate({**SMALLEST, "training": wrong})


def test_a_run_has_a_folder_only_once_it_is_loaded(file):
    assert load_recipe(file).run_folder == "runs/recipe"
    with pytest.raises(AssertionError):
        _ = Recipe.model_validate(SMALLEST).run_folder
