"""Wrong values and combinations are refused before rows are read, with file, line and column."""

from pathlib import Path

import pytest

import stand_ins
from eyas.errors import EyasError
from field_recipes import FieldRecipe

PLATEAU = "training.lr_scheduler_type=reduce_lr_on_plateau; training.eval_steps=2"
BEST = "training.load_best_model_at_end=true; training.eval_steps=2"

NAMES = {
    "training.lr_scheduler_type=cosin": "did you mean 'cosine'?",
    "training.lr_scheduler_type=Linear": "did you mean 'linear'?",
    "training.optim=adam": "found 'adam'",
    "training.optim=adamw": "found 'adamw'",
    "training.optim=adamw_hf": "did you mean 'adamw_",
    "training.optim=muon": "found 'muon'",
    "training.optim=sgdd": "did you mean 'sgd'?",
    "training.train_sampling_strategy=group_by_lenght": "did you mean 'group_by_length'?",
    "training.train_sampling_strategy=shuffle": "found 'shuffle'",
    "training.save_strategy=step": "did you mean 'steps'?",
    "training.save_strategy=never": "found 'never'",
    "training.logging_strategy=epochs": "did you mean 'epoch'?",
    "training.loss_type=nl": "did you mean 'nll'?",
    "training.loss_type=bnpo": "found 'bnpo'",
    "training.log_level=loud": "found 'loud'",
    "training.log_level_replica=warn": "did you mean 'warning'?",
    "training.torch_compile_mode=max_autotune": "did you mean 'max-autotune'?",
    "training.torch_compile_mode=fastest": "found 'fastest'",
    "training.torch_compile_backend=inductr": "did you mean 'inductor'?",
    "training.ddp_backend=glo": "did you mean 'gloo'?",
    "training.dataloader_multiprocessing_context=thread": "found 'thread'",
    "training.debug=underflow": "found 'underflow'",
    "training.pad_to_multiple_of=automatic": "found 'automatic'",
    "training.label_names=[label]": None,
    "model.attn_implementation=sdap": "did you mean 'sdpa'?",
    "model.attn_implementation=flash_attention": "did you mean 'flash_attention_",
    "adapter.bias=lora": "did you mean 'lora_only'?",
    "adapter.init_lora_weights=pisa": "did you mean 'pissa'?",
    "adapter.init_lora_weights=pissa_niter_x": "found 'pissa_niter_x'",
    "adapter.velora_config={init_type: batch_avg}": "did you mean 'batch_average",
    "quantization={load_in_4bit: true, bnb_4bit_quant_storage: int4}": "did you mean 'int8'?",
    "quantization={load_in_4bit: true, bnb_4bit_quant_type: nf8}": "found 'nf8'",
}
"""A value that is no member of an enumeration of the libraries, with the words that help."""

RANGES = [
    "training.adam_beta1=1.0",
    "training.adam_beta1=-0.1",
    "training.adam_beta2=1.5",
    "training.adam_epsilon=-1e-8",
    "training.label_smoothing_factor=2.0",
    "training.label_smoothing_factor=-0.5",
    "training.max_grad_norm=-1.0",
    "training.max_grad_norm=1e400",
    "training.neftune_noise_alpha=0.0",
    "training.neftune_noise_alpha=-5",
    "training.seed=4294967296",
    "training.data_seed=-1",
    "training.dataloader_num_workers=-1",
    "training.dataloader_prefetch_factor=0; training.dataloader_num_workers=1",
    "training.ddp_timeout=0",
    "training.ddp_bucket_cap_mb=0",
    "training.torch_empty_cache_steps=0",
    "training.eval_delay=-1; training.eval_steps=2",
    "training.eval_accumulation_steps=0; training.eval_steps=2",
    "training.pad_to_multiple_of=0",
    "training.router_aux_loss_coef=-0.1",
    "training.warmup_steps=1.5",
    "training.warmup_steps=-0.1",
    "adapter.rank_pattern={q_proj: 0}",
    "adapter.rank_pattern={q_proj: 4.5}",
    "adapter.alpha_pattern={q_proj: 0}",
    "adapter.layers_to_transform=[-1]",
    "adapter.trainable_token_indices=[-1]",
    "adapter.trainable_token_indices={embed_tokens: [x]}",
    "adapter.velora_config={num_groups: 2.5}",
    "adapter.use_bdlora={target_modules_bd_a: [q_proj], nblocks: 0}",
    "quantization={load_in_8bit: true, llm_int8_threshold: -1.0}",
    "quantization={load_in_8bit: true, llm_int8_skip_modules: q_proj}",
]
"""A value outside the range in which the libraries work; the first setting is the wrong one."""

