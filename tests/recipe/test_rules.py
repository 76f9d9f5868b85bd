import inspect

import pytest

from eyas.errors import RecipeError
from eyas.recipe import load_recipe, rules

HELD_OUT = "data.evaluation={path: c/d}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLASSIFICATION = "task=sequence_classification"

# For each rule: settings that break it, the message, and the nearest settings that keep it.
BROKEN = {
    "_quantized_weights_need_an_adapter": (
        ["quantization={load_in_4bit: true}"],
        "quantization: quantized weights cannot be trained; add an adapter section or remove this one",
        ["quantization={load_in_4bit: true}", "adapter={method: lora}"],
    ),
    "_weights_have_one_bit_width": (
        ["quantization={load_in_4bit: true, load_in_8bit: true}", "adapter={method: lora}"],
        "quantization.load_in_8bit: weights are stored in 4 or in 8 bits, not both; remove one",
        ["quantization={load_in_4bit: false, load_in_8bit: true}", "adapter={method: lora}"],
    ),
    "_a_quantization_has_a_bit_width": (
        ["quantization={bnb_4bit_quant_type: nf4}", "adapter={method: lora}"],
        "quantization: neither load_in_4bit nor load_in_8bit is true; set one or remove the section",
        ["quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}", "adapter={method: lora}"],
    ),
    "_quantization_settings_suit_the_bit_width": (
        ["quantization={load_in_8bit: true, bnb_4bit_quant_type: fp4}", "adapter={method: lora}"],
        "quantization.bnb_4bit_quant_type: has no effect on 8-bit weights; remove it",
        ["quantization={load_in_8bit: true, bnb_4bit_quant_type: nf4}", "adapter={method: lora}"],
    ),
    "_remote_code_is_pinned_to_a_commit": (
        ["model.trust_remote_code=true", "model.revision=main"],
        "model.trust_remote_code: remote code runs only when model.revision is a full 40-digit commit hash",
        ["model.trust_remote_code=true", f"model.revision='{COMMIT}'"],
    ),
    "_a_code_digest_is_of_trusted_local_code": (
        [f"model.code_sha256='{'0' * 64}'", "model.name=./folder"],
        "model.code_sha256: has an effect only on a local folder with model.trust_remote_code; remove it",
        [f"model.code_sha256='{'0' * 64}'", "model.name=./folder", "model.trust_remote_code=true"],
    ),
    "_attention_is_not_from_the_hub": (
        ["model.attn_implementation=kernels-community/flash-attn2"],
        "model.attn_implementation: is compiled code from the hub, which eyas never runs; use sdpa or eager",
        ["model.attn_implementation=flash_attention_2"],
    ),
    "_micro_batches_fill_the_global_batch": (
        ["training.global_batch_size=16", "training.per_device_train_batch_size=6"],
        "training.global_batch_size: 16 is not a multiple of per_device_train_batch_size 6; change one of them",
        ["training.global_batch_size=18", "training.per_device_train_batch_size=6"],
    ),
    "_there_is_one_autocast_precision": (
        ["training.bf16=true", "training.fp16=true", "model.dtype=float32"],
        "training.fp16: bf16 and fp16 are both true; choose one",
        ["training.bf16=true", "training.fp16=false"],
    ),
    "_the_warmup_is_shorter_than_the_run": (
        ["training.max_steps=10", "training.warmup_steps=10"],
        "training.warmup_steps: the warmup is as long as the run (max_steps 10); lower it",
        ["training.max_steps=10", "training.warmup_steps=9"],
    ),
    "_virtual_tokens_suit_the_task": (
        [CLASSIFICATION, "adapter={method: prompt_tuning}"],
        "adapter.method: prompt_tuning: a classifier would score virtual tokens or padding in place of the row's; "
        "use lora",
        ["adapter={method: prompt_tuning}"],
    ),
    "_virtual_tokens_stand_before_each_row": (
        ["training.padding_free=true", "adapter={method: prompt_tuning}"],
        "training.padding_free: prompt_tuning puts virtual tokens before a batch's first document only; remove it",
        ["training.padding_free=true", "adapter={method: ia3, target_modules: [k], feedforward_modules: []}"],
    ),
    "_fused_lora_needs_a_lora_adapter": (
        ["speed.fused_lora=true"],
        "speed.fused_lora: there is no LoRA adapter; remove it",
        ["speed.fused_lora=true", "adapter={method: lora}"],
    ),
    "_dequantized_weights_need_4bit_weights": (
        ["speed.dequantized_gib=1", "quantization={load_in_8bit: true}", "adapter={method: lora}"],
        "speed.dequantized_gib: there are no 4-bit weights; remove it",
        ["speed.dequantized_gib=1", "quantization={load_in_4bit: true}", "adapter={method: lora}"],
    ),
    "_an_initialization_suits_the_base": (
        ["quantization={load_in_4bit: true}", "adapter={method: lora, init_lora_weights: pissa}"],
        "adapter.init_lora_weights: pissa needs a base in full precision; remove it or the quantization",
        ["adapter={method: lora, init_lora_weights: pissa_niter_16}"],
    ),
    "_shared_prefixes_suit_the_task": (
        ["speed.shared_beginnings=false", "task=sequence_classification"],
        "speed.shared_beginnings: has no effect on task sequence_classification; remove it",
        ["speed.shared_beginnings=false"],
    ),
    "_shared_prefixes_need_compact_batches": (
        ["speed.shared_beginnings=true", "speed.compact_batches=false"],
        "speed.shared_beginnings: is part of compact_batches, which is false; remove one",
        ["speed.shared_beginnings=true", "speed.compact_batches=true"],
    ),
    "_divergence_patience_is_shorter_than_the_run": (
        ["training.divergence_patience=20", "training.max_steps=20"],
        "training.divergence_patience: the run has only 20 steps (max_steps), so it has no effect; lower it",
        ["training.divergence_patience=20", "training.max_steps=21"],
    ),
    "_evaluation_steps_need_held_out_rows": (
        ["training.eval_steps=5"],
        "training.eval_steps: there are no held-out rows; add data.evaluation or data.holdout",
        ["training.eval_steps=5", HELD_OUT],
    ),
    "_a_measure_needs_evaluations": (
        ["training.save_strategy=best", "training.metric_for_best_model=loss", HELD_OUT],
        "training.save_strategy: reads the measures of evaluations during training; set training.eval_steps",
        ["training.save_strategy=best", "training.metric_for_best_model=loss", "training.eval_steps=5", HELD_OUT],
    ),
    "_the_best_model_needs_a_metric": (
        ["training.load_best_model_at_end=true", "training.eval_steps=5", HELD_OUT],
        "training.load_best_model_at_end: name the metric: metric_for_best_model",
        ["training.load_best_model_at_end=true", "training.metric_for_best_model=loss", "training.eval_steps=5",
         HELD_OUT],
    ),
    "_the_metric_is_measured": (
        [CLASSIFICATION, "training.load_best_model_at_end=true", "training.metric_for_best_model=f1_macro",
         "training.eval_steps=5", HELD_OUT],
        "training.metric_for_best_model: an evaluation of this run measures loss, accuracy, f1; found 'f1_macro'",
        [CLASSIFICATION, "training.load_best_model_at_end=true", "training.metric_for_best_model=eval_f1",
         "training.eval_steps=5", HELD_OUT],
    ),
    "_a_metric_chooses_something": (
        ["training.metric_for_best_model=loss"],
        "training.metric_for_best_model: has no effect without load_best_model_at_end: true; set it, or remove this "
        "line",
        ["training.metric_for_best_model=loss", "training.lr_scheduler_type=reduce_lr_on_plateau",
         "training.eval_steps=5", HELD_OUT],
    ),
    "_the_best_model_is_saved_when_it_is_measured": (
        ["training.load_best_model_at_end=true", "training.metric_for_best_model=loss", "training.eval_steps=4",
         "training.save_steps=6", HELD_OUT],
        "training.save_steps: load_best_model_at_end needs a multiple of eval_steps 4; found 6",
        ["training.load_best_model_at_end=true", "training.metric_for_best_model=loss", "training.eval_steps=4",
         "training.save_steps=8", HELD_OUT],
    ),
    "_a_setting_has_the_one_it_needs": (
        ["training.dataloader_persistent_workers=true"],
        "training.dataloader_persistent_workers: has no effect without dataloader_num_workers; set "
        "training.dataloader_num_workers, or remove this line",
        ["training.dataloader_persistent_workers=true", "training.dataloader_num_workers=1"],
    ),
    "_checkpointing_arguments_need_checkpointing": (
        ["training.activation_checkpointing=false", "training.activation_checkpointing_kwargs={every_n_layers: 2}"],
        "training.activation_checkpointing_kwargs: has no effect: activation_checkpointing is false; remove one",
        ["training.activation_checkpointing_kwargs={every_n_layers: 2}"],
    ),
    "_dora_suits_the_base": (
        ["adapter={method: lora, use_dora: true}", "quantization={load_in_8bit: true}"],
        "adapter.use_dora: peft 0.21 cannot compute DoRA on 8-bit weights; use load_in_4bit, or remove one of both",
        ["adapter={method: lora, use_dora: true}", "quantization={load_in_4bit: true}"],
    ),
    "_patterns_are_regular_expressions": (
        ["adapter={method: lora, target_modules: 'q_proj('}"],
        "adapter.target_modules: 'q_proj(' is no regular expression: missing ), unterminated subpattern at position 6",
        ["adapter={method: lora, target_modules: 'q_proj(a)?'}"],
    ),
    "_target_modules_suit_the_optimizer": (
        ["training.optim_target_modules=all-linear", "training.optim=adafactor"],
        "training.optim_target_modules: only GaLore and APOLLO optimizers read it; remove it",
        ["training.optim_target_modules=all-linear", "training.optim=galore_adamw"],
    ),
    "_a_schedule_has_its_arguments": (
        ["training.lr_scheduler_type=warmup_stable_decay"],
        "training.lr_scheduler_type: warmup_stable_decay needs lr_scheduler_kwargs: {num_decay_steps: …}",
        ["training.lr_scheduler_type=warmup_stable_decay", "training.lr_scheduler_kwargs={num_decay_steps: 2}"],
    ),
    "_a_schedule_has_a_warmup": (
        ["training.lr_scheduler_type=constant", "training.warmup_steps=3"],
        "training.warmup_steps: has no effect on lr_scheduler_type constant; remove it; use constant_with_warmup",
        ["training.lr_scheduler_type=constant_with_warmup", "training.warmup_steps=3"],
    ),
    "_fp16_trains_float32_weights": (
        ["training.fp16=true", "model.dtype=bfloat16"],
        "training.fp16: fp16 cannot train bfloat16 weights; set model.dtype: float32 or add an adapter",
        ["training.fp16=true", "model.dtype=bfloat16", "adapter={method: lora}"],
    ),
    "_label_smoothing_suits_the_loss": (
        ["training.loss_type=dft", "training.label_smoothing_factor=0.1"],
        "training.label_smoothing_factor: has no effect on loss_type: dft; remove one",
        ["training.loss_type=nll", "training.label_smoothing_factor=0.1"],
    ),
    "_the_attention_exists": (
        ["model.attn_implementation=sdap"],
        "model.attn_implementation: should be one of eager, flash_attention_4, flash_attention_3, flash_attention_2, "
        "flex_attention, sdpa; found 'sdap'; did you mean 'sdpa'?",
        ["model.attn_implementation=sdpa"],
    ),
    "_a_resumed_run_takes_the_same_rows": (
        ["training.train_sampling_strategy=batch_rebalance"],
        "training.train_sampling_strategy: batch_rebalance cannot be resumed exactly; use group_by_length",
        ["training.train_sampling_strategy=group_by_length"],
    ),
    "_logging_by_epoch_needs_saving_by_epoch": (
        ["training.logging_strategy=epoch"],
        "training.logging_strategy: a run resumed at the end of an epoch would lose a log line; "
        "set save_strategy: epoch",
        ["training.logging_strategy=epoch", "training.save_strategy=epoch"],
    ),
    "_held_out_rows_have_one_origin": (
        [HELD_OUT, "data.holdout=0.1"],
        "data.holdout: held-out rows come from data.evaluation already; remove one",
        ["data.holdout=0.1"],
    ),
    "_formats_suit_the_task": (
        ["data.train={path: a/b, format: preference}"],
        "data.train.format: task sft does not read preference; "
        "it reads messages, sharegpt, alpaca, prompt_completion, text",
        ["data.train={path: a/b, format: alpaca}"],
    ),
    "_shuffle_buffer_needs_streaming": (
        ["data.shuffle_buffer=8", "training.max_steps=5"],
        "data.shuffle_buffer: has no effect without data.streaming; remove it",
        ["data.shuffle_buffer=8", "training.max_steps=5", "data.streaming=true"],
    ),
    "_test_rows_are_no_others": (
        [HELD_OUT, "data.test={path: c/d}"],
        "data.test: these rows train or choose the released step already; name rows that nothing else reads",
        [HELD_OUT, "data.test={path: c/d, split: test}"],
    ),
    "_sources_are_weighted_together": (
        ["data.train=[{path: a/b, weight: 1.0}, {path: c/d}]"],
        "data.train.1: has no weight, and other sources have one; set all or none",
        ["data.train=[{path: a/b, weight: 1.0}, {path: c/d, weight: 2.0}]"],
    ),
    "_streaming_needs_max_steps": (
        ["data.train={path: a.jsonl}", "data.streaming=true"],
        "data.streaming: a stream has no known number of rows to count epochs by; set training.max_steps",
        ["data.train={path: a.jsonl}", "data.streaming=true", "training.max_steps=5"],
    ),
    "_streaming_excludes_what_needs_all_rows": (
        ["data.train={path: a.jsonl}", "data.streaming=true", "training.max_steps=5", "training.packing=true"],
        "training.packing: needs all rows at once, and data.streaming reads them one by one; remove one",
        ["data.train={path: a.jsonl}", "training.max_steps=5", "training.packing=true"],
    ),
    "_only_generated_answers_are_scored": (
        [CLASSIFICATION, "evaluation.json_fields=[source]"],
        "evaluation.json_fields: a sequence_classification model generates no text; remove it",
        ["evaluation.json_fields=[source]"],
    ),
    "_data_settings_suit_the_task": (
        ["data.labels=[a, b]"],
        "data.labels: has no effect on task sft; remove it",
        [CLASSIFICATION, "data.labels=[a, b]"],
    ),
    "_answers_are_no_longer_than_rows": (
        ["training.max_length=32", "evaluation.max_new_tokens=33"],
        "evaluation.max_new_tokens: an answer could be longer than any training row (training.max_length 32); lower it",
        ["training.max_length=32", "evaluation.max_new_tokens=32"],
    ),
    "_local_rows_have_no_revision": (
        ["data.train={path: ./rows.jsonl, revision: main}"],
        "data.train.revision: is a commit of a hub dataset, and these rows are local; remove it",
        ["data.train={path: org/rows, revision: main}"],
    ),
    "_files_have_no_configurations": (
        ["data.train={path: 'package:rows/rows.jsonl', name: sst2}"],
        "data.train.name: is a configuration of a dataset, and a file has none; remove it",
        ["data.train={path: org/rows, name: sst2}"],
    ),
    "_files_have_no_splits": (
        ["data.train=[{path: a/b}, {path: 'package:rows/rows.jsonl', split: test}]"],
        "data.train.1.split: a file has no splits; remove it, and name the file with these rows in `path`",
        ["data.train=[{path: a/b, split: test}, {path: 'package:rows/rows.jsonl', split: train}]"],
    ),
    "_only_text_files_have_an_encoding": (
        ["data.train={path: ./rows.parquet, encoding: utf-16}"],
        "data.train.encoding: has no effect here, for only local text files have one; remove it",
        ["data.train={path: ./rows.csv.gz, encoding: utf-16}"],
    ),
    "_encodings_are_known": (
        ["data.train={path: ./rows.csv, encoding: windows-1525}"],
        "data.train.encoding: 'windows-1525' is no text encoding; use one such as windows-1252",
        ["data.train={path: ./rows.csv, encoding: windows-1252}"],
    ),
    "_only_csv_files_have_a_delimiter": (
        ["data.evaluation={path: ./rows.jsonl, delimiter: ';'}"],
        "data.evaluation.delimiter: has no effect here, for only .csv and .tsv files have one; remove it",
        ["data.evaluation={path: ./rows.tsv, delimiter: ';'}"],
    ),
    "_only_wandb_has_an_offline_mode": (
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
    functions = {
        name
        for module in (rules.model, rules.training, rules.best_model, rules.library, rules.data, rules.sources)
        for name, member in vars(module).items()
        if inspect.isfunction(member) and name.startswith("_")
    }

    assert len(listed) >= 15
    assert listed == functions == BROKEN.keys()
    assert len(rules.RULES) == len(listed)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_recipe_that_breaks_a_rule_is_refused_with_its_message(rule, file):
    overrides, message, _ = BROKEN[rule]

    with pytest.raises(RecipeError) as error:
        load_recipe(file, overrides)

    (line,) = str(error.value).splitlines()
    assert line.endswith(f": {message}")


@pytest.mark.parametrize("rule", BROKEN)
def test_the_nearest_recipe_that_keeps_a_rule_is_accepted(rule, file):
    _, _, fixed = BROKEN[rule]

    assert list(rules.violations(load_recipe(file, fixed))) == []


def test_load_best_model_at_end_needs_eval_steps(file):
    with pytest.raises(RecipeError, match="reads the measures of evaluations during training; set "):
        load_recipe(file, ["training.load_best_model_at_end=true", "training.metric_for_best_model=loss", HELD_OUT])


def test_violations_are_listed_together_in_line_order(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "task: sft\nmodel: {name: falcon}\ndata: {train: {path: a/b}}\n"
        "training:\n  bf16: true\n  fp16: true\nquantization:\n  load_in_8bit: true\n  bnb_4bit_quant_type: fp4\n"
    )

    with pytest.raises(RecipeError) as error:
        load_recipe(file)

    assert str(error.value).splitlines() == [
        f"{file}:6:3: training.fp16: bf16 and fp16 are both true; choose one",
        f"{file}:7:1: quantization: quantized weights cannot be trained; add an adapter section or remove this one",
        f"{file}:9:3: quantization.bnb_4bit_quant_type: has no effect on 8-bit weights; remove it",
    ]


@pytest.mark.parametrize("revision", ["0123456", COMMIT + "0", COMMIT.upper()])
def test_remote_code_needs_a_full_commit_hash(revision, file):
    with pytest.raises(RecipeError, match="full 40-digit commit hash"):
        load_recipe(file, ["model.trust_remote_code=true", f"model.revision='{revision}'"])