NESTED = {
    "training.lr_scheduler_kwargs={min_lr: 0.1}": "training.lr_scheduler_kwargs.min_lr",
    "training.lr_scheduler_type=cosine_with_restarts; training.lr_scheduler_kwargs={cycles: 2}":
        "training.lr_scheduler_kwargs.cycles",
    "training.lr_scheduler_type=polynomial; training.lr_scheduler_kwargs={power: high}":
        "training.lr_scheduler_kwargs.power",
    "training.lr_scheduler_type=constant; training.lr_scheduler_kwargs={num_cycles: 1}":
        "training.lr_scheduler_kwargs.num_cycles",
    f"{PLATEAU}; training.lr_scheduler_kwargs={{mode: least}}":
        "training.lr_scheduler_kwargs.mode",
    "training.activation_checkpointing_kwargs={use_reentrant: maybe}":
        "training.activation_checkpointing_kwargs.use_reentrant",
    "training.activation_checkpointing_kwargs={every_n_layers: 0}":
        "training.activation_checkpointing_kwargs.every_n_layers",
    "training.activation_checkpointing_kwargs={reentrant: false}":
        "training.activation_checkpointing_kwargs.reentrant",
    "training.accelerator_config={even_batch: true}": "training.accelerator_config.even_batch",
    "training.accelerator_config={dispatch_batches: 1}": "training.accelerator_config.dispatch_batches",
    "training.accelerator_config={gradient_accumulation_kwargs: {num_steps: 3}}":
        "training.accelerator_config.gradient_accumulation_kwargs.num_steps",
    "adapter.velora_config={groups: 2}": "adapter.velora_config.groups",
    "adapter.use_bdlora={n_blocks: 2}": "adapter.use_bdlora.n_blocks",
}  # fmt: skip
"""A wrong key or value inside a mapping, with the place of the inner key."""

COMBINATIONS = {
    "training.lr_scheduler_type=cosine_with_min_lr": "training.lr_scheduler_type",
    "training.lr_scheduler_type=cosine_with_min_lr; training.lr_scheduler_kwargs={min_lr: 1e-6, min_lr_rate: 0.1}":
        "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=warmup_stable_decay": "training.lr_scheduler_type",
    "training.lr_scheduler_type=warmup_stable_decay; training.lr_scheduler_kwargs={decay_type: linear}":
        "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=warmup_stable_decay; training.lr_scheduler_kwargs={num_decay_steps: 2, decay_type: x}":
        "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=polynomial; training.lr_scheduler_kwargs={lr_end: 1.0}": "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=polynomial; training.lr_scheduler_kwargs={power: -1.0}": "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=inverse_sqrt; training.lr_scheduler_kwargs={timescale: 0}":
        "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=cosine_with_min_lr; training.lr_scheduler_kwargs={min_lr: 1.0}":
        "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=reduce_lr_on_plateau": "training.lr_scheduler_type",
    "training.lr_scheduler_type=greedy": "training.lr_scheduler_type",
    "training.lr_scheduler_type=greedy; training.eval_steps=2; training.lr_scheduler_kwargs={factor: 2.0}":
        "training.lr_scheduler_kwargs",
    "training.lr_scheduler_type=constant; training.warmup_steps=5": "training.warmup_steps",
    "training.warmup_steps=20; training.max_steps=20": "training.warmup_steps",
    "training.load_best_model_at_end=true": "training.load_best_model_at_end",
    BEST: "training.load_best_model_at_end",
    f"{BEST}; training.metric_for_best_model=loss; training.save_steps=3": "training.save_steps",
    f"{BEST}; training.metric_for_best_model=loss; training.save_strategy=epoch": "training.save_strategy",
    f"{BEST}; training.metric_for_best_model=perplexity; training.save_steps=4": "training.metric_for_best_model",
    "training.save_strategy=best; training.eval_steps=2": "training.save_strategy",
    "training.metric_for_best_model=loss": "training.metric_for_best_model",
    "training.greater_is_better=false": "training.greater_is_better",
    "training.dataloader_prefetch_factor=2": "training.dataloader_prefetch_factor",
    "training.dataloader_persistent_workers=true": "training.dataloader_persistent_workers",
    "training.dataloader_multiprocessing_context=spawn": "training.dataloader_multiprocessing_context",
    "training.eval_on_start=true": "training.eval_on_start",
    "training.optim=sgd; training.adam_beta1=0.5": "training.adam_beta1",
    "training.optim=adagrad; training.adam_epsilon=1e-6": "training.adam_epsilon",
    "training.optim=sgd; training.optim_args='momentun=0.9'": "training.optim_args",
    "training.optim=adamw_torch; training.optim_args='beta3=0.9'": "training.optim_args",
    "training.optim=sgd; training.optim_args='nesterov=true'": "training.optim_args",
    "training.optim=sgd; training.optim_args='momentum'": "training.optim_args",
    "training.optim=adagrad; training.optim_args='eps=small'": "training.optim_args",
    "training.optim_target_modules=all-linear": "training.optim_target_modules",
    "training.optim=galore_adamw; training.optim_target_modules=all-linear": "training.optim",
    "training.optim=schedule_free_adamw": "training.optim",
    "training.optim=adamw_torch_npu_fused": "training.optim",
    "training.optim=adamw_anyprecision": "training.optim",
    "training.use_liger_kernel=true": "training.use_liger_kernel",
    "training.liger_kernel_config={rope: true}": "training.liger_kernel_config",
    "training.loss_type=dft; training.label_smoothing_factor=0.1": "training.label_smoothing_factor",
    "training.activation_checkpointing=false; training.activation_checkpointing_kwargs={every_n_layers: 2}":
        "training.activation_checkpointing_kwargs",
    "training.tf32=true": "training.tf32",
    "training.fp16=true": "training.fp16",
    "training.fp16=true; training.bf16=true": "training.fp16",
    "quantization={load_in_4bit: true, load_in_8bit: true}": "quantization.load_in_8bit",
    "quantization={load_in_4bit: true, llm_int8_threshold: 4.0}": "quantization.llm_int8_threshold",
    "quantization={load_in_8bit: true, bnb_4bit_quant_storage: uint8}": "quantization.bnb_4bit_quant_storage",
    "adapter.target_modules='q_proj('": "adapter.target_modules",
    "adapter.exclude_modules='*_proj'": "adapter.exclude_modules",
    "adapter.alpha_pattern={'[q': 4}": "adapter.alpha_pattern",
}  # fmt: skip
"""Settings that do not go together, or do nothing together, with the place of the refusal."""

OF_CLASSIFIERS = {
    f"{BEST}; training.metric_for_best_model=f1_macro; training.save_steps=4": "training.metric_for_best_model",
    f"{BEST}; training.metric_for_best_model=eval_span_f1; training.save_steps=4": "training.metric_for_best_model",
    f"{BEST}; training.metric_for_best_model=f1; training.prediction_loss_only=true; training.save_steps=4":
        "training.metric_for_best_model",
}  # fmt: skip

OF_FULL_TRAINING = {
    "model.dtype=float16": "model.dtype",
    "model.dtype=bfloat16; training.fp16=true": "training.fp16",
}

OF_THE_MODEL = {
    "adapter.target_modules=[q_projj]": "adapter.target_modules",
    "adapter.target_modules='.*nothing'": "adapter.target_modules",
    "adapter.target_modules=[self_attn]": "adapter",
    "adapter.target_modules=[input_layernorm]": "adapter",
    "adapter.target_modules=[q_proj, lm_head]": "adapter.target_modules",
    "adapter.target_modules=[]": "adapter.target_modules",
    "adapter.target_parameters=[nothing]; adapter.target_modules=[]": "adapter.target_parameters",
    "adapter.exclude_modules=[nothing]": "adapter.exclude_modules",
    "adapter.exclude_modules=[q_proj, nothing]": "adapter.exclude_modules",
    "adapter.modules_to_save=[lm_headd]": "adapter.modules_to_save",
    "adapter.layers_to_transform=[0, 7]; adapter.target_modules=[q_proj]": "adapter.layers_to_transform",
    "adapter.layers_to_transform=[0]": "adapter.layers_to_transform",
    "adapter.layers_pattern=layers; adapter.target_modules=[q_proj]": "adapter.layers_pattern",
    "adapter.layers_pattern=blocks; adapter.layers_to_transform=0; adapter.target_modules=[q_proj]":
        "adapter.layers_pattern",
    "adapter.rank_pattern={qq_proj: 4}": "adapter.rank_pattern",
    "adapter.alpha_pattern={k_proj: 4}; adapter.target_modules=[q_proj]": "adapter.alpha_pattern",
    "adapter.trainable_token_indices=[99999]": "adapter.trainable_token_indices",
    "adapter.trainable_token_indices=[]": "adapter.trainable_token_indices",
    "adapter.use_bdlora={target_modules_bd_a: [nothing], nblocks: 2, match_strict: false}":
        "adapter.use_bdlora.target_modules_bd_a",
    "adapter.use_bdlora={target_modules_bd_a: [q_proj], nblocks: 7, match_strict: false}": "adapter",
    "adapter.velora_config={num_groups: -1}": "adapter",
    "adapter.init_lora_weights=orthogonal; adapter.r=3": "adapter",
    "adapter.lora_bias=true": "adapter.lora_bias",
    "adapter.use_dora=true; adapter.lora_bias=true": "adapter.lora_bias",
    "adapter.bias=all": "adapter.bias",
    "adapter.fan_in_fan_out=true": "adapter.fan_in_fan_out",
    "adapter.ensure_weight_tying=true": "adapter.ensure_weight_tying",
    "model.attn_implementation=flash_attention_2": "model.attn_implementation",
    "training.router_aux_loss_coef=0.1": "training.router_aux_loss_coef",
}  # fmt: skip
"""Settings that only the model on the meta device shows to be wrong."""

CASES = [
    *(("sft", settings, settings.partition("=")[0]) for settings in (*NAMES, *RANGES)),
    *(("sft", *case) for table in (NESTED, COMBINATIONS) for case in table.items()),
    *(("classes", *case) for case in OF_CLASSIFIERS.items()),
    *(("full", *case) for case in OF_FULL_TRAINING.items()),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.llama(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.text_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


def test_there_are_a_hundred_of_them():
    assert len(CASES) >= 100 and len(OF_THE_MODEL) >= 25


@pytest.mark.parametrize(("kind", "settings", "where"), CASES, ids=str)
def test_a_wrong_value_is_refused_at_its_place_without_a_model(kind, settings, where, base, rows, tmp_path):
    recipe = FieldRecipe(tmp_path, base, rows, kind, settings)

    with pytest.raises(EyasError) as refusal:
        recipe.check(model=False)

    assert any(f"{setting}.".startswith(f"{where}.") for setting in recipe.settings_in(str(refusal.value)))
    assert (NAMES.get(settings) or "") in str(refusal.value)


@pytest.mark.parametrize(("settings", "where"), OF_THE_MODEL.items(), ids=str)
def test_a_value_that_the_model_cannot_have_is_refused_at_its_place(settings, where, base, rows, tmp_path):
    recipe = FieldRecipe(tmp_path, base, rows, "sft", settings)

    with pytest.raises(EyasError) as refusal:
        recipe.check()

    assert recipe.settings_in(str(refusal.value)) == [where]
